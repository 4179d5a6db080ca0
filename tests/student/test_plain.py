"""Pieces of a prompt are encoded as they are in the middle of the whole text, and text is never a special token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.questions import Question
from tinyllm.scoring._matching import match_choice
from tinyllm.student._plain import PlainText
from tinyllm.student.encode import Encoder
from tinyllm.student.mixture import Target
from tokenizers_of_kinds import KINDS, byte_level, unigram

MADE = {name: make() for name, make in KINDS.items()} | {"one-hole": unigram("{")}
CAUSAL = ("byte-level", "byte-level-space", "prepend", "first", "unigram")


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_looks_like_a_special_token_is_spelled_out(kind):
    tokenizer = MADE[kind]
    plain, special = PlainText(tokenizer), set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert special
    for token in tokenizer.all_special_tokens:
        for text in (token, f"a{token}b", f"it ends {token} here", f"{token}{token}"):
            tokens = plain(text)
            assert special.isdisjoint(tokens), (token, text)
            assert len(tokens) > 1
            if kind not in ("unigram", "quoting", "wordpiece"):
                assert tokenizer.decode(list(tokens)).strip() == text
    assert plain("a plain text") == tuple(tokenizer("a plain text", add_special_tokens=False).input_ids)


WRITTEN = {
    "a sign that is not known": ("unigram", ("-5", "−5", "5", "x < 3", "x 3")),
    "spaces": ("byte-level", ("n !", "n!", "ice", "it 's", "it's")),
    "case and marks": ("wordpiece", ("don't", "dont", "3 - 2", "3 2")),
    "an end that is unknown, too": ("gpt2", ("ice", "iron")),
}


@pytest.mark.parametrize("what", WRITTEN)
@pytest.mark.parametrize("encoder_decoder", [True, False])
def test_the_tokens_of_a_choice_are_read_as_that_choice(what, encoder_decoder):
    kind, choices = WRITTEN[what]
    tokenizer = byte_level() if kind == "gpt2" else KINDS[kind]()
    tokenizer.clean_up_tokenization_spaces = True  # as Llama 3's file says
    if kind == "gpt2":
        tokenizer.unk_token = tokenizer.eos_token
    made = Encoder(tokenizer, is_encoder_decoder=encoder_decoder)
    assert made.indistinct(choices) is None
    texts = [made.read((*made.target(c), tokenizer.pad_token_id)) for c in choices]
    assert [match_choice(text, choices, made.written).choice for text in texts] == [*range(len(choices))], texts


def test_a_token_of_one_character_stays_what_the_text_says():
    tokenizer = KINDS["byte-level"]()
    tokenizer.pad_token = "!"
    assert tokenizer.decode(list(PlainText(tokenizer)("No!"))) == "No!"


WORDS = st.lists(st.sampled_from(["ice", "Why", "is", "it", "so?", "</s>", "x:", "(a)", "i"]), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CAUSAL), WORDS.map(" ".join), WORDS.map(" ".join), st.sampled_from(["predict: ", "p", "ice:"]))
def test_prompt_prefix_and_target_together_are_the_tokens_of_the_whole_text(kind, asked, answer, prefix):
    tokenizer = MADE[kind]
    encoder, plain = Encoder(tokenizer, is_encoder_decoder=False, layout="cloze"), PlainText(tokenizer)
    question = Question("q", asked, (answer, "no"), 0, "Some context.")
    (row,) = encoder.rows(question, [Target("q", "answer", prefix, answer, 1.0)])
    tokens = (*row.prompt, *row.branches[0].prefix, *row.branches[0].target)
    frame = plain.frame()
    text = f"Context: Some context.\nQuestion: {asked}\n{prefix.rstrip()} {answer}"
    assert tokens == (*frame[0], *plain(text), encoder.end)


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_begins_with_no_space_of_its_own(kind):
    tokenizer = MADE[kind]
    for encoder_decoder in (True, False):
        target = Encoder(tokenizer, is_encoder_decoder=encoder_decoder).target("ice")
        said = tokenizer.convert_ids_to_tokens(list(target[:-1]))
        assert said.count("▁") == 0, said
        assert tokenizer.decode(list(target), skip_special_tokens=True).strip() == "ice"


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_is_given_the_text_in_the_frame_that_its_tokenizer_makes(kind):
    tokenizer = MADE[kind]
    encoder = Encoder(tokenizer, is_encoder_decoder=True)
    question = Question("q", "Why is it so?", ("ice", "fire"), 0, "Some context.")
    text = "predict: Context: Some context.\nQuestion: Why is it so?\nChoices:\n(a) ice\n(b) fire\n"
    framed = tuple(tokenizer(text).input_ids)
    ends = framed[-1] == tokenizer.eos_token_id
    assert encoder.prompt(question, "predict: ") == (framed if ends else (*framed, tokenizer.eos_token_id))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(tuple(KINDS)),
    st.integers(60, 400),
    st.booleans(),
    st.sampled_from(["labelled", "release", "cloze"]),
)
def test_a_cut_context_ends_as_a_whole_one(kind, limit, encoder_decoder, layout):
    tokenizer = MADE[kind]
    made = Encoder(tokenizer, is_encoder_decoder=encoder_decoder, layout=layout, max_input_tokens=limit)
    question = Question("q", "Why?", ("ice", "fire"), 0, "some words " * 80)
    plain = PlainText(tokenizer)
    bare = made.prompt(Question("q", "Why?", ("ice", "fire"), 0), "predict: ")
    prompt = made.prompt(question, "predict: ")
    fit = made.fit([question], ["predict: "])
    assert bool(fit.too_long) == (len(made.generation_prompt(question, "predict: ")) > limit)
    if len(bare) + 20 > limit:
        return
    assert fit.cut == {"q"}
    assert len(made.generation_prompt(question, "predict: ")) == limit, "the room is used up"
    said = tokenizer.decode(list(prompt))
    if kind not in ("unigram", "quoting", "wordpiece"):  # these take a line break for a space
        parting = " \n Why?" if layout == "release" else "\nQuestion: Why?"
        assert parting in said
    assert prompt[: len(plain.frame()[0])] == plain.frame()[0]


def test_contexts_that_fit_are_not_counted_as_cut():
    made = Encoder(MADE["byte-level"], is_encoder_decoder=False, max_input_tokens=100)
    questions = [Question(f"q{n}", "Why?", ("ice", "fire"), 0, "c" * n) for n in range(0, 60, 3)]
    whole = Encoder(MADE["byte-level"], is_encoder_decoder=False, max_input_tokens=9999)
    longer = [q.id for q in questions if len(whole.generation_prompt(q, "predict: ")) > 100]
    assert 0 < len(longer) < len(questions)
    assert made.fit(questions, ["predict: "]).cut == set(longer)


INDISTINCT = {
    ("unigram", ("北京", "上海", "广州")): "choices 0 ('北京') and 1 ('上海') and 2 ('广州') are the same",
    ("unigram", ("x < 3", "y", "x { 3")): "choices 0 ('x < 3') and 2 ('x { 3') are the same",
    ("unigram", ("CO₂", "CO2")): "choices 0 ('CO₂') and 1 ('CO2') are the same",
    ("wordpiece", ("polish", "Polish")): "choices 0 ('polish') and 1 ('Polish') are the same",
    ("wordpiece", ("3 %", "3%")): "choices 0 ('3 %') and 1 ('3%') are the same",
    ("wordpiece", ("A - B", "C", "A-B")): "choices 0 ('A - B') and 2 ('A-B') are the same",
    ("quoting", ("''ice''", '"ice"')): "are the same",
    ("quoting", ("resume", "résumé")): "choices 0 ('resume') and 1 ('résumé') are the same",
    ("one-hole", ("a {", "a {{")): "choices 0 ('a {') and 1 ('a {{') are the same",
    ("unigram", ("ice", "\u200b")): "nothing is left of choice 1 ('\\u200b')",
    ("byte-level", ("x" * 300, "x" * 299 + "y")): "begin with the same 255 tokens",
    ("prepend", ("no", "x" * 300, "x" * 299 + "y")): "begin with the same 255 tokens",
}


@pytest.mark.parametrize(("kind", "choices"), INDISTINCT)
@pytest.mark.parametrize("encoder_decoder", [True, False])
def test_choices_that_the_tokenizer_cannot_tell_apart_are_found(kind, choices, encoder_decoder):
    made = Encoder(MADE[kind], is_encoder_decoder=encoder_decoder)
    said = made.indistinct(choices, learnt=True)
    assert said is not None
    assert (made.indistinct(choices) is None) == ("begin with" in said), "no choice is cut when it is ranked"
    assert INDISTINCT[kind, choices] in said


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("byte-level", ("北京", "上海", "广州")), ("byte-level", ("x < 3", "x { 3")), ("byt5", ("CO₂", "CO2")),
        ("prepend", ("polish", "Polish")), ("unigram", ("yes", "no")), ("unigram", ("ice", "ice")),
        ("wordpiece", ("yes", "no")), ("byte-level", ("x" * 250, "x" * 249 + "y")),
    ],
)  # fmt: skip
def test_choices_that_differ_in_their_tokens_are_not(kind, choices):
    assert Encoder(MADE[kind], is_encoder_decoder=True).indistinct(choices, learnt=True) is None


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(tuple(KINDS)),
    st.lists(st.text("aA <{²2\u200b北é.'-", min_size=1, max_size=6), min_size=2, max_size=4, unique=True),
)
def test_what_is_found_is_what_all_tokens_say(kind, choices):
    """The quick look at characters leaves nothing out."""
    encoder = Encoder(MADE[kind], is_encoder_decoder=False)
    tokens = [encoder.target(c) for c in choices]
    empty = [not MADE[kind].decode(list(t[:-1])).strip() for t in tokens]
    expected = len(set(tokens)) < len(choices) or any(empty)
    assert (encoder.indistinct(choices) is not None) == expected
