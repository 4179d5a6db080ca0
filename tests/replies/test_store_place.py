"""One store has one path, one lock file and one journal, in every spelling of the path."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import billed, entry
from tinyllm.errors import RunFolderError
from tinyllm.replies._place import STORE, resolved, store_of
from tinyllm.replies._store import Store
from tinyllm.replies._tools import find_store


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """`real/runs/mine`, and links to the run, to the folder of runs, and to a file of it."""
    top = tmp_path_factory.mktemp("tree")
    (top / "real" / "runs" / "mine").mkdir(parents=True)
    (top / "run-link").symlink_to("real/runs/mine")
    (top / "runs-link").symlink_to(top / "real" / "runs")
    (top / "link-link").symlink_to("run-link")
    (top / "real" / "back").symlink_to("..")
    return top


RUNS = ("real/runs/mine", "run-link", "runs-link/mine", "link-link", "real/back/run-link", "real/back/real/runs/mine")
NOISE = st.lists(st.sampled_from([".", "../mine", "x/..", "../../runs/mine"]), max_size=4)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(RUNS), NOISE, st.booleans(), st.sampled_from(RUNS), st.booleans())
def test_every_spelling_of_a_run_gives_one_store(tree, spelling, noise, relative, inside, from_inside):
    before = Path.cwd()
    os.chdir(tree / inside if from_inside else tree)
    try:
        run = tree / spelling
        if noise:
            run = Path(str(run), *noise)
        if relative:
            run = Path(os.path.relpath(tree / "real/runs/mine"))  # `.` where one is inside
        assert store_of(run, None) == tree / "real" / "runs" / STORE
    finally:
        os.chdir(before)


def test_two_spellings_of_a_path_share_claims_and_batches(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "named.sqlite").symlink_to("real/replies.sqlite")  # dangling, until the store is made
    spellings = [tmp_path / "named.sqlite", tmp_path / "folder" / STORE, tmp_path / "real" / ".." / "real" / STORE]
    opened = [Store(path) for path in spellings]
    try:
        first, *others = opened
        assert {store.path for store in opened} == {tmp_path / "real" / STORE}
        assert first.claims.take("ab" * 32)
        assert not any(store.claims.take("ab" * 32) for store in others)
        first.put(entry(1, "a reply"))
        assert all(len(store) == 1 for store in others)
    finally:
        for store in opened:
            store.close()
    assert {p.name for p in (tmp_path / "real").iterdir()} == {STORE, f"{STORE}.claims"}
    assert {p.name for p in tmp_path.iterdir()} == {"real", "folder", "named.sqlite"}
    assert {resolved(find_store(path)) for path in spellings} == {tmp_path / "real" / STORE}


def test_a_loop_of_links_and_an_invalid_path_are_one_message(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", Path("a\0b")):
        with pytest.raises(RunFolderError, match="is no usable path"):
            resolved(path)
        with pytest.raises(RunFolderError, match="is no usable path"):
            store_of(path, None)


@pytest.mark.parametrize("spelling", ["link", "inside"])
def test_the_command_line_asks_once_whatever_the_spelling(project, cli, monkeypatch, spelling):
    assert cli("generate", project.config).code == 0
    store = project.folder / "runs" / STORE
    with Store(store) as opened:
        count = len(opened)
    if spelling == "link":
        (project.folder / "link").symlink_to("runs/mine")
        assert cli("generate", project.config, "--run-dir", "link").code == 0
        there, here = (json.loads(cli("store", "ls", *place, "--json").out)["teachers"] for place in (["link"], []))
        assert there == here
    else:
        monkeypatch.chdir(project.run)
        assert cli("generate", project.config, "--run-dir", ".").code == 0
        assert cli("generate", ".").code == 0
    with Store(store) as opened:
        assert len(opened) == count
    assert [*project.folder.rglob("*.sqlite")] == [store]


def test_a_trained_run_goes_on_with_its_store_at_another_place(project, cli):
    assert cli("run", project.config).code == 0
    (project.folder / "kept").mkdir()
    for file in (project.folder / "runs").glob(f"{STORE}*"):
        file.rename(project.folder / "kept" / file.name)
    project.change("rationales.store", str(project.folder / "kept" / STORE))
    said = cli("run", project.config)
    assert said.code == 0, said.err
    assert "The student is already trained" in said.err


# --- what earlier versions left -----------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path) -> Path:
    """A run folder that is a link, with an account."""
    (tmp_path / "disk" / "mine").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tmp_path / "disk" / "mine")
    (tmp_path / "disk" / "mine" / ".account").write_text("mine-1\n")
    return tmp_path / "runs" / "mine"


def test_replies_at_the_old_path_are_an_error_not_paid_again(linked, tmp_path):
    with Store(linked.parent / STORE) as old:
        billed(old, [entry(1, "x")], "mine-1")
    with pytest.raises(RunFolderError, match="So that nothing is asked and paid again, move every file"):
        store_of(linked, None)
    assert store_of(linked, linked.parent / STORE) == linked.parent / STORE  # the other remedy that is told
    for file in linked.parent.glob(f"{STORE}*"):
        file.rename(tmp_path / "disk" / file.name)
    assert store_of(linked, None) == tmp_path / "disk" / STORE


def test_a_store_of_another_run_beside_the_link_is_ignored(linked, tmp_path):
    with Store(linked.parent / STORE) as old:
        billed(old, [entry(1, "x")], "another-run")
    assert store_of(linked, None) == tmp_path / "disk" / STORE


@pytest.mark.parametrize("of", ["run", "store"])
def test_batches_at_the_old_path_are_an_error(linked, tmp_path, of):
    link = linked.parent / STORE
    if of == "store":
        link.symlink_to(tmp_path / "disk" / STORE)
    journal = linked.parent / f"{STORE}.batches" / "0123456789abcdef"
    journal.mkdir(parents=True)
    (journal / "token.json").write_text(json.dumps({}))
    with pytest.raises(RunFolderError, match="notes of batches"):
        store_of(linked, None if of == "run" else link)
    journal.parent.rename(tmp_path / "disk" / journal.parent.name)
    assert store_of(linked, None if of == "run" else link) == tmp_path / "disk" / STORE
