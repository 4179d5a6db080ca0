"""Faults while teachers are asked. Each fault is real: a process, a socket or a disk."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.server import FAULTS, running

from faults.scene import Scene, asked, until
from tinyllm.replies import Store

# How patient an endpoint is waited for when every fault is deliberate.
HASTY = {"timeout_s": 3.0, "first_byte_s": 1.5, "stall_s": 1.0, "connect_s": 1.0}


def test_kills_at_random_moments_lose_nothing_and_double_nothing(tmp_path, tiny_t5, full, figures):
    questions, kills, in_flight = (2000, 50, 8) if full else (300, 4, 8)
    draw = random.Random(0)
    lost_at_most = 0
    with running(latency=0.1) as server:
        scene = Scene(
            tmp_path, tiny_t5, questions, server.url, concurrency=in_flight, price={"prompt": 1, "completion": 1}
        )
        done = 0
        for _ in range(kills):
            before = asked(server)
            command = scene.start("--quiet")
            until(lambda command=command, before=before: asked(server) > before or command.code is not None)
            time.sleep(draw.uniform(0, 0.8 * questions / kills / in_flight * 0.1))
            command.kill()
            command.wait()
            time.sleep(0.15)  # what the server had under way
            stored = len(scene.replies())
            lost_at_most = max(lost_at_most, asked(server) - before - (stored - done))
            done = stored
        assert done < questions, "the kills must fall into the run"
        with Store(scene.store) as store:
            left = store._db.execute("SELECT count(*) FROM charges").fetchone()[0]
        last, again = scene.generate(), scene.generate()
        assert last.code == again.code == 0
        stats = server.stats()
    assert (f"{left} attempt" in last.said and "ended without a word on the cost" in last.said) or not left
    assert "ended without a word on the cost" not in again.said  # told once
    assert sorted(scene.replies()) == sorted((f"q{n}", 0) for n in range(questions))
    assert sorted(scene.rationales()) == sorted(f"q{n}" for n in range(questions))
    assert stats.prompts == questions
    assert stats.requests - questions <= kills * 2 * in_flight  # in flight, or not yet on the disk
    assert lost_at_most <= 2 * in_flight
    with Store(scene.store) as store:
        spent = store.spent((scene.run / ".account").read_text().strip())["ada"]
        assert not store._db.execute("SELECT count(*) FROM charges").fetchone()[0]
    assert spent.lost >= stats.requests - questions  # what was under way when the process was killed
    figures(
        "kill -9", questions=questions, kills=kills, requests=stats.requests, asked_again=stats.requests - questions,
        most_by_one_kill=lost_at_most, wrong=2 * questions - len(scene.replies()) - len(scene.rationales()),
    )  # fmt: skip


def test_a_server_with_every_fault_is_got_through(tmp_path, tiny_t5, full, figures):
    if not full:
        pytest.skip("retries have tests of their own in tests/teachers; `make test-faults` runs it")
    questions = 1000 if full else 120
    with running(latency=0.01, fail=0.3, retry_after=0.5, seed=1) as server:
        scene = Scene(tmp_path, tiny_t5, questions, server.url, concurrency=32, max_attempts=6, **HASTY)
        command = scene.generate("--quiet")
        assert command.code in (0, 3), command.said
        stats, yields = server.stats(), scene.yields()
    assert yields["rationales"] + sum(yields["rejected"].values()) == questions
    assert set(yields["rejected"]) <= {"failed", "empty"}
    assert yields["rationales"] >= 0.97 * questions
    assert stats.faults.keys() == FAULTS.keys() if full else stats.faults
    # An empty text is a reply like any other: it is stored, counted by its reason, and asked for anew.
    stored = Counter(sample for _, sample in scene.replies())
    assert stored.total() == stats.answered + stats.faults.get("empty", 0)
    assert sum(yields["resampled"].values()) == stored.total() - stored[0]
    assert stats.answered_again == 0
    figures(
        "30 % of faults", questions=questions, requests=stats.requests, **stats.faults,
        rationales=yields["rationales"], rejected=sum(yields["rejected"].values()), wrong=stats.answered_again,
    )  # fmt: skip


@pytest.mark.parametrize("fault", ["error", "reset", "hang", "half", "stall"])
def test_no_request_is_retried_beyond_its_bound(tmp_path, tiny_t5, fault, full, figures):
    if not full and fault in ("reset", "half", "hang"):
        pytest.skip("like the others; `make test-faults` runs it")
    with running(fail=1.0, faults=fault) as server:
        patience = dict.fromkeys(HASTY, 0.4)
        scene = Scene(tmp_path, tiny_t5, 6, server.url, concurrency=6, max_attempts=3, **patience)
        command = scene.generate()
        stats = server.stats()
    assert command.code == 3, command.said
    assert stats.requests == 6 * 3
    assert scene.yields()["rejected"] == {"failed": 6}
    assert "6 of ada (failed)" in command.said
    figures(f"only {fault}", requests=stats.requests, allowed=18, rejected=6, wrong=max(0, stats.requests - 18))


def test_rate_limits_are_waited_for_and_are_no_attempts(tmp_path, tiny_t5, full, figures):
    if not full:
        pytest.skip("retries have tests of their own in tests/teachers; `make test-faults` runs it")
    with running(fail=1.0, faults="limited,limited_date", most_faults=4, retry_after=0.2) as server:
        scene = Scene(tmp_path, tiny_t5, 12, server.url, concurrency=4, max_attempts=1)
        assert scene.generate("--quiet").code == 0
        stats = server.stats()
    assert len(scene.rationales()) == 12
    figures("only 429", requests=stats.requests, **stats.faults, rationales=12, wrong=0)


# --- stopping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_finishes_what_is_in_flight_and_twice_stops_at_once(tmp_path, tiny_t5, times, figures):
    with running(latency=1.0 if times == 1 else 60.0) as server:
        scene = Scene(tmp_path, tiny_t5, 200, server.url, concurrency=10)
        command = scene.start()
        until(lambda: asked(server) >= 10)
        before = asked(server)
        command.kill(signal.SIGINT)
        until(lambda: "Finishing what is in flight" in command.said, command.said)
        if times == 2:
            began = time.monotonic()
            command.kill(signal.SIGINT)
        assert command.wait() == 130
        assert "Traceback" not in command.said
        assert "kept" in command.said
        if times == 2:
            assert time.monotonic() - began < 30  # not the minute that the replies would take
        stats = server.stats()
    assert stats.requests == before
    assert len(scene.replies()) == (before if times == 1 else 0)
    figures(f"Ctrl-C {'once' if times == 1 else 'twice'}", in_flight=before, kept=len(scene.replies()), wrong=0)


def test_two_processes_ask_each_request_once(tmp_path, tiny_t5, full, figures):
    questions = 2000 if full else 300
    with running(latency=0.05) as server:
        scene = Scene(tmp_path, tiny_t5, questions, server.url, concurrency=16)
        both = [scene.start("--quiet", run=tmp_path / name) for name in ("one", "two")]
        assert [command.wait(300) for command in both] == [0, 0], both[0].said + both[1].said
        stats = server.stats()
    assert stats.requests == stats.prompts == len(scene.replies()) == questions
    figures("two processes, one store", questions=questions, requests=stats.requests, wrong=0)


def test_a_replica_that_dies_hands_its_requests_to_the_other(tmp_path, tiny_t5, full, figures):
    questions = 1000 if full else 200
    with running(latency=0.05) as steady, running(latency=0.05) as dying:
        scene = Scene(tmp_path, tiny_t5, questions, [dying.url, steady.url], concurrency=16, max_attempts=1)
        command = scene.start("--quiet")
        until(lambda: asked(dying) >= questions // 10)
        dying.process.kill()
        assert command.wait() == 0, command.said
        assert len(scene.rationales()) == questions
        figures("a replica dies", questions=questions, asked_of_the_other=asked(steady), wrong=0)


def test_a_budget_is_not_exceeded_with_200_in_flight(tmp_path, tiny_t5, figures):
    price = {"prompt": 1.0, "completion": 10.0}
    with running(latency=0.1, tokens=40) as server:
        scene = Scene(tmp_path, tiny_t5, 1500, server.url, concurrency=200, price=price)
        scene.tree["rationales"]["budget"] = {"usd": 0.25}
        command = scene.generate()
        assert command.code == 3, command.said
        assert "The budget has no room for another request" in command.said
        yields, stats = scene.yields(), server.stats()
        usd = (yields["prompt_tokens"] + 10 * yields["completion_tokens"]) / 1e6
        assert 0.24 < usd <= 0.25
        again = scene.generate()  # the cap is the run's, not the command's
        assert again.code == 3
        assert asked(server) - stats.requests <= 1
    assert stats.most_in_flight > 150
    assert yields["rejected"] == {"unasked": 1500 - yields["rationales"]}
    figures("a budget of $0.25", spent=f"${usd:.4f}", most_in_flight=stats.most_in_flight, wrong=0)


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_told_and_the_store_opens_again(tmp_path, tiny_t5, figures):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with running(latency=0.005) as server:
            scene = Scene(tmp_path, tiny_t5, 3000, server.url, concurrency=16)
            scene.store = disk / "replies.sqlite"
            scene.tree["rationales"]["store"] = str(scene.store)
            command = scene.generate("--quiet")
            assert command.code == 2
            assert "The disk is full" in command.said
            assert "Traceback" not in command.said
            kept = len(scene.replies())
            assert kept > 0
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            before = asked(server)
            assert scene.generate("--quiet").code == 0
            assert asked(server) - before == 3000 - kept
            assert len(scene.replies()) == 3000
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
    figures("a full disk", kept_before=kept, wrong=0)


def test_a_store_that_cannot_be_written_is_named(tmp_path, tiny_t5):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk needs root")
    try:
        with running() as server:
            scene = Scene(tmp_path, tiny_t5, 20, server.url)
            scene.store = disk / "replies.sqlite"
            scene.tree["rationales"]["store"] = str(scene.store)
            assert scene.generate("--quiet").code == 0
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            assert scene.generate("--quiet").code == 0  # every reply is there
            before = asked(server)
            command = scene.generate("--quiet", "--set", "rationales.seed=1")
            assert command.code == 2
            assert asked(server) == before
            assert str(scene.store) in command.said
            assert "Traceback" not in command.said
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            assert len(scene.replies()) == 20
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


# --- keys ---------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_stops_the_teacher_and_no_key_is_found_anywhere(tmp_path, tiny_t5):
    right, wrong = "sk-right-0123456789abcdef", "sk-wrong-0123456789abcdef"
    with running(key=right, fail=0.2, faults="error,half,limited", retry_after=0.1) as server:
        scene = Scene(tmp_path, tiny_t5, 40, server.url, concurrency=8)
        scene.tree["teachers"][0]["api_key_env"] = "ADA_KEY"
        refused = scene.generate(env={"ADA_KEY": wrong})
        assert refused.code == 2
        assert "this is not the key" in refused.said  # the server's own words
        assert "ADA_KEY" not in scene.tree or scene.replies() == []
        assert asked(server) == 0
        assert scene.generate("--json", env={"ADA_KEY": right}).code in (0, 3)
    secrets = (right.encode(), wrong.encode())
    files = [file for file in Path(tmp_path).rglob("*") if file.is_file()]
    assert any(file.name == "replies.sqlite" for file in files)
    found = [(file, secret) for file in files for secret in secrets if secret in file.read_bytes()]
    assert found == []


def test_sqlite_is_told_to_put_each_commit_on_the_disk(tmp_path):
    from tinyllm.replies._store import Store

    with Store(tmp_path / "s") as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert sqlite3.threadsafety >= 1
