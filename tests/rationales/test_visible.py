"""The visible text of a reply has no thoughts, channels or special tokens of any model."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyllm.questions import Question
from tinyllm.rationales._visible import Visible, visible
from tinyllm.rationales.checks import to_rationale
from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.teachers.base import Reply

TEXT = "Ice melts because warm air carries heat to it, until it turns to water."
THOUGHT = "Hmm, the user wants a reason. First, I should look at each choice. The answer is (b)."

MARKED = {
    "think": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}",
    "no opening": f"{THOUGHT}\n</think>\n\n{TEXT}",
    "empty thought": f"<think>\n\n</think>\n\n{TEXT}",
    "capitals and attributes": f'<Thinking type="long">{THOUGHT}</THINKING> {TEXT}',
    "two thoughts": f"<think>{THOUGHT}</think><think>{THOUGHT}</think>{TEXT}",
    "a thought in a thought": f"<think>{THOUGHT}<think>{THOUGHT}</think> so</think>{TEXT}",
    "a thought in the middle": f"{TEXT[:20]}<think>{THOUGHT}</think>{TEXT[20:]}",
    "a namespace": f"<seed:think>{THOUGHT}</seed:think>{TEXT}",
    "reasoning": f"<reasoning>{THOUGHT}</reasoning>\n<answer>{TEXT}</answer>",
    "scratchpad": f"<scratchpad>{THOUGHT}</scratchpad>{TEXT}",
    "brackets": f"[THINK]{THOUGHT}[/THINK]{TEXT}",
    "triangles": f"◁think▷{THOUGHT}◁/think▷{TEXT}",
    "thought tokens": f"<|begin_of_thought|>{THOUGHT}<|end_of_thought|>\n<|begin_of_solution|>{TEXT}<|end_of_solution|>",
    "command": f"<|START_THINKING|>{THOUGHT}<|END_THINKING|><|START_RESPONSE|>{TEXT}<|END_RESPONSE|>",
    "unused tokens": f"<unused94>thought\n{THOUGHT}<unused95>{TEXT}",
    "channels of another kind": f"<|channel>thought\n{THOUGHT}<channel|>{TEXT}<turn|>",
    "harmony": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{TEXT}",
    "harmony, whole": f"<|start|>assistant<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{TEXT}<|return|>",
    "harmony, its first mark swallowed": f"analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final"
    f"<|message|>{TEXT}",
    "harmony with a commentary": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>commentary"
    f"<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>{TEXT}",
    "harmony without its marks": f"analysis{THOUGHT}assistantfinal{TEXT}",
    "thought process": f"Here is my thought process:\n{THOUGHT}\nHere is my response:\n{TEXT}",
    "done thinking": f"Thinking...\n{THOUGHT}\n...done thinking.\n\n{TEXT}",
    "end of turn": f"{TEXT}<|im_end|>",
    "start and end of turn": f"<|im_start|>assistant\n{TEXT}<|im_end|>\n<|endoftext|>",
    "another end": f"{TEXT}</s>",
}
CUT = {
    "think": f"<think>\n{THOUGHT} But wait, maybe",
    "harmony": f"<|channel|>analysis<|message|>{THOUGHT} But",
    "harmony without its marks": f"analysisThe user wants {THOUGHT}",
    "brackets": f"[THINK]{THOUGHT}",
    "after a thought": f"<think>{THOUGHT}</think>",
    "nothing at all": "",
}


def reply(content=None, finish="stop", **message) -> Reply:
    whole = {"content": content, **message}
    return Reply(content if isinstance(content, str) else "", finish, message=json.dumps(whole))


@pytest.mark.parametrize("name", MARKED)
def test_thoughts_and_special_tokens_are_removed(name):
    seen = visible(Reply(MARKED[name], "stop"))
    assert (seen.text, seen.withheld) == (TEXT, None)
    assert visible(Reply(seen.text, "stop")) == Visible(TEXT)


@pytest.mark.parametrize("name", CUT)
def test_a_thought_that_was_cut_off_is_no_text(name):
    assert visible(Reply(CUT[name], "length")) == Visible("", True, "unfinished_thought")


PARTS = {
    "thinking part": reply([{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": TEXT}]),
    "reasoning part": reply([{"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}, {"type": "output_text", "text": TEXT}]),
    "thought flag": reply([{"text": THOUGHT, "thought": True}, {"text": TEXT}]),
    "no type": reply([{"thinking": THOUGHT}, {"text": TEXT}]),
    "plain texts": reply([TEXT[:30], TEXT[30:]]),
    "a value in a text": reply([{"type": "text", "text": {"value": TEXT, "annotations": []}}]),
    "one object": reply({"type": "text", "text": TEXT}),
    "an image beside": reply([{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": TEXT}]),
    "tags in a part": reply([{"type": "text", "text": f"<think>{THOUGHT}</think>"}, {"type": "text", "text": TEXT}]),
    "reasoning_content": reply(TEXT, reasoning_content=THOUGHT),
    "reasoning": reply(TEXT, reasoning=THOUGHT, reasoning_details=[{"text": THOUGHT}]),
    "thinking": reply(TEXT, thinking=THOUGHT),
    "blocks": reply(TEXT, thinking_blocks=[{"type": "thinking", "thinking": THOUGHT}]),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_only_the_text_of_typed_parts_is_read(name):
    assert (visible(PARTS[name]).text, visible(PARTS[name]).withheld) == (TEXT, None)


@pytest.mark.parametrize(
    "unfinished",
    [
        reply("", "length", reasoning_content=THOUGHT),
        reply(None, "length", reasoning=THOUGHT),
        reply("", "stop", reasoning_content=THOUGHT),
        reply([{"type": "thinking", "thinking": THOUGHT}], "length"),
        Reply("", "length", 10, 256, thinking_tokens=256),
        Reply("", "stop", 10, 256, thinking_tokens=256),
    ],
)
def test_thoughts_beside_an_empty_text_are_an_unfinished_thought(unfinished):
    assert visible(unfinished).withheld == "unfinished_thought"


@pytest.mark.parametrize(
    ("withheld", "reason"),
    [
        (Reply("I'm sorry.", "refusal"), "refused"),
        (reply(None, refusal="I can't help with that."), "refused"),
        (reply([{"type": "refusal", "refusal": "I can't."}]), "refused"),
        (Reply("", "content_filter"), "content_filter"),
        (Reply(TEXT, "content_filter"), "content_filter"),
    ],
)
def test_a_reply_without_text_has_its_own_reason(withheld, reason):
    question = Question("q", "Does ice melt?", ("yes", "no"), 0)
    for checks in ((), ("empty",)):
        rejected = to_rationale(question, "ada", withheld, checks=checks, repair=True)
        assert isinstance(rejected, Rejection)
        assert rejected.reason == reason


def test_a_thought_never_counts_for_a_check():
    question = Question("q", "Does ice melt?", ("yes", "no"), 0)
    kept = to_rationale(
        question, "ada", Reply(MARKED["think"], "stop"), checks=("wrong_answer", "repeats"), repair=True
    )
    assert kept == Rationale("q", "ada", TEXT)


@pytest.mark.parametrize(
    "text", ["The tag <b> is bold, and 3 < 5 > 2.", "a <summary> element opens it.", "See [1] and [THIN]."]
)
def test_other_angle_brackets_are_kept(text):
    assert visible(Reply(text, "stop")) == Visible(text)


pieces = st.sampled_from(
    ["<think>", "</think>", "[THINK]", "[/THINK]", "<|channel|>", "final", "analysis", "<|message|>", "<|end|>", "</s>", " ",
     "\n", "<answer>", "</answer>", "so", "assistantfinal", "Here is my response:", "<|im_end|>", "◁think▷", "◁/think▷"]
)  # fmt: skip


@example("0[THINK]")
@given(st.lists(st.one_of(pieces, st.text(max_size=4)), max_size=12).map("".join))
def test_visible_text_is_stable_and_has_no_tags(text):
    seen = visible(Reply(text, "stop"))
    assert visible(Reply(seen.text, "stop")).text == seen.text
    assert not any(mark in seen.text for mark in ("<think>", "</think>", "[THINK]", "[/THINK]", "◁think▷", "◁/think▷"))


@pytest.mark.parametrize(
    "text", ["<" * 30_000, "<think>" * 3_000, "</think>" * 3_000, " " * 50_000 + "<", "<|channel|>a" * 3_000]
)
def test_long_and_odd_texts_are_fast(text):
    import time

    began = time.process_time()
    visible(Reply(text, "stop"))
    assert time.process_time() - began < 5
