"""The functions that read answers and errors of endpoints."""

import json

import pytest

from tinyllm.rationales._visible import visible
from tinyllm.teachers._http.refusals import about_one_prompt, no_credit, words_of
from tinyllm.teachers._http.replies import ErrorInReply, NotACompletion, read_completion
from tinyllm.teachers._secrets import spelled


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


@pytest.mark.parametrize(
    ("finish", "read", "why"),
    [
        ("length", "length", "unfinished_thought"),
        ("content_filter: PROHIBITED_CONTENT", "content_filter", "content_filter"),
    ],
)
def test_a_message_without_content_is_a_reply_if_it_says_why_it_ended(finish, read, why):
    reply = read_completion(completion(finish=finish, role="assistant"), "chat", 0.1)
    assert (reply.text, reply.finish_reason, visible(reply).withheld) == ("", read, why)
    with pytest.raises(NotACompletion):
        read_completion(completion(finish=None, role="assistant"), "chat", 0.1)


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'{"choices": [{"message": "hello"}]}', b"[" * 5000, b"\xff"])
def test_an_answer_that_is_no_completion_is_an_error(raw):
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
    assert no_credit("billing_not_active: Your account is not active, please check your billing details")
    assert not no_credit("Rate limit reached for requests")
    assert not no_credit(
        "You exceeded your current quota, please check your plan and billing details. Please retry in 9s."
    )
    assert not no_credit(
        "Rate limit reached, limit: 3 / min. Visit example.com/account/billing to add a payment method."
    )


def test_the_servers_own_words_are_one_line_of_bounded_length():
    assert words_of(b'{"error": {"message": "no such\\n model", "type": "bad"}}') == "bad: no such model"
    assert words_of(b'{"detail": "not found"}') == "not found"
    assert words_of(b'{"error": "gone"}') == "gone"
    assert len(words_of(b"x" * 5000)) < 500


def test_no_part_of_a_secret_is_left_where_the_words_are_cut():
    secret = "sk-secret-0123456789"
    for before in range(370, 405):
        assert "sk-s" not in words_of(b"x" * before + secret.encode() + b"y" * 100, [secret])


# --- errors with status 200 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "rate limited upstream", "code": 429}}, 429),
        ({"error": {"message": "x", "code": "503"}}, 503),
        ({"error": {"message": "x", "status": 401}}, 401),
        ({"error": {"type": "rate_limit_error", "message": "x"}}, 429),
        ({"error": "Too many requests"}, 429),
        ({"error": {"message": "Provider returned error"}}, 502),
        ({"error": {"message": "x", "code": "model_not_found"}}, 502),
        ([{"error": {"message": "x", "code": 400}}], 400),
        ({"object": "error", "message": "x", "code": 400}, 400),
        ({"message": "x", "code": 404}, 404),
        ({"choices": [], "error": {"message": "x", "code": 500}}, 500),
        ({"choices": [{"error": {"message": "x", "code": 429}, "finish_reason": "error", "message": {}}]}, 429),
        ({"choices": [{"finish_reason": "error", "message": {"content": "So it"}}]}, 502),
        ({"choices": [{"finish_reason": "insufficient_system_resource", "message": {"content": "So it"}}]}, 502),
        ({"choices": [{"finish_reason": "stop", "message": {"content": "So."}}], "error": {"code": 502}}, 502),
    ],
)
def test_an_error_in_place_of_a_reply_has_the_status_that_it_names(body, status):
    with pytest.raises(ErrorInReply) as caught:
        read_completion(json.dumps(body).encode(), "chat", 0.1)
    assert caught.value.status == status
    assert words_of(caught.value.body)


# --- what is kept of a reply --------------------------------------------------------------------------------------


def test_a_plain_text_is_kept_as_it_is_and_more_is_kept_whole():
    plain = read_completion(completion(content=" So. ", role="assistant", refusal=None, tool_calls=[]), "chat", 0.1)
    assert (plain.text, plain.message) == (" So. ", None)
    thought = read_completion(completion(content="So.", reasoning_content="Hm."), "chat", 0.1)
    assert (thought.text, json.loads(thought.message)) == ("So.", {"content": "So.", "reasoning_content": "Hm."})
    parts = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]
    typed = read_completion(completion(content=parts), "chat", 0.1)
    assert (typed.text, json.loads(typed.message)) == ("", {"content": parts})
    nothing = read_completion(completion(content=None), "chat", 0.1)
    assert (nothing.text, nothing.message) == ("", None)


@pytest.mark.parametrize(
    ("usage", "prompt", "completion_", "thinking"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}, 9, 5, 3),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 44}, 9, 35, None),  # thoughts in the total alone
        ({"prompt_tokens": 9.0, "completion_tokens": 5}, 9, 5, None),
        ({"prompt_tokens": 2**63, "completion_tokens": -1}, None, None, None),
        ({"prompt_tokens": 1e300, "completion_tokens": True}, None, None, None),
        ({"prompt_tokens": "9", "completion_tokens": None}, None, None, None),
        ([], None, None, None),
    ],
)
def test_only_plausible_token_counts_are_used(usage, prompt, completion_, thinking):
    reply = read_completion(completion(usage=usage, content="So."), "chat", 0.1)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.thinking_tokens) == (prompt, completion_, thinking)


# --- streams ------------------------------------------------------------------------------------------------------


def stream(*chunks, end="data: [DONE]\n\n", before="", newline="\n") -> bytes:
    text = before + "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + end
    return text.replace("\n", newline).encode()


def delta(finish=None, **said):
    return {"id": "x", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


CHUNKS = [delta(role="assistant", content=""), delta(content="So it "), delta(content="is."), delta("stop")]
USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "before", ["", ": keep-alive\n\n: keep-alive\n\n", "\ufeff", "event: message\nid: 1\n", "retry: 3\n\n"]
)
def test_a_stream_adds_up_to_a_reply(before, newline):
    reply = read_completion(stream(*CHUNKS, USAGE, before=before, newline=newline), "chat", 0.1)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == (
        "So it is.",
        "stop",
        9,
        5,
    )
    assert reply.message is None


def test_a_stream_of_a_completion_of_thoughts_and_of_parts():
    text = [{"choices": [{"index": 0, "text": t, "finish_reason": f}]} for t, f in (("So ", None), ("is.", "length"))]
    assert read_completion(stream(*text), "completion", 0.1).text == "So is."
    thoughts = [delta(reasoning_content="Hm"), delta(reasoning_content="…"), delta(content="So."), delta("stop")]
    reply = read_completion(stream(*thoughts), "chat", 0.1)
    assert (reply.text, json.loads(reply.message)["reasoning_content"]) == ("So.", "Hm…")
    parts = [delta(content=[{"type": "text", "text": "So "}]), delta(content="it is."), delta("stop")]
    assert visible(read_completion(stream(*parts), "chat", 0.1)).text == "So it is."


def test_a_stream_may_begin_with_empty_log_probabilities():
    top = [{"token": "A", "logprob": -0.5}]
    parts = (
        {"delta": {"role": "assistant", "content": ""}, "logprobs": {"content": [], "refusal": None}},
        {"delta": {"content": "A"}, "logprobs": {"content": [{"token": "A", "top_logprobs": top}]}},
        {"delta": {}, "logprobs": None, "finish_reason": "length"},
    )
    raw = b"".join(b"data: " + json.dumps({"choices": [part]}).encode() + b"\n\n" for part in parts)
    reply = read_completion(raw, "chat", 0.1, rated=True)
    assert json.loads(reply.message) == {"top_logprobs": [["A", -0.5]]}


def test_a_stream_that_breaks_off_is_no_reply_unless_it_was_finished():
    with pytest.raises(NotACompletion):
        read_completion(stream(*CHUNKS[:3], end=""), "chat", 0.1)
    assert read_completion(stream(*CHUNKS, end=""), "chat", 0.1).text == "So it is."
    with pytest.raises(NotACompletion):
        read_completion(stream(*CHUNKS, end='data: {"choices": [{"ind'), "chat", 0.1)


def test_an_error_in_a_stream_is_told():
    for chunk in ({"error": {"message": "overloaded", "code": 503}}, {"message": "overloaded", "code": 503}):
        with pytest.raises(ErrorInReply) as caught:
            read_completion(stream(*CHUNKS[:2], chunk, end=""), "chat", 0.1)
        assert caught.value.status == 503


def test_a_servers_words_hold_no_terminal_escapes_and_no_secrets():
    raw = json.dumps({"error": {"message": "\x1b[31mno\x1b[0m \x1b]0;title\x07key sk-1234567 for p%40ss"}}).encode()
    assert words_of(raw, spelled(["sk-1234567", "p@ss"])) == "no key *** for ***"
