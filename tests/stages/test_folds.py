"""Out-of-fold students: no student gives an opinion on a question that it was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from projects import Project, rows
from tinyllm.cli.app import main
from tinyllm.config import StudentTeacher, build_config
from tinyllm.inference import load
from tinyllm.opinions.files import read_opinions
from tinyllm.questions import Question
from tinyllm.questions.types import Splits
from tinyllm.stages._folds import Folds
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import write_json

FOLDS = 2
QUESTIONS = rows(20)


def as_question(row) -> Question:
    return Question(row["id"], row["question"], tuple(row["choices"]), row["answer"])


def fold(name: str) -> int:
    return next(as_question(row) for row in QUESTIONS if row["id"] == name).content_hash % FOLDS


def tinyllm(command: str, project: Project, *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([command, str(project.config), "--run-dir", str(project.run), *more])
    return ended.value.code


def trained(folder: Path, student: Path, lines) -> Path:
    """A run that is trained on some questions and their rationales."""
    project = Project(folder, student)
    project.write_questions(lines)
    project.change("train.method", "shuffled")
    assert tinyllm("generate", project) == tinyllm("train", project) == 0
    return project.run


def asking(folder: Path, student: Path, run: Path, lines=QUESTIONS, folds: int = FOLDS) -> Project:
    """A project in which the student of a run gives opinions."""
    folder.mkdir(exist_ok=True)
    project = Project(folder, student)
    project.write_questions(lines)
    project.tree["teachers"] = [{"name": "tot", "kind": "student", "run": str(run), "folds": folds}]
    project.tree |= {"opinions": {"teachers": ["tot"]}}
    project.change("train.method", "fine-tuning")
    return project


def opinions(project: Project) -> dict[str, tuple[float, ...]]:
    assert tinyllm("generate", project) == 0
    return {o.question_id: o.probabilities for o in read_opinions(project.run)}


@pytest.fixture(scope="module")
def origin(tmp_path_factory, tiny_t5) -> Path:
    return trained(tmp_path_factory.mktemp("origin"), tiny_t5, QUESTIONS)


def test_no_opinion_depends_on_the_answer_that_the_student_learnt(tmp_path, tiny_t5, origin):
    others = [row | {"answer": (row["answer"] + (not fold(row["id"]))) % 4} for row in QUESTIONS]
    other = trained(tmp_path, tiny_t5, others)
    first = opinions(asking(tmp_path / "first", tiny_t5, origin))
    second = opinions(asking(tmp_path / "second", tiny_t5, other))
    held_out = {name for name in first if not fold(name)}
    assert 0 < len(held_out) < len(first) == 12
    for name, opinion in first.items():  # the changed answers are in one fold; only the other fold learns from them
        assert (second[name] == opinion) == (name in held_out)
    itself = opinions(asking(tmp_path / "itself", tiny_t5, origin, folds=0))
    assert not itself.items() & first.items()


def test_the_student_itself_answers_questions_it_was_not_trained_on(tmp_path, tiny_t5, origin):
    more = [row | {"id": f"new{row['id']}", "question": f"Say: {row['question']}"} for row in QUESTIONS]
    found = opinions(asking(tmp_path / "more", tiny_t5, origin, [*QUESTIONS, *more]))
    new = [as_question(row) for row in more if row["id"] in found]
    assert 0 < len(new) < len(found)
    student = load(origin)
    for question in new[:3]:
        own = student.choose(question.question, question.choices).probabilities
        assert found[question.id] == pytest.approx(own, abs=1e-4)


def test_scores_are_kept_and_no_student_is_trained_twice(tmp_path, tiny_t5, origin):
    project = asking(tmp_path / "kept", tiny_t5, origin)
    before = opinions(project)
    kept = sorted((project.run / "folds").glob("*/*"))
    assert [file.name for file in kept] == ["0.jsonl", "1.jsonl"]
    times = [file.stat().st_mtime_ns for file in kept]
    (project.run.parent / "replies.sqlite").unlink()
    assert opinions(project) == before
    assert [file.stat().st_mtime_ns for file in kept] == times
    kept[0].unlink()  # as after a kill before its student was done
    (project.run.parent / "replies.sqlite").unlink()
    assert opinions(project) == before
    assert kept[1].stat().st_mtime_ns == times[1]


@pytest.mark.parametrize("part", ["", "student"])
def test_test_questions_that_a_teacher_has_learnt_are_told(tmp_path, tiny_t5, origin, capsys, part):
    project = asking(tmp_path / "asks", tiny_t5, origin / part)
    assert tinyllm("check", project) == 0
    assert "was trained or tuned on" not in capsys.readouterr().err, "both have the same test questions"
    project.change("data.cut.seed", 1)
    assert tinyllm("check", project) == 0
    assert "was trained or tuned on" not in capsys.readouterr().err, "nothing is learnt from its opinions"
    project.change("train.soft", {})
    assert tinyllm("check", project, "--json") == 0
    said = capsys.readouterr()
    text = "test question that the teacher 'tot' was trained or tuned on"
    assert f"4 × {text}" in said.err
    assert json.loads(said.out)["warnings"][text] == 4
    project.change("train.soft", None)
    project.change("student.model", str(origin / "student"))
    assert tinyllm("check", project) == 0
    assert "4 × test question that the student was trained or tuned on before" in capsys.readouterr().err


def test_the_forecast_counts_the_training(tmp_path, tiny_t5, origin, capsys):
    project = asking(tmp_path / "counted", tiny_t5, origin)
    assert tinyllm("check", project, "--json") == 0
    (forecast,) = json.loads(capsys.readouterr().out)["forecasts"]
    seconds = json.loads((origin / "train_result.json").read_text())["seconds"]
    assert forecast["hours"] == pytest.approx(seconds / 3600, rel=0.01)  # two students, each on half of the questions
    assert "2 out-of-fold students" in forecast["basis"]


def test_a_student_without_its_run_is_refused(tmp_path, tiny_t5, origin, capsys):
    alone = tmp_path / "alone"
    (origin / "student").rename(alone)
    try:
        assert tinyllm("generate", asking(tmp_path / "lost", tiny_t5, alone)) == 2
    finally:
        alone.rename(origin / "student")
    assert "write `folds: 0`" in capsys.readouterr().err


def test_a_student_that_started_from_another_student_is_refused(tmp_path, tiny_t5, origin, capsys):
    again = trained(tmp_path, origin / "student", QUESTIONS[:8])
    assert tinyllm("generate", asking(tmp_path / "chain", tiny_t5, again)) == 2
    assert "it started from another student" in capsys.readouterr().err


def folds_of(tmp_path, train: dict, splits: Splits, result: dict | None = None) -> Folds:
    """Folds of a teacher that was trained with some settings, without its files."""
    spec = StudentTeacher(name="tot", kind="student", run=tmp_path, folds=FOLDS)
    tree = {
        "name": "origin",
        "data": {"train": "q.jsonl"},
        "teachers": [{"name": "expert", "kind": "given"}],
        "opinions": {"teachers": ["expert"]},
        "train": {"method": "fine-tuning"} | train,
    }
    folds = Folds(spec, "0" * 64, RunFolder(tmp_path / "run"))
    origin = RunFolder(tmp_path / "origin")
    write_json(origin.train_result, result or {})
    folds.__dict__ |= {"_config": build_config(tree), "_splits": splits, "_origin": origin}
    return folds


@pytest.mark.parametrize(
    ("train", "seen"),
    [
        ({}, ("train", "more")),
        ({"validate_steps": 5}, ("train", "more", "valid")),
        ({"method": "auto"}, ("train", "more", "valid")),
        ({"soft": {}}, ("train", "more", "valid")),
        ({"soft": {"trust": "auto", "teachers": {"expert": 1}}}, ("train", "more", "valid")),
        ({"soft": {"trust": 0.5, "teachers": {"expert": 1}}}, ("train", "more")),
    ],
)
def test_questions_for_training_and_tuning_count_as_seen(tmp_path, train, seen):
    parts = {"train": QUESTIONS[:8], "more": QUESTIONS[8:12], "valid": QUESTIONS[12:16], "test": QUESTIONS[16:]}
    splits = Splits(**{name: [as_question(row) for row in those] for name, those in parts.items()}, dropped=())
    folds = folds_of(tmp_path, train, splits)
    for name in parts:
        found = {folds.scores(question) for question in getattr(splits, name)}
        assert found == {() if name in seen else None}, name
    left = folds._without(0)
    for name in ("train", "more", "valid"):
        assert [q.id for q in getattr(left, name)] == [row["id"] for row in parts[name] if fold(row["id"]) == 1]


def test_the_time_of_a_fold_includes_the_search(tmp_path):
    searched = {"seconds": 60, "chosen": {"seconds": 7200}}
    assert folds_of(tmp_path, {}, Splits((), (), (), dropped=()), searched).hours(FOLDS) == 2.0


def test_questions_with_the_same_words_are_in_one_fold():
    question = as_question(QUESTIONS[0])
    same = replace(
        question, id="other", question=f" {question.question.upper()}", choices=question.choices[::-1], answer=3
    )
    assert same.content_hash == question.content_hash
    assert replace(question, choices=("ice", "water", "iron", "the sun")).content_hash != question.content_hash
