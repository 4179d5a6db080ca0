"""`tinyllm predict` tells questions that the student was trained on from questions that are new to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from projects import Project, rows, trained
from tinyllm.inference import LoadedStudent, _predict
from tinyllm.questions import Question

TRAINED_ON, NEW = 14, 6  # 20 questions: 12 for training, 2 for validation, 6 for the test


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_llama) -> Project:
    return trained(tmp_path_factory.mktemp("learnt"), tiny_llama)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids_of_test(project: Project) -> set[str]:
    lines = (project.run / "predictions.jsonl").read_text("utf-8").splitlines()
    return {p["id"] for p in map(json.loads, lines) if p["split"] == "test"}


def mean(found: list[dict[str, object]]) -> float:
    return pytest.approx(sum(r["mark"] for r in found) / len(found))


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["", "student"])
def test_the_accuracy_is_on_new_questions_and_the_others_are_counted_apart(cli, project, place):
    said = cli("predict", project.run / place, project.questions, "-o", "out.jsonl", "--json")
    done, found = json.loads(said.out), [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").splitlines()]
    new, learnt = ([r for r in found if r["learnt"] is is_learnt] for is_learnt in (False, True))
    assert {r["id"] for r in new} == ids_of_test(project)
    assert (done["accuracy"]["n"], done["accuracy"]["value"]) == (NEW, mean(new))
    assert (done["accuracy_learnt"]["n"], done["accuracy_learnt"]["value"]) == (TRAINED_ON, mean(learnt))
    text = cli("predict", project.run / place, project.questions, "-o", "out.csv").out
    first, second = (
        text.index(f"on {NEW} answered questions that are new to the student"),
        text.index(f"{TRAINED_ON} more rows"),
    )
    assert first < second
    assert f"on them: {100 * done['accuracy_learnt']['value']:.1f} %" in text


def test_a_file_without_a_new_question_gives_no_estimate(cli, project):
    known = [r for r in rows(20) if r["id"] not in ids_of_test(project)]
    for row in known:  # other ids, another order of the choices, another spelling of spaces
        row |= {"id": f"other-{row['id']}", "choices": row["choices"][::-1], "answer": 3 - row["answer"]}
        row["question"] = f" {row['question'].upper()}  "
    Path("known.jsonl").write_text("".join(json.dumps(r) + "\n" for r in known), "utf-8")
    said = cli("predict", project.run, "known.jsonl")
    assert f"({TRAINED_ON}) were used in training or to choose settings" in said.out, said.err
    assert "which is no estimate for other questions" in said.out
    assert "Accuracy:" not in said.out
    done = json.loads(cli("predict", project.run, "known.jsonl", "-o", "again.jsonl", "--json").out)
    assert (done["accuracy"], done["accuracy_learnt"]["n"]) == (None, TRAINED_ON)


def test_an_interrupted_command_still_counts_the_rows_that_were_answered_before(cli, project, monkeypatch):
    whole = json.loads(cli("predict", project.run, project.questions, "-o", "whole.jsonl", "--json").out)
    monkeypatch.setattr(_predict, "_FIRST_BLOCK", 7)
    with monkeypatch.context() as patched:
        answers = iter([LoadedStudent.answers])  # for one block
        patched.setattr(LoadedStudent, "answers", lambda *of: next(answers, _interrupted)(*of))
        assert cli("predict", project.run, project.questions, "-o", "out.jsonl", "-q").code == 130
    done = json.loads(cli("predict", project.run, project.questions, "-o", "out.jsonl", "--json").out)
    assert done["kept"] == 7
    for name in ("accuracy", "accuracy_learnt"):
        assert done[name] == whole[name]


def test_a_run_without_the_record_gives_one_accuracy_and_a_damaged_record_is_refused(cli, project):
    run = Path(shutil.copytree(project.run, "run"))
    (run / "learnt.npy").write_bytes((run / "learnt.npy").read_bytes()[:-3])
    said = cli("predict", run, project.questions)
    assert (said.code, "learnt.npy, the record of the questions" in said.err) == (2, True)
    (run / "learnt.npy").unlink()
    done = json.loads(cli("predict", run, project.questions, "-o", "a.jsonl", "--json").out)
    assert (done["accuracy"]["n"], done["accuracy_learnt"], done["records_learnt"]) == (20, None, False)
    assert "learnt" not in Path("a.jsonl").read_text("utf-8")
    assert "on the 20 rows with a choice and a known answer" in cli("predict", run, project.questions).out


def test_the_hash_of_a_question_is_the_same_in_every_process():
    question = Question("q", "Which  is COLD?", ("fire", "Ice"), 1, "Größe \ud800")
    same = Question("p", "which is cold?", ("ice", "fire"), None, "grösse \ud800")
    assert question.content_hash == same.content_hash == 9840865981554872538
