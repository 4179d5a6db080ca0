"""The store on the command line: list, export, import and delete."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import SAMPLING, billed, contents, entry, filled, key, open_folder, without_rights
from tinyllm.errors import DataError, RunFolderError
from tinyllm.prompts import Prompt
from tinyllm.replies._files import export_replies, import_replies
from tinyllm.replies._store import Entry, Failure, Store, Work, crc_of
from tinyllm.replies._tools import EVERYTHING, Selection, find_store, prune, reading
from tinyllm.replies._tools import contents as look
from tinyllm.teachers.base import Reply, Request, canonical, key_of

OLD = datetime(2024, 5, 17, tzinfo=UTC)


def stored(path: Path) -> Path:
    """Ten old replies of ada and five new ones, four of bob, and three failures."""
    with Store(path) as store:
        billed(store, [entry(n) for n in range(10)], "first", 7200.0)
        store._db.execute("UPDATE replies SET created = ?", [OLD.timestamp()])
        billed(store, [entry(n) for n in range(10, 15)], "second")
        bob = [entry(n, teacher="bob") for n in range(4)]
        store.put_many([Entry("bob", e.question_id, e.key, e.asked, Reply("Yes.", "stop", 5, 2, 1.0, 4)) for e in bob])
        store.commit(
            Work(
                failures=[Failure(key(n), "ada", f"q{n}", "too_long" if n > 91 else "failed", "") for n in (90, 91, 92)]
            )
        )
    return path


# --- ls -----------------------------------------------------------------------------------------------------------


def test_what_is_in_a_store(tmp_path):
    found = look(stored(tmp_path / "s"))
    ada, bob = found.teachers
    assert (ada.teacher, ada.replies, ada.prompt_tokens, ada.completion_tokens, ada.cached_tokens) == (
        "ada", 15, 45, None, None,
    )  # fmt: skip
    assert (bob.teacher, bob.replies, bob.prompt_tokens, bob.completion_tokens, bob.cached_tokens) == (
        "bob",
        4,
        20,
        8,
        16,
    )
    assert bob.identity == {"kind": "scripted", "model": "model of bob"}
    assert ada.first == "2024-05-17T00:00:00.000000+00:00" < ada.last
    assert [(f.teacher, f.reason, f.requests) for f in found.failures] == [("ada", "failed", 2), ("ada", "too_long", 1)]
    assert [(p.run, p.teacher, p.spent.replies, p.spent.seconds) for p in found.spent] == [
        ("first", "ada", 10, 7200.0), ("second", "ada", 5, 0.0),
    ]  # fmt: skip
    assert found.bytes == (tmp_path / "s").stat().st_size


@settings(max_examples=12, deadline=None)
@given(
    st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3),
    st.sampled_from(["", "Why?", '},"options":[" A"]', '{"a":{},"prompt":']),
)
def test_models_are_grouped_by_identity(tmp_path_factory, identity, text):
    """Its name may even hold what ends it in the request. It is asked for rationales and for opinions."""
    path = tmp_path_factory.mktemp("s") / "s"
    tricky = identity | {"model": '},"prompt":', "prompt": "", "options": '},"options":['}
    with Store(path) as store:
        for named in (identity, tricky):
            for options in ((), (" A", " B")):
                asked = canonical(named, Request("q", Prompt(text=text), SAMPLING, options=options))
                store.put(Entry("ada", "q", key_of(asked), asked, Reply("Because.", "stop")))
    found = [a.identity for a in look(path).teachers]
    assert len(found) == 2
    assert identity in found
    assert tricky in found


def test_a_store_can_be_listed_while_others_write(tmp_path):
    with Store(stored(tmp_path / "s")) as store:
        store.put(entry(20))
        assert look(tmp_path / "s").teachers[0].replies == 16
        store.put(entry(21))
        with reading(tmp_path / "s") as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM replies")
        assert len(store) == 21


def test_a_store_in_a_read_only_folder_can_be_listed():
    with open_folder() as folder:
        path = stored(folder / "a #1?.sqlite")
        path.chmod(0o444)
        folder.chmod(0o555)
        with without_rights():
            assert look(path).teachers[0].replies == 15
        folder.chmod(0o700)


def test_listing_does_not_change_a_damaged_store(tmp_path):
    path = filled(tmp_path / "s")
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xee" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(RunFolderError, match="damaged"):
        look(path)
    assert path.read_bytes() == data


def test_the_table(cli, tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    stored(tmp_path / "runs" / "replies.sqlite")
    monkeypatch.chdir(tmp_path)
    said = cli("store", "ls")
    assert said.code == 0, said.err
    assert said.err == ""
    assert "19 replies" in said.out
    lines = [line.split() for line in said.out.splitlines()]
    assert ["ada", "m", "15", "45", "—", "—"] in [line[:6] for line in lines]
    assert ["bob", "model", "of", "bob", "4", "20", "8", "16"] in [line[:8] for line in lines]
    assert ["first", "ada", "10", "30", "0", "0", "0.0000", "0", "2.00"] in lines
    assert ["ada", "too_long", "1"] in lines
    assert cli("store", "ls", "runs").out == said.out
    found = json.loads(cli("store", "ls", "runs", "--json").out)
    assert [t["replies"] for t in found["teachers"]] == [15, 4]


def test_a_run_folder_gives_its_store(project):
    run, place = project.folder / "runs" / "mine", project.folder / "elsewhere" / "my.sqlite"
    for store, found in ((None, run.parent / "replies.sqlite"), (str(place), place)):
        project.change("rationales.store", store)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_bytes(project.config.read_bytes())
        with pytest.raises(RunFolderError, match=f"There is no store {found}"):
            find_store(run)
        stored(found)
        assert find_store(run) == found


def test_listing_does_not_create_a_store(cli, tmp_path):
    said = cli("store", "ls", tmp_path / "replies.sqlite")
    assert said.code == 2
    assert "There is no store" in said.err
    assert list(tmp_path.iterdir()) == []


# --- export and import --------------------------------------------------------------------------------------------

odd_texts = st.text(st.characters(), max_size=30)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(odd_texts, odd_texts, st.floats(0, 1e6), st.none() | st.integers(0, 1 << 40)), max_size=5))
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_an_export_can_be_imported(tmp_path_factory, ending, replies):
    folder = tmp_path_factory.mktemp("export")
    with Store(folder / "s") as store:
        for prompt, text, seconds, tokens in replies:
            options = ("A", "B") if tokens else ()
            asked = canonical({"kind": "x"}, Request("q", Prompt(text=prompt), SAMPLING, options=options))
            message = json.dumps({"content": [text]}) if tokens else None
            reply = Reply(text, "length", tokens, 3, seconds, tokens, tokens, message)
            store.put(Entry("ada", prompt, key_of(asked), asked, reply))
    count = export_replies(folder / "s", folder / f"out.{ending}")
    done = import_replies(folder / f"out.{ending}", folder / "t")
    assert count == done.new == len(contents(folder / "s"))
    before, after = sorted(contents(folder / "s")), sorted(contents(folder / "t"))
    created, crc = 10, 11
    assert [(*row[:created], *row[crc + 1 :]) for row in before] == [(*row[:created], *row[crc + 1 :]) for row in after]
    assert [row[created] for row in before] == pytest.approx([row[created] for row in after], abs=1e-5)
    assert all(row[crc] == crc_of(*row[:3], *row[4:crc], *row[crc + 1 :]) for row in after)
    again = import_replies(folder / f"out.{ending}", folder / "t")
    assert (again.new, again.known) == (0, count)


def test_an_export_contains_the_request(cli, tmp_path):
    stored(tmp_path / "s")
    said = cli("store", "export", tmp_path / "s", "--out", tmp_path / "o.jsonl", "--teacher", "bob", "--json")
    assert json.loads(said.out) == {"replies": 4, "file": str(tmp_path / "o.jsonl")}
    first, *_ = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first.pop("created").endswith("+00:00")
    assert key_of(json.dumps(first["request"], sort_keys=True, separators=(",", ":"))) == first.pop("key")
    assert first == {
        "teacher": "bob", "question_id": "q0", "text": "Yes.", "finish_reason": "stop", "prompt_tokens": 5,
        "completion_tokens": 2, "cached_tokens": 4, "latency_s": 1.0, "thinking_tokens": None, "message": None, "request": {
            "identity": {"kind": "scripted", "model": "model of bob"}, "prompt": "Why 0?", "sample": 0,
            "sampling": {"max_tokens": 16, "temperature": 0.7, "top_p": 0.9, "seed": 1, "stop": ["\n\n"]},
        },
    }  # fmt: skip
    said = cli("store", "export", tmp_path / "s", "--out", tmp_path / "o.parquet", "--since", "2024-05-18")
    assert said.code == 0, said.err
    assert pq.read_table(tmp_path / "o.parquet")["question_id"].to_pylist() == [
        *(f"q{n}" for n in range(10, 15)),
        *(f"q{n}" for n in range(4)),
    ]


def test_a_failed_export_keeps_the_old_file(cli, tmp_path):
    (tmp_path / "o.jsonl").write_text("mine")
    path = filled(tmp_path / "s")
    data = bytearray(path.read_bytes())
    data[20480:] = b"\xee" * (len(data) - 20480)
    path.write_bytes(data)
    said = cli("store", "export", path, "--out", tmp_path / "o.jsonl")
    assert said.code == 2
    assert "store salvage" in said.err
    assert (tmp_path / "o.jsonl").read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} <= {"o.jsonl", "s", "s.claims", "s-wal", "s-shm"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "o.csv"], ".jsonl or .parquet"),
        (["--out", "o.jsonl", "--teacher", "bo"], "Did you mean 'bob'? It holds replies of: ada, bob"),
        (["--out", "o.jsonl", "--since", "yesterday"], "'yesterday' is not a date"),
        (["--out", "o.jsonl", "other"], "There is no store other"),
        ([], "--out"),
    ],
)
def test_what_cannot_be_exported_is_one_message(cli, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    stored(tmp_path / "runs" / "replies.sqlite")
    said = cli("store", "export", *arguments)
    assert said.code == 2
    assert says in said.err
    assert not list(tmp_path.glob("o.*"))


def lines_of(path: Path, folder: Path) -> list[dict]:
    export_replies(path, folder / "o.jsonl")
    return [json.loads(line) for line in (folder / "o.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["request"]["sampling"].update(seed=2), "no longer matches its key"),
        (lambda r: r["request"].pop("sample"), "a request has identity, prompt, sample, sampling"),
        (lambda r: r.update(finish_reason="tired"), "'tired' is none of stop"),
        (lambda r: r.update(prompt_tokens=-1), "-1 is no number of tokens"),
        (lambda r: r.update(prompt_tokens=True), "True is no number of tokens"),
        (lambda r: r.update(latency_s=float("nan")), "nan is no number of seconds"),
        (lambda r: r.update(text=None), "None is no text"),
        (lambda r: r.update(created="last week"), "last week"),
        (lambda r: r.pop("teacher"), "'teacher'"),
        (lambda r: r.clear(), "'request'"),
    ],
)
def test_a_wrong_line_is_named_and_earlier_lines_are_kept(tmp_path, change, says):
    records = lines_of(filled(tmp_path / "s", 5), tmp_path)
    change(records[3])
    (tmp_path / "o.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    with pytest.raises(DataError, match=rf"o\.jsonl, line 4 is no reply .*{says}"):
        import_replies(tmp_path / "o.jsonl", tmp_path / "t")


def test_a_file_that_is_no_export_is_one_message(cli, tmp_path):
    (tmp_path / "a.jsonl").write_text("notes\n")
    (tmp_path / "b.parquet").write_text("notes\n")
    (tmp_path / "c.jsonl").write_text("[1]\n")
    (tmp_path / "d.jsonl").write_bytes(b"\xff\n")
    for name, says in {
        "a.jsonl": "a.jsonl, line 1", "b.parquet": "cannot be read", "c.jsonl": "line 1", "d.jsonl": "line 1",
        "e.jsonl": "that are there", "e.csv": ".jsonl or .parquet",
    }.items():  # fmt: skip
        said = cli("store", "import", tmp_path / name, tmp_path / "t")
        assert said.code == 2
        assert says in said.err
        assert "Traceback" not in said.err


def test_two_stores_become_one(cli, tmp_path):
    for name, numbers in {"s": range(6), "t": range(4, 10)}.items():
        with Store(tmp_path / name) as store:
            store.put_many([entry(n, f"of {name}") for n in numbers])
    assert cli("store", "export", tmp_path / "s", "--out", tmp_path / "o.jsonl").code == 0
    said = cli("store", "import", tmp_path / "o.jsonl", tmp_path / "t")
    assert said.code == 0, said.err
    assert "4 replies added" in said.out
    assert "2 were already there" in said.out
    with Store(tmp_path / "t") as store:
        assert [store.get(key(n)).text for n in range(10)] == ["of s"] * 4 + ["of t"] * 6


# --- prune --------------------------------------------------------------------------------------------------------


def left(path: Path) -> dict[str, int]:
    found = look(path)
    return {a.teacher: a.replies for a in found.teachers} | {"failed": sum(f.requests for f in found.failures)}


@pytest.mark.parametrize(
    ("arguments", "after"),
    [
        (["--teacher", "ada"], {"bob": 4, "failed": 3}),
        (["--before", "2024-05-18"], {"ada": 5, "bob": 4, "failed": 3}),
        (["--before", "2024-05-17"], {"ada": 15, "bob": 4, "failed": 3}),
        (["--before", "2024-05-18", "--teacher", "bob"], {"ada": 15, "bob": 4, "failed": 3}),
        (["--failures"], {"ada": 15, "bob": 4, "failed": 0}),
        (["--failures", "--teacher", "bob"], {"ada": 15, "bob": 4, "failed": 3}),
        (["--failures", "--before", "2024-05-18"], {"ada": 15, "bob": 4, "failed": 3}),
    ],
)
def test_only_selected_replies_are_deleted(cli, tmp_path, arguments, after):
    stored(tmp_path / "s")
    said = cli("store", "prune", tmp_path / "s", "--yes", *arguments)
    assert said.code == 0, said.err
    assert left(tmp_path / "s") == after
    assert [p.spent.replies for p in look(tmp_path / "s").spent] == [10, 5]  # it has been paid for all the same


def test_deleting_reports_tokens_and_shrinks_the_file(tmp_path):
    path = filled(tmp_path / "s", 2000)
    before = path.stat().st_size
    selected = prune(path, Selection("ada"), dry_run=True)
    assert (selected.replies, selected.prompt_tokens, selected.completion_tokens) == (2000, 6000, 0)
    assert look(path).teachers[0].replies == 2000
    assert prune(path, Selection("ada")) == selected
    assert path.stat().st_size < before / 10
    with Store(path) as store:
        store.put(entry(1))
        assert len(store) == 1


class Terminal(io.StringIO):
    """Someone who answers."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "kept"), [("y\n", 0), ("n\n", 15), ("\n", 15)])
def test_deleting_asks_for_confirmation(cli, tmp_path, monkeypatch, answer, kept):
    stored(tmp_path / "s")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    said = cli("store", "prune", tmp_path / "s", "--teacher", "ada", "--json")
    assert said.code == 0, said.err
    assert "15 replies (45 prompt and 0 completion tokens)" in said.err
    assert left(tmp_path / "s").get("ada", 0) == kept
    assert json.loads(said.out)["replies"] == 15 - kept


def test_deleting_without_a_terminal_needs_yes(cli, tmp_path, monkeypatch):
    stored(tmp_path / "s")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = cli("store", "prune", tmp_path / "s", "--teacher", "ada")
    assert said.code == 2
    assert "15 replies" in said.err
    assert "--yes" in said.err
    assert left(tmp_path / "s")["ada"] == 15


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "Say what to delete"), (["--teacher", "eve"], "nothing of a teacher 'eve'")]
)
def test_deleting_needs_a_selection(cli, tmp_path, arguments, says):
    stored(tmp_path / "s")
    said = cli("store", "prune", tmp_path / "s", "--yes", *arguments)
    assert said.code == 2
    assert says in said.err
    assert left(tmp_path / "s") == {"ada": 15, "bob": 4, "failed": 3}


def test_a_store_in_use_is_not_pruned(cli, tmp_path):
    path = stored(tmp_path / "s")
    code = "import sys\nfrom pathlib import Path\nfrom tinyllm.replies._store import Store\nstore = Store(Path(sys.argv[1]))\nprint('open', flush=True)\nsys.stdin.read()\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as user:
        assert user.stdout.readline() == b"open\n"
        said = cli("store", "prune", path, "--teacher", "ada", "--yes")
        assert said.code == 2
        assert "Another process has the store" in said.err
        user.communicate(timeout=30)
    assert left(path)["ada"] == 15
    with Store(path) as store:  # in this process too
        store.claims.take(key(0))
        with pytest.raises(RunFolderError, match="has the store"):
            prune(path, Selection("ada"))
    assert prune(path, Selection("ada")).replies == 15


def test_opening_a_store_waits_while_it_is_pruned(tmp_path, monkeypatch):
    from tinyllm.replies import _tools as store_tools

    path = filled(tmp_path / "s", 5)
    opened: list[int] = []

    def use() -> None:
        with Store(path) as store:
            opened.append(len(store))

    with store_tools._exclusive(path) as db:
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(0.3)
        assert opened == []
        db.execute("DELETE FROM replies WHERE id > 2")
        db.execute("COMMIT")
    thread.join(60)
    assert opened == [2]


def test_no_condition_selects_everything(tmp_path):
    assert export_replies(stored(tmp_path / "s"), tmp_path / "o.jsonl", EVERYTHING) == 19
