"""A refused parameter is recognised in the message, left out once, and remembered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores import reply_key
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers._http.refusals import refused_parameter
from tinyllm.teachers.base import Request, Sampling
from tinyllm.teachers.manners import SAMPLING, Manners, SentForm

BODY = {
    "model": "m", "max_tokens": 256, "temperature": 0.7, "top_p": 0.95, "seed": 0, "stop": ["\n\n"],
    "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}],
}  # fmt: skip
ASKED = Request(
    "q",
    Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))),
    Sampling(256, 0.7, 0.95, 0, ("\n\n",)),
)


def error(message: str, **more) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def detail(*loc: str, words: str = "Extra inputs are not permitted") -> bytes:
    return json.dumps({"detail": [{"type": "extra_forbidden", "loc": list(loc), "msg": words}]}).encode()


@pytest.mark.parametrize(
    ("status", "raw", "names"),
    [
        (400, error("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                    "instead.", code="unsupported_parameter", param="max_tokens"), ["max_tokens"]),
        (400, error("use max_completion_tokens instead"), ["max_tokens"]),
        (400, error("Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is "
                    "supported.", param="temperature"), ["temperature"]),
        (400, error("`temperature` and `top_p` cannot both be specified for this model. Use only one of them."),
         ["top_p", "temperature"]),
        (400, error("temperature and top_p are mutually exclusive"), ["top_p", "temperature"]),
        (422, detail("body", "seed"), ["seed"]),
        (400, error("Unknown field `seed`"), ["seed"]),
        (400, error("Unrecognized request argument supplied: seed"), ["seed"]),
        (400, error("Invalid JSON payload received. Unknown name \"topP\": Cannot find field."), ["top_p"]),
        (400, error("stop is not supported by this model"), ["stop"]),
        (400, error("Argument not supported on this model: stop"), ["stop"]),
        (400, error("The parameter stop_sequences is not allowed"), ["stop"]),
        (400, error("This model only supports streaming; set `stream` to true.", param="stream"), ["stream"]),
        (400, error("Only streaming requests are supported"), ["stream"]),
        (400, error("parameter.enable_thinking must be set to false for non-streaming calls; use stream"), ["stream"]),
        (400, error("System role not supported"), ["system"]),
        (400, error("messages[0].role does not support 'system' with this model"), ["system"]),
        (400, error("Developer instruction is not enabled for models/gemma"), ["system"]),
        (404, error("No endpoints found that support the parameter `seed`: not supported"), ["seed"]),
    ],
)  # fmt: skip
def test_the_refused_part_is_told_from_the_words(status, raw, names):
    refused = refused_parameter(status, raw, BODY)
    assert refused is not None
    assert list(refused.names)[: len(names)] == names


@pytest.mark.parametrize(
    ("status", "raw"),
    [
        (400, error("The model `m` does not exist")),
        (400, error("I will not stop at this: the seed of a plant is not supported by evidence.")),
        (400, error("Provider returned error")),
        (429, error("Unsupported parameter: 'temperature'")),
        (500, error("temperature is not supported")),
        (400, b"<html>Bad request</html>"),
        (400, error("Invalid value for presence_penalty")),
    ],
)
def test_other_errors_are_about_no_parameter(status, raw):
    assert refused_parameter(status, raw, BODY) is None


@pytest.mark.parametrize(
    ("words", "most"),
    [
        (
            "max_tokens is too large: 8448. This model supports at most 4096 completion tokens, whereas you provided 8448.",
            4096,
        ),
        ("max_tokens must be less than or equal to `8,192`, the maximum value for `max_tokens`", 8192),
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'. Code 400.", None),
        ("This model's maximum context length is 4096 tokens, lower max_tokens", None),
    ],
)
def test_the_longest_length_is_read_from_the_words(words, most):
    refused = refused_parameter(400, error(words), BODY | {"max_tokens": 8448})
    assert refused is not None
    assert refused.limit == most


@pytest.mark.parametrize(
    ("status", "words", "names", "limit"),
    [
        (400, "Requested sample logprobs of 20, which is greater than max allowed: 5", ("top_logprobs",), 5),
        (400, "top_logprobs must be between 0 and 8", ("top_logprobs",), 8),
        (400, "logprobs is not supported by gpt-5", ("logprobs",), None),
        (403, "You are not allowed to request logprobs from this model", ("logprobs",), None),
        (400, "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
         ("fewest_tokens",), 16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("length", ["max_tokens", "max_completion_tokens"])
def test_limits_of_a_request_for_log_probabilities_are_read(length, status, words, names, limit):
    body = {"model": "m", length: 1, "messages": [], "logprobs": True, "top_logprobs": 20}
    refused = refused_parameter(status, error(words), body)
    assert (refused.names, refused.limit) == (names, limit)


def test_configured_parameters_never_change():
    manners = Manners()
    assert manners.without(["temperature"], {"temperature"}) is None
    assert manners.without(["top_p", "temperature"], {"top_p"}).form.dropped == ("temperature",)
    assert manners.without(["top_p", "temperature"], ()).form.dropped == ("top_p",)
    assert manners.without(["top_p", "temperature"], {"top_p", "temperature"}) is None
    assert manners.without(["max_tokens"], {"max_tokens"}, 100) is None


def test_a_length_is_renamed_and_back_but_never_left_out():
    renamed = Manners().without(["max_tokens"], ())
    assert renamed.length_field == "max_completion_tokens"
    assert renamed.without(["max_completion_tokens"], ()).length_field == "max_tokens"
    assert reply_key({}, renamed.form.applied_to(ASKED)) == reply_key({}, ASKED)  # the name changes no reply


def test_the_key_covers_what_is_sent():
    keys = {reply_key({}, ASKED)}
    for form in (
        SentForm(("seed",)),
        SentForm(("top_p",)),
        SentForm(("seed", "top_p")),
        SentForm(most_tokens=64),
        SentForm(system=False),
        SentForm(fewest_tokens=512),
    ):
        keys.add(reply_key({}, form.applied_to(ASKED)))
    assert len(keys) == 7
    assert SentForm().applied_to(ASKED) is ASKED
    assert SentForm(("seed",)).applied_to(ASKED, kept={"seed"}) is ASKED
    assert SentForm().applied_to(ASKED, omitted={"seed"}).sampling.seed is None
    assert SentForm(system=False).applied_to(ASKED).prompt.messages == (Message("user", "Explain.\n\nWhy?"),)


forms = st.builds(
    SentForm,
    st.sets(st.sampled_from(SAMPLING)).map(lambda s: tuple(sorted(s))),
    st.none() | st.integers(1, 9999),
    st.booleans(),
)


@given(
    st.builds(
        Manners, forms, st.lists(forms, max_size=3).map(tuple), st.sampled_from(["max_tokens", "max_completion_tokens"]),
        st.booleans(), st.booleans(), st.booleans(), st.booleans(),
    )
)  # fmt: skip
def test_what_is_remembered_is_read_back(manners):
    assert Manners.load(manners.dump()) == manners
    assert Manners.load(json.dumps(json.loads(manners.dump()) | {"new": 1})) == manners


@given(
    st.lists(st.sampled_from([*SAMPLING, "max_tokens", "max_completion_tokens", "stream", "stream_options", "system"]))
)
def test_forms_that_worked_are_not_forgotten(names):
    manners, worked = Manners(worked=True), [SentForm()]
    for name in names:
        manners = manners.without([name], ()) or manners
        worked += [manners.form] if manners.form != worked[-1] else []
    assert list(reversed(worked)) == [manners.form, *manners.earlier]
