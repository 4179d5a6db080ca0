"""`method: auto` after kill -9: opinions are asked once, and the search ends as one that was never interrupted."""

from __future__ import annotations

import json
import random
import time

import pytest
import torch
from benchmarks.server import running
from safetensors.torch import load_file

from faults.scene import Scene, asked, until


def test_kills_at_random_moments_of_a_search_change_nothing(tmp_path, tiny_t5, full, figures):
    if not full:
        pytest.skip("two minutes; `make test-faults` runs it. A single kill: tests/stages/test_auto.py")
    draw, kills, questions, in_flight = random.Random(0), 16, 160, 8
    with running(latency=0.1) as server:
        scene = Scene(tmp_path, tiny_t5, questions, server.url, concurrency=in_flight)
        scene.tree["data"]["cut"] = {"valid": 0.2, "test": 0.1}
        scene.tree |= {
            "opinions": {"teachers": ["ada"], "orders": 2},
            "train": {"method": "auto", "epochs": 4, "batch_size": 4, "save_steps": 4, "soft": {"weight": 0.5}},
            "auto": {
                "candidates": [{"soft": None}, {"answer": "choices"}, {"answer": "choices", "learning_rate": 1e-2}],
                "rungs": 2,
            },
        }
        searching = 0
        for _ in range(kills):
            before = asked(server)
            command = scene.start("--quiet", command="run")
            # It starts with what is left: with requests, or with a step of the candidate whose turn it is.
            step = _written(scene)
            until(
                lambda command=command, before=before, step=step: (
                    asked(server) > before or _written(scene) != step or command.code is not None
                )
            )
            time.sleep(draw.uniform(0, 1.5))
            command.kill()
            assert command.wait() in (-9, 0), command.said
            searching += (scene.run / "auto.json").is_file() and _search(scene.run)["chosen"] is None
        assert searching >= 3, "kills must fall into the search"
        last = scene.start("--quiet", command="run")
        assert last.wait(600) == 0, last.said
        stats = server.stats()
        assert stats.prompts == len(scene.replies())  # each prompt reached the server, and its reply is kept once
        whole = scene.start("--quiet", run=tmp_path / "whole", command="run")
        assert whole.wait(600) == 0, whole.said
        assert server.stats().requests == stats.requests, "the second run found every reply in the store"
    ours, theirs = _search(scene.run), _search(tmp_path / "whole")
    weights = [load_file(run / "student" / "model.safetensors") for run in (scene.run, tmp_path / "whole")]
    wrong = (
        sum(a != b for a, b in zip(ours["candidates"], theirs["candidates"], strict=True))
        + (ours["chosen"] != theirs["chosen"])
        + sum(not torch.equal(of, weights[1][name]) for name, of in weights[0].items())
    )
    assert wrong == 0
    figures("kill -9 during auto", questions=questions, kills=kills, kills_during_the_search=searching, wrong=wrong)


def _search(run):
    """Return what the search wrote, without the times."""
    found = json.loads((run / "auto.json").read_text())
    for look in [look for c in found["candidates"] for look in c["looks"]]:
        del look["seconds"]
    return found


def _written(scene):
    """Return how many bytes the logs of all candidates have."""
    return sum(log.stat().st_size for log in scene.run.glob("auto/*/train_log.jsonl"))
