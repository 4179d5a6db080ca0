"""What a student does with a rationale: write it, write it and then answer, or read it until it is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support import FAMILIES, TEACHERS, some_questions, some_rationales, tiny_student
from tinyllm.config import ANSWER_TASK, task_prefixes
from tinyllm.config._student import PrefixesSection
from tinyllm.rationales.types import Rationale
from tinyllm.scoring._passes import generate_texts, reasons_for
from tinyllm.scoring.score import generate_answers, score_options
from tinyllm.student._steps import Schedule
from tinyllm.student.mixture import MixtureSettings, Target, mix
from tinyllm.student.plan import StepPlan
from tinyllm.student.train import fingerprint, tokenise

PREFIXES = task_prefixes(PrefixesSection(), TEACHERS)


def mixed(use, questions, rationales, method="tinyllm", alpha=None, answer="text"):
    alpha = alpha or {"ada": 0.5, "bob": 2.0}
    return mix(method, questions, rationales, MixtureSettings(PREFIXES, alpha, answer, use))


def seen(targets):
    return [(t.question_id, t.task, t.text, t.reading, t.weight) for t in targets]


# --- what is learnt -----------------------------------------------------------------------------------------------


def test_before_learns_each_rationale_and_the_answer_after_it():
    questions = some_questions(2)
    told = [Rationale("q0", "bob", "B."), Rationale("q0", "ada", "A."), Rationale("q0", "ada", "A again.")]
    assert seen(mixed("before", questions, told)) == [
        ("q0", "answer", "ice", "A.", 1.0), ("q0", "answer", "ice", "A again.", 1.0), ("q0", "answer", "ice", "B.", 1.0),
        ("q0", "ada", "A.", "", 0.5), ("q0", "ada", "A again.", "", 0.5), ("q0", "bob", "B.", "", 2.0),
        ("q1", "answer", questions[1].answer_text, "", 1.0),
    ]  # fmt: skip


def test_input_reads_all_rationales_and_writes_none():
    questions = some_questions(2)
    told = [Rationale("q0", "bob", "B."), Rationale("q0", "ada", "A.")]
    targets = mixed("input", questions, told)
    assert seen(targets) == [
        ("q0", "answer", "ice", "A.\nB.", 1.0),
        ("q1", "answer", questions[1].answer_text, "", 1.0),
    ]
    assert [t.fades for t in targets] == [True, False]
    assert seen(mixed("input", questions, told, alpha={"ada": 0.0, "bob": 1.0}))[0][3] == "B."


def test_every_method_can_be_learnt_in_every_way():
    questions = some_questions(4)
    told = [Rationale(q.id, t, f"{t} explains {q.id}") for q in questions for t in TEACHERS]
    shuffled = mixed("before", questions, told, "shuffled", answer="choices")
    read = {(t.question_id, t.reading.split()[-1]) for t in shuffled if t.task == ANSWER_TASK}
    assert len(read) >= 4
    assert all(question != explained for question, explained in read)
    one = mixed("input", questions, told, "shortest")
    assert [t.reading for t in one] == [f"ada explains {q.id}" for q in questions]


# --- in tokens ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FAMILIES)
def student(request):
    return tiny_student(request.param)


def test_a_rationale_in_the_input_is_dropped_from_its_end_until_the_plain_rows_are_left(student):
    questions = some_questions(2)
    encoder = student.encoder()
    told = mixed("input", questions, some_rationales(questions), answer="both")
    plain = tokenise(encoder, questions, mixed("input", questions, (), answer="both"))
    rows = tokenise(encoder, questions, told)
    text = told[0].reading
    texts = [encoder.read(row.prompt[row.fading[0] : row.fading[1]]) for row in rows[0]]
    assert texts == [text] * len(rows[0])
    assert [[r.faded(0.0) for r in of] for of in rows] == plain
    half = rows[0][0].faded(0.5)
    start, end = rows[0][0].fading
    kept = round((end - start) / 2)
    assert len(half.prompt) == len(rows[0][0].prompt) - (end - start) + kept
    assert encoder.read(half.prompt[start : start + 20]) == text[:20], "the beginning stays"
    assert half.prompt[start + kept :] == rows[0][0].prompt[end:]


def test_a_long_rationale_is_cut_to_the_room_that_the_question_leaves(student):
    card = replace(student.card, max_input_tokens=120)
    encoder = card.encoder(student.tokenizer, is_encoder_decoder=student.is_encoder_decoder)
    (question,) = some_questions(1)
    prompt = encoder.generation_prompt(question, "predict: ", "so " * 200)
    assert len(prompt) == 120
    assert len(encoder.generation_prompt(question, "predict: ", "so.")) < 120
    (rows,) = tokenise(encoder, [question], [
        Target(question.id, "answer", "predict: ", "", 1.0, shares=(1.0, 0.0, 0.0, 0.0), reading=text)
        for text in ("so " * 200, "so " * 300)
    ])  # fmt: skip
    assert sum(len(r.branches) for r in rows) == 4, "the same in tokens, so it is learnt once"


@pytest.mark.parametrize(("answers_only", "shares"), [(0.0, [1.0, 0.75, 0.5, 0.25]), (0.5, [1.0, 0.5, 0.0, 0.0])])
def test_the_share_that_is_read_falls_to_nothing(student, answers_only, shares):
    questions = some_questions(4)
    rows = tokenise(student.encoder(), questions, mixed("input", questions, some_rationales(questions)))
    schedule = Schedule(answers_only=answers_only)
    plan = StepPlan(rows, batch_size=4, epochs=4, schedule=schedule)
    expected = [{(r.question_id, r.faded(share).prompt) for of in rows for r in of} for share in shares]
    found = [{(r.question_id, r.prompt) for m in step.micro_batches for r in m.rows} for step in plan]
    assert found == expected


def test_whether_a_rationale_fades_is_part_of_the_fingerprint(student):
    questions = some_questions(2)
    fades = mixed("input", questions, some_rationales(questions))
    stays = [replace(t, fades=False) for t in fades]
    keys = {fingerprint(StepPlan(tokenise(student.encoder(), questions, of), batch_size=2)) for of in (fades, stays)}
    assert len(keys) == 2


# --- when it is asked ---------------------------------------------------------------------------------------------


def test_a_student_that_reasons_first_is_scored_after_what_it_wrote(student):
    reasoning = replace(student, card=replace(student.card, reasons_as="bob", max_rationale_tokens=6))
    questions, learner = some_questions(3), student.learner()
    written = generate_texts(student, questions, task="bob", max_new_tokens=6)
    assert any(written) or student.is_encoder_decoder  # the tiny T5 ends at once
    assert reasons_for(reasoning, questions) == written
    assert reasons_for(student, questions) == ["", "", ""]
    found = score_options(reasoning, learner, questions)
    assert found == score_options(student, learner, questions, reasons=written)
    assert score_options(student, learner, questions, reasons=["So."] * 3) != score_options(student, learner, questions)
    encoder = student.encoder(share_prompt=learner.share_prompt)
    rows = encoder.options(questions[0], PREFIXES[ANSWER_TASK], "It is so.")
    assert rows[0].prompt == encoder.generation_prompt(questions[0], PREFIXES[ANSWER_TASK], "It is so.")
    assert "It is so." in encoder.read(rows[0].prompt)
    answers = generate_answers(reasoning, questions, max_new_tokens=3)
    assert answers == generate_answers(student, questions, max_new_tokens=3, reasons=written)
