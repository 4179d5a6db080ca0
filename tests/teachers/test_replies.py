"""Readers of what endpoints say."""

import json

import pytest

from tinyllm.teachers.http.refusals import about_one_prompt, no_credit, words_of
from tinyllm.teachers.http.replies import NotACompletion, read_completion


def completion(form="chat", finish="stop", usage=None, timings=None, **said):
    choice = {"message": said} if form == "chat" else said
    return json.dumps({"choices": [{**choice, "finish_reason": finish}], "usage": usage, "timings": timings}).encode()


@pytest.mark.parametrize(
    ("usage", "timings", "cached"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 6}}, None, 6),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 6}}, {"cache_n": 5}, 6),
        ({"prompt_tokens": 9, "prompt_tokens_details": None}, None, None),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, None, 4),
        ({"prompt_tokens": 9}, {"cache_n": 5, "prompt_n": 4}, 5),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}, None, 0),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": "6"}}, {"cache_n": True}, None),
        ({"prompt_tokens": 9, "prompt_tokens_details": [6]}, [5], None),
        (None, None, None),
    ],
)
def test_the_tokens_found_in_a_cache_are_read_where_a_server_tells_them(usage, timings, cached):
    assert read_completion(completion(usage=usage, timings=timings, content="So."), "chat", 0.1).cached_tokens == cached


def test_a_refusal_is_a_reply_with_its_own_reason():
    reply = read_completion(completion(content=None, refusal="I can't help with that."), "chat", 0.1)
    assert (reply.text, reply.finish_reason) == ("I can't help with that.", "refusal")
    reply = read_completion(completion(content="Because.", refusal=None), "chat", 0.1)
    assert (reply.text, reply.finish_reason) == ("Because.", "stop")
    reply = read_completion(completion(content="No.", finish="refusal"), "chat", 0.1)
    assert reply.finish_reason == "refusal"


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'{"choices": [{"message": "hello"}]}', b"[" * 5000, b"\xff"])
def test_what_is_no_completion_is_told(raw):
    with pytest.raises(NotACompletion):
        read_completion(raw, "chat", 0.1)


@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (400, "This model's maximum context length is 2048 tokens", "too_long"),
        (400, "context_length_exceeded: too many", "too_long"),
        (400, "prompt is too long: 200001 tokens > 200000 maximum", "too_long"),
        (400, "The input token count exceeds the maximum number of tokens allowed", "too_long"),
        (422, "the request exceeds the available context size, try increasing it", "too_long"),
        (413, "no", "too_long"),
        (429, "Request too large for gpt on tokens per min: Limit 10000, Requested 12000", "too_long"),
        (429, "Rate limit reached on tokens per min", None),
        (400, "content_filter: The response was filtered due to our content management policy", "content_filter"),
        (400, "Your prompt was flagged as potentially violating our usage policy", "content_filter"),
        (403, "Your chosen model requires moderation and your input was flagged", "content_filter"),
        (403, "Your key may not use this model", None),
        (401, "content policy", None),
        (400, "temperature is too large, maximum allowed is 2", None),
        (400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens", None),
        (500, "too long", None),
    ],
)
def test_errors_about_one_prompt_are_told_from_those_about_all(status, words, reason):
    assert about_one_prompt(status, words) == reason


def test_an_empty_account_is_told_from_a_rate_limit():
    assert no_credit("You exceeded your quota: insufficient_quota")
    assert not no_credit("Rate limit reached for requests")


def test_the_servers_own_words_are_one_line_of_bounded_length():
    assert words_of(b'{"error": {"message": "no such\\n model", "type": "bad"}}') == "bad: no such model"
    assert words_of(b'{"detail": "not found"}') == "not found"
    assert words_of(b'{"error": "gone"}') == "gone"
    assert len(words_of(b"x" * 5000)) < 500


def test_no_part_of_a_secret_is_left_where_the_words_are_cut():
    secret = "sk-secret-0123456789"
    for before in range(370, 405):
        assert "sk-s" not in words_of(b"x" * before + secret.encode() + b"y" * 100, [secret])
