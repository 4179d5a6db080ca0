"""Repairs and checks on made-up cases, on any text, and on the published rationales."""

import json
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import repository
from tinyllm.config import CheckName
from tinyllm.questions import Question
from tinyllm.rationales.checks import stated_choice, to_rationale
from tinyllm.rationales.types import UNFINISHED, Rationale, Rejection
from tinyllm.system.files import well_formed
from tinyllm.teachers.base import Reply

ALL = get_args(CheckName)
QUESTION = Question("q", "What melts ice?", ("warm air", "cold wind", "no light", "a table"), 0)


def check(text: str, finish="unknown", repair=True, checks=ALL, question=QUESTION) -> Rationale | Rejection:
    return to_rationale(question, "ada", Reply(text, finish), checks=checks, repair=repair)


def verdict(text: str, **how) -> str:
    outcome = check(text, **how)
    return outcome.reason if isinstance(outcome, Rejection) else "kept"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Warm air carries heat, and heat melts ice.", "kept"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("Let's think step by step. As an AI language model, I cannot answer that.", "refused"),
        ("I cannot be the right answer because I am cold wind.", "kept"),
        ("", "empty"),
        ("nan", "empty"),
        ("Let's think step by step.", "empty"),
        ("Let’s think step by step: it melts ice quickly.", "kept"),
        ("The answer is (a).", "empty"),
        ("So, the correct answer is option A.", "empty"),
        ("热空气使冰融化。", "kept"),  # no spaces between words
        ("是", "empty"),
        ("因为热空气", "cut_off"),
        ("热空气使冰融化。" * 4, "repeats"),
        ("Warm air carries the heat that", "cut_off"),
        ("Warm air melts ice for these reasons:", "cut_off"),
        ("It melts:\n1. because of heat\n2.", "cut_off"),
        ("Heat melts the ice (a)", "kept"),
        ("Heat melts ice.\nQuestion: What is snow?", "runs_on"),
        ("Heat melts ice.\n\nQ.21\nWhat is snow?", "runs_on"),
        ("Heat melts ice.\nQ2. What is snow?", "runs_on"),
        ("Heat melts ice.\n# CHAPTER 10\nSnow.", "runs_on"),
        ("Heat melts ice.\n### Explanation\nIt is warm.", "kept"),
        ("Heat melts ice.\n\nComment: I agree.", "runs_on"),
        ("Heat melts ice.<|im_start|>user", "runs_on"),
        ("Any question: heat melts ice.", "kept"),
        ("Heat melts ice. Heat melts ice. Heat melts ice.", "repeats"),
        ("the ice is warm and " * 8 + "melts.", "repeats"),
        ("The answer is cold wind, which blows.", "wrong_answer"),
        ("It blows hard. So the answer is (b).", "wrong_answer"),
        ("It blows hard.\nAnswer: (b)", "wrong_answer"),
        ("It blows and blows, so option (b) is the correct answer.", "wrong_answer"),
        ("Option (B) is correct that wind cools, yet heat melts.", "kept"),
        ("Some say the answer is cold wind. No: the answer is warm air.", "kept"),
        ("The answer is not cold wind but heat.", "kept"),
        ("The answer is nothing but heat in the air.", "kept"),
        ("The answer is the warm air around it.", "kept"),
        ("Answer:\n(a) warm air melts it.\n(b) cold wind does not.", "kept"),
        ("A table of data, and heat, melts ice.", "kept"),
        ("The answer is a table of heat values.", "wrong_answer"),
        ("Itâ€™s warm air that melts ice.", "encoding"),
        ("A paÅºdzier word that melts ice.", "encoding"),
        ("Le café où la glace fond à 0 °C, façade naïve.", "kept"),
        ("The cell is 5 Å² wide, and warm.", "kept"),
        ("Лёд тает от тепла.", "kept"),
        ("Heat \x00 melts the ice.", "encoding"),
        ("Heat \ud800 melts the ice.", "encoding"),
    ],
)
def test_reasons_without_repair(text, reason):
    assert verdict(text, repair=False) == reason


@pytest.mark.parametrize(
    ("text", "kept", "repaired"),
    [
        ("  Heat melts ice. ", "Heat melts ice.", ()),
        ("Heat melts ice. It is warm and", "Heat melts ice.", ("cut_off",)),
        ("热空气使冰融化。因为", "热空气使冰融化。", ("cut_off",)),
        ("Heat melts ice.\nQuestion: What?", "Heat melts ice.", ("runs_on",)),
        ("Heat melts ice. And so\n#\nQuestion: What?", "Heat melts ice.", ("runs_on", "cut_off")),
        (
            "Heat melts ice, i.e. turns it to water. Dr. No said",
            "Heat melts ice, i.e. turns it to water.",
            ("cut_off",),
        ),
        ("Heat melts ice.\n1. Warm air rises.\n2. The", "Heat melts ice.\n1. Warm air rises.", ("cut_off",)),
        ("Heat melts ice.\nAnswer:", "Heat melts ice.", ("cut_off",)),
        ('She said "heat melts ice." And', 'She said "heat melts ice."', ("cut_off",)),
    ],
)
def test_repairs_keep_the_text_before_the_damage(text, kept, repaired):
    assert check(text) == Rationale("q", "ada", kept, repaired)


def test_a_short_choice_is_not_found_inside_a_longer_word():
    question = Question("q", "Does ice melt?", ("yes", "no"), 0)
    assert verdict("The answer is nothing but yes.", question=question) == "kept"
    assert verdict("As it is cold, the answer is no.", question=question) == "wrong_answer"


@pytest.mark.parametrize(
    ("choices", "text", "choice"),
    [
        (("polish", "Polish"), "The answer is Polish.", 1),
        (("polish", "Polish"), "The answer is polish.", 0),
        (("polish", "Polish"), "The answer is POLISH.", None),
        (("rr", "Rr", "R"), "So the answer is Rr, of course.", 1),
        (("ice", "Ice cream"), "The answer is ice cream.", 1),
        (("O", "A", "B", "AB"), "The answer is B.", 2),
        (("O", "A", "B", "AB"), "The answer is (b).", 1),
        (("O", "A", "B", "AB"), "The answer is d.", 3),
        (tuple("number " + str(n) for n in range(12)), "The answer is (j).", 9),
        (("yes", "no"), "The answer is (j).", None),
    ],
)
def test_what_a_teacher_states_is_one_choice_or_none(choices, text, choice):
    assert stated_choice(text, Question("q", "Which?", choices, 0)) == choice


def test_a_finish_reason_is_trusted():
    assert verdict("Warm air melts the ice here", finish="stop", repair=False) == "kept"
    assert verdict("Warm air melts the ice here", finish="length", repair=False) == "cut_off"
    assert verdict("Warm air melts the ice.", finish="length", repair=False) == "kept"


@pytest.mark.parametrize(("finish", "reason"), [("content_filter", "content_filter"), ("refusal", "refused")])
def test_a_filtered_reply_is_always_rejected(finish, reason):
    for text in ("", "Heat melts ice.", "Heat melts"):
        assert verdict(text, finish=finish) == reason
        assert verdict(text, finish=finish, repair=False, checks=()) == reason


def test_the_opening_alone_is_not_worth_keeping():
    rejected = check("Let's think step by step. Warm air carries the")
    assert rejected == Rejection("q", "ada", "cut_off", "Let's think step by step. Warm air carries the")


def test_a_check_that_is_off_rejects_nothing():
    for text in ("", "Warm air that", "Heat melts ice.\nQuestion: x", "The answer is cold wind.", "Ã© is odd here."):
        assert verdict(text, checks=(), repair=False) == "kept"


def test_lone_surrogates_become_one_replacement_character():
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\ud83d\ude00") == "😀"
    assert well_formed("plain") == "plain"


PIECES = st.sampled_from(
    ["\n", "\nQuestion: ", "\nQ2.", "\n#", " ", "#", ". ", "! ", "? ", "\n1. ", "(a)", ")", "the answer is ", "Answer: b", "e.g. ",
     "Let's think step by step. ", "I'm sorry, but I can't ", "warm air", "cold wind", "it melts ", "\u2028", "[INST]", '"', "Å", "º", "\ud800", ":"]
)  # fmt: skip
ANYTHING = st.one_of(st.text(st.characters(), max_size=80), st.lists(PIECES, max_size=12).map("".join))


@settings(max_examples=600, deadline=None)
@given(
    ANYTHING, st.sampled_from(["stop", "length", "content_filter", "refusal", "unknown"]), st.booleans(), st.booleans()
)
def test_any_text_gets_a_verdict_and_checking_twice_changes_nothing(text, finish, repair, checked):
    checks = ALL if checked else ()
    outcome = check(text, finish=finish, repair=repair, checks=checks)
    if isinstance(outcome, Rejection):
        assert outcome.reason in (*checks, UNFINISHED, "content_filter", "refused")
        return
    assert outcome.text.encode("utf-8").decode("utf-8") == outcome.text
    assert well_formed(text).startswith(outcome.text) or outcome.text in well_formed(text)
    if outcome.text or finish != "length":  # an empty text with all tokens used up is a hidden thought
        again = check(outcome.text, finish=finish, repair=repair, checks=checks)
        assert again == Rationale("q", "ada", outcome.text)


@pytest.mark.parametrize("text", ["\n" * 20_000, "\n#" * 10_000, "a. " * 10_000, "answer is " * 5_000, "(" * 20_000])
def test_long_and_odd_texts_are_fast(text):
    import time

    began = time.process_time()
    check(text)
    assert time.process_time() - began < 5


# --- the published rationales -------------------------------------------------------------------------------------

ARC = repository().parent / "shared" / "data" / "arc" / "train.jsonl"


def published(teacher: str, repair: bool) -> Counter[str]:
    if not ARC.is_file():
        pytest.skip(f"the paper's data is not at {ARC}")
    found: Counter[str] = Counter()
    for line in ARC.read_text("utf-8").splitlines():
        row = json.loads(line)
        question = Question(row["id"], row["question"], tuple(row["choices"]), row["answer"])
        text = row["rationales"][teacher]
        found[verdict(text, repair=repair, question=question)] += 1
    assert found.total() == 1117
    return found


def test_flan_t5s_rationales_are_mostly_kept():
    for repair in (True, False):
        found = published("flan-t5-xl", repair)
        assert found["kept"] > 0.96 * 1117
        assert found["empty"] in range(5, 25)  # 'nan' and the opening alone
        assert found["repeats"] < 20


def test_llama_2s_rationales_are_mostly_cut_off_and_mostly_repairable():
    raw, repaired = published("llama-2-7b-chat", False), published("llama-2-7b-chat", True)
    assert raw["cut_off"] > 0.5 * 1117
    assert raw["runs_on"] > 0.25 * 1117
    assert raw["kept"] < 0.15 * 1117
    assert repaired["kept"] > 0.8 * 1117
    assert repaired["runs_on"] == 0
    assert repaired["wrong_answer"] in range(5, 40)
