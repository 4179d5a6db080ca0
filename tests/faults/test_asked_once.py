"""Nothing is paid twice, also after a change of settings that does not change the requests."""

from __future__ import annotations

import json

import pytest
from benchmarks.server import running

from faults.scene import Scene, asked


@pytest.mark.parametrize("with_ids", [True, False])
def test_one_question_more_in_the_file_asks_little_again(tmp_path, tiny_t5, with_ids, full):
    if not full and not with_ids:
        pytest.skip("like the other; `make test-faults` runs it")
    with running() as server:
        scene = Scene(tmp_path, tiny_t5, 200, server.url, concurrency=16)
        scene.tree["data"]["cut"] = {"valid": 0.1, "test": 0.2}
        scene.tree["rationales"]["examples"] = {"strategy": "random", "count": 2}
        file = tmp_path / "questions.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        if not with_ids:
            lines = [{key: value for key, value in row.items() if key != "id"} for row in lines]
            file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        assert scene.generate("--quiet").code == 0
        first = asked(server)
        assert first == 140
        lines.insert(77, {"question": "Which one is new?", "choices": ["a", "b"], "answer": 0})
        file.write_text("".join(json.dumps(row) + "\n" for row in lines))
        again = scene.start("--quiet", run=tmp_path / "grown")
        assert again.wait() == 0, again.said
        assert asked(server) - first <= 12
