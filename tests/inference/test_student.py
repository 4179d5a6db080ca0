"""A loaded student: its answers follow from its scores, lists get the same answers, and damaged files are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import tinyllm
from support import saved_student, some_questions, tiny_student
from tinyllm.errors import DataError, StudentError
from tinyllm.inference import LoadedStudent
from tinyllm.scoring.runtime import TorchRuntime
from tinyllm.scoring.score import score_options
from tinyllm.student.model import save_student

QUESTIONS = some_questions(7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return saved_student(tmp_path_factory.mktemp("saved") / "student", temperature=2.0)


@pytest.fixture(scope="module")
def student(folder) -> LoadedStudent:
    return tinyllm.load(folder)


@pytest.mark.parametrize("layout", ["labelled", "cloze"])
def test_the_choice_has_the_highest_score_and_a_calibrated_probability(layout):
    plain = tiny_student("llama")
    plain.card = replace(plain.card, layout=layout, temperature=2.0)
    loaded = LoadedStudent(TorchRuntime(plain))
    scores = score_options(plain, plain.learner(), QUESTIONS)
    for question, of in zip(QUESTIONS, scores, strict=True):
        ranked = of.mean if layout == "cloze" else of.total
        chosen = loaded.choose(question.question, question.choices)
        assert chosen.choice == ranked.index(max(ranked))
        assert chosen.text == question.choices[chosen.choice]
        mass = [math.exp(r / 2.0) for r in ranked]
        assert chosen.probabilities == pytest.approx([m / sum(mass) for m in mass], abs=1e-4)
        assert chosen.probability == max(chosen.probabilities)


def test_a_list_gets_the_same_answers_as_single_questions(student):
    listed = student.choose(
        [q.question for q in QUESTIONS], [q.choices for q in QUESTIONS], [None, "ice is cold"] + [None] * 5
    )
    alone = [student.choose(q.question, q.choices, "ice is cold" if n == 1 else None) for n, q in enumerate(QUESTIONS)]
    assert [c.choice for c in listed] == [c.choice for c in alone]
    for one, other in zip(listed, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert student.choose([], []) == []


def test_rationales_are_written_for_all_teachers_or_for_one(student):
    question = QUESTIONS[0]
    assert set(student.explain(question.question, question.choices)) == {"ada", "bob"}
    several = student.explain([q.question for q in QUESTIONS[:2]], [q.choices for q in QUESTIONS[:2]], teacher="bob")
    assert [set(of) for of in several] == [{"bob"}, {"bob"}]
    with pytest.raises(DataError, match=r"a teacher 'bop'\. Did you mean 'bob'"):
        student.explain(question.question, question.choices, teacher="bop")


def test_ask_tells_of_the_rationales_while_they_are_written(cli, tmp_path):
    said = cli("ask", saved_student(tmp_path / "student"), "Which is cold?", "-c", "ice", "-c", "fire", "--explain")
    assert said.code == 0, said.err
    assert "✓ Writing as ada, bob · " in said.err


def test_ask_says_that_a_student_without_rationales_cannot_explain(cli, tmp_path):
    folder = saved_student(tmp_path / "student", prefixes={"answer": "answer: "})
    said = cli("ask", folder, "Which is cold?", "-c", "ice", "-c", "fire", "--explain")
    assert (said.code, said.err.count("trained without rationales"), "rationales" in said.out) == (0, 1, False)
    (tmp_path / "q.csv").write_text("question,A,B,answer\nWhich?,ice,fire,A\n")
    for given in (["--explain"], ["--explain", "ada"]):
        said = cli("predict", folder, tmp_path / "q.csv", "-o", tmp_path / f"{len(given)}.jsonl", *given)
        assert (said.code, said.err.count("trained without rationales")) == (0, 1), said.err
        assert "rationales" not in json.loads((tmp_path / f"{len(given)}.jsonl").read_text())
    assert "trained without rationales" not in cli("ask", folder, "Which is cold?", "-c", "ice", "-c", "fire").err


def test_choices_that_differ_in_spaces_only_are_refused(student):
    chosen = student.answers([replace(QUESTIONS[0], choices=("ice", "ice  ", "iron"))])[0]
    assert isinstance(chosen, str), "a question with the same choice twice was answered"
    assert "different choices" in chosen


@pytest.mark.parametrize(
    ("question", "choices", "words"),
    [
        (None, ["ice", "fire"], "A question must be a text, and several a list of texts; got"),
        ([None], [["ice", "fire"]], "A question must be a text"),
        ("2 + 2?", [3, 4], "Choices must be texts, got"),
        (["a?", "b?"], [["ice", "fire"]], "Got 2 questions, 1 lists of choices."),
        (["a?", "b?"], ["ice", "fire"], "for several questions, as a list of such lists"),
    ],
)
def test_what_is_no_text_is_one_message(student, question, choices, words):
    with pytest.raises(DataError) as refused:
        student.choose(question, choices)
    assert words in str(refused.value)


def test_all_problems_of_a_list_are_in_one_message(student):
    with pytest.raises(DataError) as told:
        student.choose(["Which?", " ", "Which?"], [["a"], ["a", "b"], ["a", "b"]])
    assert "2 of 3 questions" in str(told.value)
    assert "question 0: A question needs two or more different choices" in str(told.value)
    assert "question 1: The question is empty." in str(told.value)
    with pytest.raises(DataError, match="tokens with its choices"):
        student.choose("very " * 2000, ["a", "b"])
    with pytest.raises(DataError, match="one list of choices"):
        student.choose(["Which?"], [])
    with pytest.raises(DataError, match="got one text"):
        student.choose("Which?", "abc")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_or_missing_file_is_refused(tmp_path, folder, name):
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "student"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(StudentError, match=f"{name} is damaged or was replaced"):
        tinyllm.load(copy)
    (copy / name).unlink()
    with pytest.raises(StudentError, match=f"{name} is missing"):
        tinyllm.load(copy)


def test_the_model_of_another_student_is_refused(tmp_path, folder):
    save_student(tiny_student("llama", seed=1), tmp_path / "student", "a card")
    (folder / "model.safetensors").rename(tmp_path / "aside")
    try:
        (tmp_path / "student" / "model.safetensors").rename(folder / "model.safetensors")
        with pytest.raises(StudentError, match="is damaged or was replaced"):
            tinyllm.load(folder)
    finally:
        (tmp_path / "aside").replace(folder / "model.safetensors")
