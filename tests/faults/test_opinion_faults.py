"""Opinions after kill -9: stored replies are kept, and only requests in flight are sent again."""

from __future__ import annotations

import json
import random
import time

import pytest
from benchmarks.server import running

from faults.scene import Scene, asked, until
from tinyllm.cli.app import main
from tinyllm.opinions.files import read_opinions


def test_kills_during_opinions_lose_or_double_no_reply(tmp_path, tiny_t5, full, figures):
    questions, kills, in_flight = (500, 20, 8) if full else (100, 2, 8)
    draw = random.Random(0)
    with running(latency=0.1) as server:
        scene = Scene(tmp_path, tiny_t5, questions, server.url, concurrency=in_flight)
        scene.tree |= {"train": {"method": "fine-tuning"}, "opinions": {"teachers": ["ada"], "orders": 2}}
        for _ in range(kills):
            before = asked(server)
            command = scene.start("--quiet")
            until(lambda command=command, before=before: asked(server) > before or command.code is not None)
            time.sleep(draw.uniform(0, 0.8 * 2 * questions / kills / in_flight * 0.1))
            command.kill()
            command.wait()
        assert len(scene.replies()) < 2 * questions, "the kills must fall into the asking"
        command = scene.generate("--quiet")
        assert command.code == 0, command.said
        stats = server.stats()
    assert len(scene.replies()) == stats.prompts == 2 * questions
    assert stats.requests - 2 * questions <= kills * 2 * in_flight  # in flight, or not yet on the disk
    found = json.loads((scene.run / "opinions.json").read_text())["teachers"]["ada"]
    assert (found["opinions"], found["replies"]) == (questions, 2 * questions)
    figures(
        "kill -9 during opinions", questions=questions, kills=kills, requests=stats.requests,
        wrong=2 * questions - len(scene.replies()),
    )  # fmt: skip


def test_kills_while_out_of_fold_students_are_trained_change_nothing(tmp_path, tiny_t5, full, figures):
    if not full:
        pytest.skip("a minute; `make test-faults` runs it")
    draw, kills, origin = random.Random(0), 8, tmp_path / "origin"
    scene = Scene(tmp_path, tiny_t5, 200, "http://127.0.0.1:9/v1")
    scene.tree |= {"teachers": [], "train": {"method": "fine-tuning", "batch_size": 4, "save_steps": 5}}
    scene.start("--quiet").wait()  # writes the configuration
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "tinyllm.yaml"), "--run-dir", str(origin), "--quiet"])
    assert ended.value.code == 0
    scene.tree |= {
        "teachers": [{"name": "tot", "kind": "student", "run": str(origin), "folds": 3}],
        "opinions": {"teachers": ["tot"]},
    }
    killed = 0
    for _ in range(kills):
        command = scene.start("--quiet")
        until(lambda command=command: list(scene.run.glob("folds/*/*")) or command.code is not None)
        time.sleep(draw.uniform(0, 1))  # all of it takes three seconds or more
        command.kill()
        killed += command.wait() != 0
    assert killed, "a kill must fall into the training"
    assert scene.generate("--quiet").code == 0
    found = list(read_opinions(scene.run))
    assert len({o.question_id for o in found}) == len(found) == len(scene.replies()) == 200
    scene.tree["rationales"]["store"] = str(tmp_path / "other.sqlite")
    command = scene.start("--quiet", run=tmp_path / "whole")
    assert command.wait(600) == 0, command.said
    differ = sum(a != b for a, b in zip(found, read_opinions(tmp_path / "whole"), strict=True))
    assert differ == 0
    figures("kill -9 while out-of-fold students are trained", questions=200, kills=killed, wrong=differ)
