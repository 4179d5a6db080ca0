"""While a file is answered, the count moves with each batch, and a stop keeps all finished blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyllm.inference import LoadedStudent, _predict
from tinyllm.system.news import Task

LONG = "Which of these is it, and why is it not one of the others that are named here? " * 5


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    asked = [{"id": f"q{n}", "question": f"{LONG}{n}", "choices": ["ice", "fire"], "answer": n % 2} for n in range(60)]
    Path("some.jsonl").write_text("".join(json.dumps(q) + "\n" for q in asked), "utf-8")
    return tmp_path


@pytest.fixture
def counts(monkeypatch) -> list[tuple[int, str]]:
    """The number and the note of each update of a task."""
    seen: list[tuple[int, str]] = []
    update = Task.update

    def remembered(self: Task, done: int, total: int | None = None, note: str = "") -> None:
        seen.append((done, note))
        update(self, done, total, note)

    monkeypatch.setattr(Task, "update", remembered)
    return seen


@pytest.mark.parametrize("explain", [False, True])
def test_the_count_moves_with_each_batch_of_a_block(cli, here, student, counts, explain):
    assert cli("predict", student, "some.jsonl", *(["--explain"] if explain else [])).code == 0
    numbers = [done for done, _ in counts]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 60
    while_answering = {done for done, note in counts if note == "ranking choices"}
    assert len(while_answering & set(range(1, 32))) >= 2  # of the first block
    for teacher in ("ada", "bob") if explain else ():
        assert len({done for done, note in counts if note == f"writing as {teacher}"} & set(range(32))) >= 2


def test_a_block_is_small_where_rows_are_slow_and_a_stop_keeps_those_before_it(cli, here, student, counts, monkeypatch):
    monkeypatch.setattr(_predict, "_BLOCK_S", 1e-9)
    asked, answers = [], LoadedStudent.answers

    def interrupted(self: LoadedStudent, questions, progress):
        asked.append(len(questions))
        if len(asked) == 3:
            progress(4, 8, "")
            raise KeyboardInterrupt
        return answers(self, questions, progress)

    with monkeypatch.context() as patched:
        patched.setattr(LoadedStudent, "answers", interrupted)
        said = cli("predict", student, "some.jsonl")
    assert (said.code, asked) == (130, [32, 8, 8])
    assert "40 of 60 rows are kept, in some.predictions.jsonl.part" in said.err
    assert Path("some.predictions.jsonl.part").read_text("utf-8").count("\n") == 40
    counts.clear()
    again = cli("predict", student, "some.jsonl")
    assert (again.code, counts[0][0]) == (0, 40)
    assert "40 rows are answered already" in again.err
    assert len(Path("some.predictions.jsonl").read_text("utf-8").splitlines()) == 60
