"""Opinions after kill -9: stored replies are kept, and only requests in flight are sent again."""

from __future__ import annotations

import json
import random
import time

from benchmarks.server import running

from faults.scene import Scene, asked, until


def test_kills_during_opinions_lose_nothing_and_double_nothing(tmp_path, tiny_t5, full, figures):
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
