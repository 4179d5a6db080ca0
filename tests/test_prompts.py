"""The example generator never shows a question to itself and never changes its mind; the prompt is laid out as meant."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.config import ExamplesSection
from tinyllm.prompts import ExampleGenerator, pick_examples, teacher_prompt
from tinyllm.questions import Question


def question(n: int, worked: bool = False, **other) -> Question:
    fields = {"question": f"What is {n}?", "choices": (f"one {n}", f"two {n}"), "answer": n % 2, **other}
    return Question(id=f"q{n}", rationales={"worked": f"Because of {n}."} if worked else {}, **fields)


POOL = [question(n) for n in range(30)]


@given(st.integers(1, 12), st.integers(0, 14), st.integers(0, 5), st.data())
def test_examples_come_from_the_pool_and_are_never_the_question_itself(size, count, seed, data):
    texts = data.draw(st.lists(st.sampled_from("abcd"), min_size=size, max_size=size))
    pool = [Question(f"q{n}", text, ("x", "y"), 0) for n, text in enumerate(texts)]
    asked = data.draw(st.sampled_from(pool))
    picked = pick_examples(asked, pool, ExamplesSection(count=count, seed=seed))
    others = [q for q in pool if q.question != asked.question]
    assert len(picked) == min(count, len(others))
    assert len({q.id for q in picked}) == len(picked)
    assert all(q in others for q in picked)


def test_a_question_with_the_same_id_or_the_same_text_and_choices_is_left_out():
    asked = question(1)
    same_id = Question("q1", "Another text?", ("a", "b"), 0)
    same_content = Question("other", " what is  1? ", ("two 1", "One 1"), 0)
    neighbour = question(2)
    section = ExamplesSection(count=4)
    assert pick_examples(asked, [same_id, same_content, neighbour], section) == (neighbour,)


def test_every_other_question_can_be_picked():
    seen = {q.id for s in range(200) for q in pick_examples(POOL[3], POOL, ExamplesSection(count=2, seed=s))}
    assert seen == {q.id for q in POOL} - {"q3"}


def test_the_pick_is_the_same_in_another_process_and_differs_by_question_and_seed():
    section = ExamplesSection(count=3, seed=5)
    picks = [[q.id for q in pick_examples(asked, POOL, section)] for asked in POOL[:4]]
    code = (
        "from test_prompts import POOL, ExamplesSection, pick_examples\n"
        "print([[q.id for q in pick_examples(a, POOL, ExamplesSection(count=3, seed=5))] for a in POOL[:4]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(picks)
    assert len({tuple(p) for p in picks}) > 1
    assert picks[0] != [q.id for q in pick_examples(POOL[0], POOL, ExamplesSection(count=3, seed=6))]


@pytest.mark.parametrize(("carriers", "expected"), [(3, "worked"), (2, None)])
def test_worked_examples_are_used_when_there_are_more_of_them_than_needed(carriers, expected):
    pool = [question(n, worked=n < carriers) for n in range(10)]
    generator = ExampleGenerator(pool, ExamplesSection(count=2))
    assert generator.worked == expected
    picked = generator.pick(pool[0])
    assert len(picked) == 2
    if expected:
        assert {q.id for q in picked} == {"q1", "q2"}


def test_null_worked_and_the_strategy_none():
    pool = [question(n, worked=True) for n in range(10)]
    assert ExampleGenerator(pool, ExamplesSection(worked=None)).worked is None
    assert pick_examples(pool[0], pool, ExamplesSection(strategy="none")) == ()
    assert pick_examples(pool[0], pool, ExamplesSection(count=0)) == ()


def test_twenty_thousand_questions_are_served_from_one_preparation():
    pool = [question(n) for n in range(20_000)]
    began = time.process_time()
    generator = ExampleGenerator(pool, ExamplesSection(count=2))
    for asked in pool[:5000]:
        generator.pick(asked)
    assert time.process_time() - began < 10  # a pass over the pool for each question takes minutes


@settings(max_examples=50)
@given(st.sets(st.integers(0, 9), max_size=9), st.integers(0, 99))
def test_leaving_out_agrees_with_a_plain_list(left_out, seed):
    from tinyllm.prompts import _Without

    view = _Without(POOL[:10], sorted(left_out))
    plain = [q for n, q in enumerate(POOL[:10]) if n not in left_out]
    assert list(view) == plain
    assert view[-1] == plain[-1]
    assert view[1:] == plain[1:]
    with pytest.raises(IndexError):
        view[len(plain)]
    assert random.Random(seed).sample(view, 1) == random.Random(seed).sample(plain, 1)


# --- the prompt ---------------------------------------------------------------------------------------------------

ASKED = Question("a", "Which\nway?", ("up", "down"), 1, context="A hill.\n\nA road.")
EXAMPLES = (question(2, worked=True), question(3, worked=True))


def test_the_completion_prompt_is_laid_out_as_tried():
    prompt = teacher_prompt(ASKED, EXAMPLES, form="completion", teacher_forcing=True, worked="worked")
    assert prompt.messages == ()
    assert prompt.text == (
        "Explain in two or three sentences why the answer is correct.\n\n"
        "Question: What is 2?\nChoices: one 2 | two 2\nAnswer: one 2\nExplanation: Because of 2.\n\n"
        "Question: What is 3?\nChoices: one 3 | two 3\nAnswer: two 3\nExplanation: Because of 3.\n\n"
        "Context: A hill. A road.\nQuestion: Which way?\nChoices: up | down\nAnswer: down\nExplanation:"
    )


def test_examples_without_a_rationale_show_no_explanation():
    prompt = teacher_prompt(ASKED, EXAMPLES[:1], form="completion", teacher_forcing=True, worked=None)
    assert prompt.text.count("Explanation:") == 1
    assert "Answer: one 2\n\nContext" in prompt.text


def test_the_chat_prompt_shows_worked_examples_as_turns():
    prompt = teacher_prompt(ASKED, EXAMPLES, form="chat", teacher_forcing=True, worked="worked")
    assert prompt.text == ""
    assert [m.role for m in prompt.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert prompt.messages[2].content == "Because of 2."
    assert prompt.messages[-1].content.endswith("Question: Which way?\nChoices: up | down\nAnswer: down")


def test_the_chat_prompt_lists_unworked_examples_in_the_user_turn():
    prompt = teacher_prompt(ASKED, EXAMPLES, form="chat", teacher_forcing=True, worked=None)
    assert [m.role for m in prompt.messages] == ["system", "user"]
    listed = prompt.messages[1].content
    assert listed.index("What is 2?") < listed.index("What is 3?") < listed.index("Which way?")
    assert "Because" not in listed


@pytest.mark.parametrize("form", ["chat", "completion"])
@pytest.mark.parametrize("worked", ["worked", None])
def test_without_teacher_forcing_the_answer_is_not_given_away(form, worked):
    def shown(answer: int) -> str:
        asked = Question("a", "Which way?", ("up", "down"), answer)
        prompt = teacher_prompt(asked, EXAMPLES, form=form, teacher_forcing=False, worked=worked)
        return prompt.text + "".join(m.content for m in prompt.messages)

    assert shown(0) == shown(1)
    assert "Reason step by step, then state the answer." in shown(0)
    if worked:
        assert "Because of 3. The answer is two 3." in shown(0)
