"""`tinyllm predict` says how it reads a file, refuses what it cannot use, and does both before it loads a student."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.refusals import refused
from tinyllm.inference import LoadedStudent


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    asked = "".join(f"Which {n}?;ice;fire;{'AB'[n % 2]};easy\n" for n in range(6))
    Path("quiz.csv").write_text("stem;A;B;answer;level\n" + asked, "utf-8")
    return tmp_path


def test_predict_prints_how_it_reads_a_file_as_init_does_before_it_answers(cli, here, student):
    told = cli("predict", student, "quiz.csv").err
    shown = cli("init", "quiz.csv").out
    for what in ("file:", "question:", "choices:", "answer:", "not used:"):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"  {what}"))
        assert line in told.splitlines()
    assert "The first question:\n    Which 0?\n    → ice\n      fire\n" in shown
    assert "The first question:\n    Which 0?\n    → ice\n      fire\n" in told
    assert told.index("fire") < told.index("Answering")
    assert "choices" not in cli("predict", student, "quiz.csv", "-o", "quiet.csv", "-q").err


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.xlsx"])
def test_a_file_of_answers_is_no_file_of_questions(cli, here, student, name):
    Path("quiz.csv").write_text("stem;A;B;answer\n;ice;fire;A\n" + "Which?;ice;fire;A\n" * 4, "utf-8")
    assert cli("predict", student, "quiz.csv", "-o", name, "-q", "--explain").code == 0
    for command in (("predict", student, name, "-o", "b.csv"), ("init", name)):
        refused(cli(*command), f"{name} holds answers that `tinyllm predict` wrote", "Give the file of questions")
    assert not Path("b.csv.part").exists()
    assert not Path("a.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quiz.csv", "-o", "there.csv"), "there.csv exists already"),
        (("quiz.csv", "-o", "a.docx"), "unknown ending '.docx'"),
        (("quizz.csv",), "Did you mean 'quiz.csv'?"),
        (("quiz.csv", "--answer", "level"), "level"),
        (("quiz.csv", "--question", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_told_before_the_student_is_loaded(cli, here, student, monkeypatch, arguments, message):
    monkeypatch.setattr(LoadedStudent, "__init__", lambda *_: pytest.fail("the student was loaded"))
    Path("there.csv").write_text("", "utf-8")
    refused(cli("predict", student, *arguments), message)


def test_the_checks_do_not_wait_for_torch():
    code = "import sys, tinyllm.inference._predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_row_without_an_id_has_none_in_the_answers(cli, here, student):
    lines = [{"question": f"Which {n}?", "choices": ["ice", "fire"], "id": f"own-{n}"} for n in range(2)]
    Path("some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn\n", "utf-8")
    assert cli("predict", student, "some.jsonl", "-q").code == 0
    rows = [json.loads(line) for line in Path("some.predictions.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["own-0", "own-1", None]
    assert rows[2]["problem"].startswith("line 3: ")
    assert cli("predict", student, "quiz.csv", "-q").code == 0
    assert '"id": null' in Path("quiz.predictions.jsonl").read_text("utf-8").splitlines()[0]
