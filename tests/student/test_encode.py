"""From text to tokens: only the context is ever cut."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from support import tiny_tokenizer
from tinyllm.questions import Question
from tinyllm.student.encode import Encoder, question_text
from tinyllm.student.mixture import Target

TOKENIZER = tiny_tokenizer()


def encoder(encoder_decoder: bool, **changes) -> Encoder:
    return Encoder(TOKENIZER, is_encoder_decoder=encoder_decoder, **changes)


def text(tokens) -> str:
    return TOKENIZER.decode(tokens)


def question(context: str | None = None) -> Question:
    return Question("q", "Why?", ("ice", "fire"), 0, context)


@given(st.integers(0, 400), st.integers(80, 200), st.booleans())
def test_only_the_context_is_cut(length, limit, encoder_decoder):
    context = ("some words " * 40)[:length]
    made = encoder(encoder_decoder, max_input_tokens=limit)
    prompt = made.generation_prompt(question(context or None), "predict: ")
    assert len(prompt) <= limit
    said = text(prompt)
    assert "Question: Why?\nChoices:\n(a) ice\n(b) fire\n" in said
    assert "predict:" in said
    if context:
        shown = said.partition("Context: ")[2].partition("\nQuestion:")[0].partition("Question:")[0]
        assert context.startswith(shown.rstrip("\n"))


def test_a_question_that_does_not_fit_without_its_context_is_found():
    made = encoder(False, max_input_tokens=60)
    long = Question("long", "Why so? " * 5, ("ice", "fire"), 0)
    found = made.fit([long, question("context " * 50)], ["predict: "]).too_long
    assert found == {"long": len(question_text(long, "labelled")[1]) + len("predict:")}


PIECES = st.sampled_from(["Why so? ", "x", " \n", "’", "ﷺ", "½", "한국", "𝐀", "</s>", "ΐ", "Ⱥ", "क़"])


@settings(deadline=None)
@given(
    st.lists(PIECES, min_size=1, max_size=30).map("".join),
    st.integers(20, 160),
    st.booleans(),
    st.sampled_from(["labelled", "release", "cloze"]),
    st.sampled_from([None, "NFC", "NFD", "NFKC", "NFKD", "Lowercase"]),
)
def test_what_is_too_long_is_told_as_if_every_question_were_tokenised(
    words, limit, encoder_decoder, layout, normaliser
):
    tokenizer = tiny_tokenizer()
    if normaliser is not None:
        tokenizer.backend_tokenizer.normalizer = getattr(normalizers, normaliser)()
    made = Encoder(tokenizer, is_encoder_decoder=encoder_decoder, layout=layout, max_input_tokens=limit)
    asked = Question("q", words, ("ice", words[:3]), 0)
    prefixes = ["predict: ", "explain as ada: "]
    tokens = max(len(made.generation_prompt(asked, prefix)) for prefix in prefixes)
    assert made.fit([asked], prefixes).too_long == ({"q": tokens} if tokens > limit else {})


def test_the_longest_prefix_is_that_of_most_tokens():
    prefixes = ["explain as ada: ", "解释解释解释："]
    asked = question("c" * 200)
    for encoder_decoder in (True, False):
        made = encoder(encoder_decoder, max_input_tokens=70)
        bare = question()
        room = max(len(made.generation_prompt(bare, prefix)) for prefix in prefixes)
        tight = encoder(encoder_decoder, max_input_tokens=room - 1)
        assert list(tight.fit([bare], prefixes).too_long.values()) == [room]
        rows = made.rows(asked, [Target("q", "answer", prefix, "ice", 1.0) for prefix in prefixes])
        assert max(len(row.prompt) + max(len(b.prefix) for b in row.branches) for row in rows) == 70


def test_a_question_that_is_short_in_bytes_is_not_tokenised():
    counted = []

    class Counting:
        eos_token_id, bos_token_id = TOKENIZER.eos_token_id, None

        def __call__(self, text, **more):
            counted.append(text)
            return TOKENIZER(text, **more)

    made = Encoder(Counting(), is_encoder_decoder=True, max_input_tokens=200)
    few = [question()] * 3
    assert made.fit(few, ["predict: "]).too_long == {}
    before = len(counted)
    assert made.fit(few * 100, ["predict: "]).too_long == {}
    assert len(counted) < 2 * before
    assert not any("Why?" in text for text in counted)


def test_the_prefix_stands_first_for_an_encoder_decoder_and_after_the_question_for_a_causal_student():
    targets = [
        Target("q", "answer", "predict: ", "ice", 1.0),
        Target("q", "ada", "explain as ada: ", "It is cold.", 0.5),
    ]
    rows = encoder(True).rows(question(), targets)
    assert [text(r.prompt) for r in rows] == [
        f"{prefix}Question: Why?\nChoices:\n(a) ice\n(b) fire\n</s>" for prefix in ("predict: ", "explain as ada: ")
    ]
    assert [text(r.branches[0].target) for r in rows] == ["ice</s>", "It is cold.</s>"]
    (row,) = encoder(False).rows(question(), targets)
    assert text(row.prompt) == "Question: Why?\nChoices:\n(a) ice\n(b) fire\n"
    assert [text((*b.prefix, *b.target)) for b in row.branches] == [
        "predict: ice</s>",
        "explain as ada: It is cold.</s>",
    ]
    assert [b.weight for b in row.branches] == [1.0, 0.5]
    assert len(encoder(False, share_prompt=False).rows(question(), targets)) == 2


def test_training_and_asking_see_the_same_tokens():
    for encoder_decoder in (True, False):
        made = encoder(encoder_decoder, max_input_tokens=90)
        asked = Question("q", "Why?", ("ice", "fire"), 0, "c" * 300)
        (row,) = made.rows(asked, [Target("q", "answer", "predict: ", "ice", 1.0)])
        prompt = made.generation_prompt(asked, "predict: ")
        assert prompt == (*row.prompt, *row.branches[0].prefix)
        (options,) = made.options(asked, "predict: ")[:1]
        assert (*options.prompt, *options.branches[0].prefix) == prompt
        assert options.branches[0].target == row.branches[0].target, "a ranked choice ends as the one that is learnt"


def test_a_long_target_is_cut_and_still_ends():
    target = encoder(True, max_target_tokens=8).target("x" * 50)
    assert (len(target), target[-1]) == (8, TOKENIZER.eos_token_id)


def test_layouts():
    asked = question("Ice is cold.")
    assert question_text(asked, "release") == ("Ice is cold. \n ", "Why?\nAnswer Choices:\n(a) ice\n(b) fire")
    assert question_text(asked, "cloze") == ("Context: Ice is cold.\n", "Question: Why?\n")
    many = Question("q", "?", tuple(str(i) for i in range(30)), 0)
    assert "(z) 25\n(27) 26" in question_text(many, "labelled")[1]


def test_a_start_token_is_put_where_the_tokenizer_puts_one():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<pad>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    assert Encoder(tokenizer, is_encoder_decoder=False).prompt(question(), "")[0] == 0
