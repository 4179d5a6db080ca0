"""The teacher's prompt is laid out as meant, and what several prompts share stands first."""

import itertools

import pytest

from tinyllm.config import ExamplesSection
from tinyllm.prompts import ExampleGenerator, Prompt, teacher_prompt
from tinyllm.questions import Question


def question(n: int) -> Question:
    rationales = {"worked": f"Because of {n}."}
    return Question(f"q{n}", f"What is {n}?", (f"one {n}", f"two {n}"), n % 2, rationales=rationales)


EXAMPLES = (question(2), question(3))
ASKED = Question("a", "Which\nway?", ("up", "down"), 1, context="A hill.\n\nA road.")


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


# --- what prompts share -------------------------------------------------------------------------------------------


def flat(prompt: Prompt) -> str:
    """The prompt as a server reads it: turn after turn, or the text."""
    return prompt.text or "".join(f"<{m.role}>{m.content}" for m in prompt.messages)


def shared_by(texts: list[str]) -> str:
    """What all texts begin with, character by character."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in same)


@pytest.mark.parametrize("form", ["chat", "completion"])
@pytest.mark.parametrize("worked", ["worked", None])
@pytest.mark.parametrize("forcing", [True, False])
@pytest.mark.parametrize("strategy", ["random", "similar", "diverse", "fixed"])
def test_the_prompts_of_a_block_are_the_same_up_to_the_question(form, worked, forcing, strategy):
    questions = [question(n) for n in range(40)]
    section = ExamplesSection(strategy=strategy, worked=worked, scope="block", block=8)
    generator = ExampleGenerator([question(n) for n in range(100, 160)], section)
    shown = [
        flat(teacher_prompt(q, picked, form=form, teacher_forcing=forcing, worked=generator.worked))
        for q, picked in zip(questions, generator.picks(questions, 0, 40), strict=True)
    ]
    for first in (0, 8):
        shared = shared_by(shown[first : first + 8])
        for n in range(first, first + 8):
            assert len(shared) >= shown[n].index(f"Question: What is {n}?")
        assert shared.count("Choices: ") == 2
