"""The Batch protocol with a real local server. Processes are killed at every critical moment."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from batch_asker import SAMPLING, ask, requests, teacher
from fake_batches import FakeBatches, bad, good, result, status, unasked
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import reply_key
from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers import make_teacher
from tinyllm.teachers._batch.journal import Journal, JournalEntry
from tinyllm.teachers._batch.rows import Missed, read_rows, request_rows
from tinyllm.teachers._batch.teacher import OpenAIBatchTeacher
from tinyllm.teachers._openai import OpenAITeacher
from tinyllm.teachers.base import Reply, Request, RequestFailed, Resumable
from tinyllm.teachers.manners import Manners

KEY = "sk-secret-0123456789"


async def interrupted(url: str, journal: Path, count: int) -> None:
    """Send a batch and go."""
    with contextlib.suppress(asyncio.CancelledError):
        async with teacher(url, journal) as t:
            asked = [asyncio.create_task(t.ask(r)) for r in requests(count)]
            while not t.note():
                await asyncio.sleep(0.01)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked)


def run(journal: Path, count: int = 3, *, server: FakeBatches | None = None, **how) -> tuple[FakeBatches, list[object]]:
    async def both():
        async with server or FakeBatches() as there:
            return there, await ask(there.url, journal, count, **how)

    return asyncio.run(both())


def texts(count: int) -> list[str]:
    return [f"Re: Why {i}?" for i in range(count)]


def entries(journal: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in journal.glob("*/*.json")]


@contextlib.asynccontextmanager
async def asker(url: str, journal: Path, count: int):
    """Another process that asks."""
    script = Path(__file__).parent / "batch_asker.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, url, journal, str(count), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# --- the way it should go ---------------------------------------------------------------------------------------


def test_requests_are_asked_in_batches_of_the_size_that_is_set(tmp_path):
    server, replies = run(tmp_path, 7, requests_per_batch=3)
    assert replies == texts(7)
    assert server.sizes == [3, 3, 1]
    assert set(server.sent.values()) == {1}


def test_a_row_is_what_the_endpoint_would_be_asked(tmp_path):
    asked = Request("q", Prompt(messages=(Message("system", "Explain."), Message("user", "Why?"))), SAMPLING, sample=2)
    server, replies = run(tmp_path, asked=[asked], form="chat")
    assert replies == ["Re: Why?"]
    (batch,) = server.batches.values()
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")
    (row,) = server.rows(batch)
    spec = config.OpenAIBatchTeacher(name="t", kind="openai-batch", model="m", base_url=server.url)
    assert row["custom_id"] == reply_key(OpenAIBatchTeacher(spec, tmp_path).identity, asked)
    assert len(row["custom_id"]) == 64
    assert row["body"] == {
        "model": "m",
        "max_tokens": 32,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 5,
        "messages": [{"role": "system", "content": "Explain."}, {"role": "user", "content": "Why?"}],
        "stop": ["\n\n"],
    }


def test_a_reply_is_read_with_its_usage(tmp_path):
    async def both():
        async with FakeBatches() as server, teacher(server.url, tmp_path) as t:
            return await t.ask(requests(1)[0])

    reply = asyncio.run(both())
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == (
        "Re: Why 0?",
        "stop",
        7,
        5,
    )
    assert reply.latency_s == 7.0  # of the batch


def test_replies_are_shared_with_the_chat_endpoint():
    batch = config.OpenAIBatchTeacher(name="a", kind="openai-batch", model="m", base_url="http://h/v1/")
    chat = config.OpenAITeacher(name="b", kind="openai", model="m", base_url="http://h/v1/")
    assert dict(make_teacher(batch, [], Path("j")).identity) == dict(OpenAITeacher(chat).identity)


def test_a_batch_teacher_is_resumable():
    spec = config.OpenAIBatchTeacher(name="a", kind="openai-batch", model="m")
    made = make_teacher(spec, [], Path("j"))
    assert isinstance(made, Resumable)
    assert made.resumable
    assert made.concurrency >= spec.requests_per_batch


def test_requests_that_come_one_by_one_gather(tmp_path):
    async def both():
        async with FakeBatches() as server, teacher(server.url, tmp_path, pace={"gather_s": 0.5}) as t:
            tasks = []
            for request in requests(4):
                tasks.append(asyncio.create_task(t.ask(request)))
                await asyncio.sleep(0.01)
            await asyncio.gather(*tasks)
            return server.sizes

    assert asyncio.run(both()) == [4]


def test_the_same_request_asked_twice_is_sent_once(tmp_path):
    server, replies = run(tmp_path, asked=requests(2) * 2)
    assert replies == texts(2) * 2
    assert set(server.sent.values()) == {1}


def test_a_cancelled_request_is_not_sent(tmp_path):
    async def both():
        async with FakeBatches() as server, teacher(server.url, tmp_path, pace={"gather_s": 0.3}) as t:
            first, second = (asyncio.create_task(t.ask(r)) for r in requests(2))
            await asyncio.sleep(0.01)
            first.cancel()
            await second
            return server.sizes

    assert asyncio.run(both()) == [1]


def test_the_note_shows_the_providers_progress(tmp_path):
    async def both():
        async with FakeBatches(looks=None) as server:
            t = teacher(server.url, tmp_path, requests_per_batch=2)
            assert t.note() == ""
            with contextlib.suppress(asyncio.CancelledError):
                async with t:
                    asked = [asyncio.create_task(t.ask(r)) for r in requests(4)]
                    while "2 of 4" not in t.note():
                        await asyncio.sleep(0.01)
                    note = t.note()
                    for task in asked:
                        task.cancel()
                    await asyncio.gather(*asked)
            return note

    assert asyncio.run(both()) == "2 batches at the provider, 2 of 4 done"


# --- processes that are killed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fault", "lost"),
    [
        ("upload", "hang", False),  # the file is there, and nobody knows
        ("create", "hang", True),  # the batch is there, and nobody knows
        ("create", "stall", False),  # noted, and never started
        ("look", None, True),
    ],
    ids=["uploading", "before the id is told", "before the batch is started", "polling"],
)
def test_another_process_collects_what_a_killed_one_has_sent(tmp_path, step, fault, lost):
    """Every request is paid once, wherever the kill strikes."""

    async def both():
        async with FakeBatches(looks=None) as server:
            server.faults[step] = [fault] if fault else []
            async with asker(server.url, tmp_path, 5) as first:
                await server.reached[step].wait()
                first.send_signal(signal.SIGKILL)
                assert await first.wait() == -signal.SIGKILL
            server.looks = 1
            for batch in server.batches.values():
                batch["looks"] = 1
            before = server.calls["upload"]
            async with asker(server.url, tmp_path, 5) as second:
                out, err = await second.communicate()
            return server, before, out.decode(), err.decode()

    server, before, out, err = asyncio.run(both())
    assert out.strip() == str(texts(5)), err
    assert set(server.sent.values()) == {1}
    assert len(server.sent) == 5
    assert server.calls["upload"] - before == (0 if lost else 1)
    assert entries(tmp_path) == []


def test_a_batch_that_was_over_is_fetched_again_if_its_replies_were_not_stored(tmp_path):
    async def both():
        async with FakeBatches() as server:
            with contextlib.suppress(KeyError):  # the disk, say
                async with teacher(server.url, tmp_path) as t:
                    await asyncio.gather(*(t.ask(r) for r in requests(3)))
                    raise KeyError
            (entry,) = entries(tmp_path)
            assert len(entry["keys"]) == 3
            return server, await ask(server.url, tmp_path, 5)

    server, replies = asyncio.run(both())
    assert replies == texts(5)
    assert server.sizes == [3, 2]
    assert entries(tmp_path) == []


def test_replies_that_were_not_asked_for_stay_in_the_journal(tmp_path):
    async def both():
        async with FakeBatches(looks=None) as server:
            await interrupted(server.url, tmp_path, 3)
            server.batches["batch-0"]["looks"] = 0
            assert await ask(server.url, tmp_path, 1) == texts(1)
            (entry,) = entries(tmp_path)
            assert len(entry["keys"]) == 2
            assert await ask(server.url, tmp_path, 3, asked=requests(3)[1:]) == texts(3)[1:]
            return server

    server = asyncio.run(both())
    assert set(server.sent.values()) == {1}
    assert entries(tmp_path) == []


def test_a_reply_that_came_before_it_was_asked_for_is_kept(tmp_path):
    async def both():
        async with FakeBatches() as server:
            with contextlib.suppress(KeyError):
                async with teacher(server.url, tmp_path) as t:
                    await asyncio.gather(*(t.ask(r) for r in requests(3)))
                    raise KeyError
            async with teacher(server.url, tmp_path) as t:
                replies = [await t.ask(r) for r in requests(3)]
            return server, [reply.text for reply in replies]

    server, replies = asyncio.run(both())
    assert replies == texts(3)
    assert server.calls["content"] == 2  # once a process


def test_two_that_ask_the_same_at_once_send_it_once(tmp_path):
    async def both():
        async with (
            FakeBatches(looks=None) as server,
            teacher(server.url, tmp_path) as a,
            teacher(server.url, tmp_path) as b,
        ):
            asked = [asyncio.create_task(t.ask(r)) for t in (a, b) for r in requests(4)]
            while not (a.note() and b.note()):
                await asyncio.sleep(0.01)
            server.batches["batch-0"]["looks"] = 0
            return server, [reply.text for reply in await asyncio.gather(*asked)]

    server, replies = asyncio.run(both())
    assert replies == texts(4) * 2
    assert server.sizes == [4]
    assert entries(tmp_path) == []


# --- calls that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", ["metadata", "input_file_id"])
def test_a_batch_whose_creation_was_not_confirmed_is_found_not_made_again(tmp_path, hidden):
    server = FakeBatches(hidden=hidden, crowd=5)  # so it is on a later page
    server.faults["create"] = ["drop"]
    server, replies = run(tmp_path, 3, server=server)
    assert replies == texts(3)
    assert set(server.sent.values()) == {1}
    assert server.calls["create"] == 1


def test_a_batch_that_was_never_made_is_made(tmp_path):
    server = FakeBatches()
    server.faults["create"] = ["refuse", status(503, "busy")]
    server, replies = run(tmp_path, 3, server=server)
    assert replies == texts(3)
    assert server.sizes == [3]


@pytest.mark.parametrize("step", ["upload", "list", "look", "content"])
@pytest.mark.parametrize(
    "fault", ["drop", "refuse", status(502, "bad gateway"), status(429, "slow down", "0.01")],
    ids=["drop", "refuse", "502", "429"],
)  # fmt: skip
def test_a_call_with_a_temporary_failure_is_repeated(tmp_path, step, fault):
    server = FakeBatches()
    server.faults[step] = [fault] * 2
    server.faults["create"] = ["drop"] if step == "list" else []
    server, replies = run(tmp_path, 2, server=server)
    assert replies == texts(2)
    assert set(server.sent.values()) == {1}


def test_results_that_are_named_late_are_waited_for(tmp_path):
    server = FakeBatches()
    counts = {"total": 1, "completed": 1, "failed": 0}
    early = {"id": "batch-0", "status": "completed", "request_counts": counts, "output_file_id": None}
    server.faults["look"] = [lambda _: web.json_response(early)]
    server, replies = run(tmp_path, 1, server=server)
    assert replies == texts(1)
    assert server.sizes == [1]


def test_half_a_file_of_results_is_fetched_again(tmp_path):
    server = FakeBatches()
    server.faults["content"] = [lambda s: web.Response(body=list(s.files.values())[-1][:-9])]
    server, replies = run(tmp_path, 3, server=server)
    assert replies == texts(3)
    assert set(server.sent.values()) == {1}


def test_a_provider_that_is_away_while_a_batch_runs_is_waited_for(tmp_path):
    server = FakeBatches()
    server.faults["look"] = [status(503)] * 8  # three attempts are made each time
    server, replies = run(tmp_path, 1, server=server)
    assert replies == texts(1)
    assert server.calls["look"] >= 9


def test_silence_is_counted_from_the_last_answer(tmp_path):
    server = FakeBatches(looks=140)  # 8 ms apart at the least
    server.faults["look"] = [*[None] * 140, status(503)]
    server, replies = run(tmp_path, 1, server=server, pace={"silence_s": 1.0, "attempts": 1})
    assert replies == texts(1)


def test_a_provider_that_stays_away_is_given_up_and_the_batch_stays_noted(tmp_path):
    server = FakeBatches()
    server.faults["look"] = [status(503, "closed")] * 1000
    server, (error,) = run(tmp_path, 1, server=server, pace={"silence_s": 0.2})
    assert isinstance(error, TeacherError)
    assert "closed" in str(error)
    assert [entry["batch"] for entry in entries(tmp_path)] == ["batch-0"]


def test_a_lost_answer_and_a_list_that_is_closed_leave_the_batch_to_the_next_run(tmp_path):
    async def both():
        async with FakeBatches() as server:
            server.faults["create"], server.faults["list"] = ["drop"], [status(403, "not for you")]
            (error,) = await ask(server.url, tmp_path, 1)
            return server, error, await ask(server.url, tmp_path, 1)

    server, error, replies = asyncio.run(both())
    assert isinstance(error, TeacherError)
    assert replies == texts(1)
    assert set(server.sent.values()) == {1}


@pytest.mark.parametrize(
    ("step", "fault", "words"),
    [
        ("upload", status(401, "Incorrect API key"), "api_key_env"),
        ("upload", status(404, "no such page"), "kind: openai"),
        ("upload", status(429, "You exceeded your quota: insufficient_quota"), "no credit"),
        ("create", status(400, "billing_hard_limit_reached"), "no credit"),
        ("create", status(400, "endpoint not taken"), "endpoint not taken"),
        ("look", status(401, "Incorrect API key"), "api_key_env"),
    ],
)  # fmt: skip
def test_a_refused_call_says_what_to_do(tmp_path, step, fault, words):
    server = FakeBatches()
    server.faults[step] = [fault]
    server, replies = run(tmp_path, 2, server=server)
    assert all(isinstance(reply, TeacherError) and words in str(reply) for reply in replies)
    assert len(entries(tmp_path)) == (step == "look")  # a batch that runs is not forgotten


def test_nothing_answers(tmp_path):
    (error,) = asyncio.run(ask("http://127.0.0.1:9/v1", tmp_path, 1))
    assert isinstance(error, TeacherError)
    assert "127.0.0.1:9" in str(error)


# --- batches that fail ------------------------------------------------------------------------------------------


def once(first, then=good):
    """Answer each request in one way, and when it comes again in another."""
    seen: set[str] = set()

    def answer(row):
        again = row["custom_id"] in seen
        seen.add(row["custom_id"])
        return (then if again else first)(row)

    return answer


@pytest.mark.parametrize(
    "first",
    [
        lambda row: bad(row, 500, "oops"), lambda row: bad(row, 429, "slow"), unasked, lambda row: None,
        lambda row: result(row, 200, {"choices": []}),
    ],
    ids=["500", "429", "expired", "not told", "no completion"],
)  # fmt: skip
def test_unanswered_requests_are_sent_in_another_batch(tmp_path, first):
    def answer(row):
        return some(row) if row["body"]["prompt"] == "Why 1?" else good(row)

    some = once(first)
    server, replies = run(tmp_path, 3, server=FakeBatches(answer=answer, end=["expired", "completed"]))
    assert replies == texts(3)
    assert server.sizes == [3, 1]
    assert entries(tmp_path) == []


def test_a_request_that_no_batch_answers_fails_after_its_attempts(tmp_path):
    def answer(row):
        return bad(row, 500, f"oops {KEY}") if row["body"]["prompt"] == "Why 1?" else good(row)

    server, (fine, error) = run(tmp_path, 2, server=FakeBatches(answer=answer))
    assert fine == "Re: Why 0?"
    assert isinstance(error, RequestFailed)
    assert (error.reason, "oops" in str(error)) == ("failed", True)
    assert server.sizes == [2, 1, 1]


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (400, "This model's maximum context length is 10 tokens: context_length_exceeded", "too_long"),
        (400, "The response was filtered: content_filter", "content_filter"),
        (400, "'tools' is not supported", "bad_request"),
    ],
)
def test_a_prompt_that_is_not_taken_fails_alone_and_at_once(tmp_path, code, message, reason):
    def answer(row):
        return bad(row, code, message) if row["body"]["prompt"] == "Why 1?" else good(row)

    server, (fine, error) = run(tmp_path, 2, server=FakeBatches(answer=answer))
    assert fine == "Re: Why 0?"
    assert isinstance(error, RequestFailed)
    assert (error.reason, message.split()[0] in str(error)) == (reason, True)
    assert server.sizes == [2]


@pytest.mark.parametrize(("code", "words"), [(404, "The model m is gone"), (429, "insufficient_quota")])
def test_an_error_of_all_requests_stops_the_teacher(tmp_path, code, words):
    server, replies = run(tmp_path, 3, server=FakeBatches(answer=lambda row: bad(row, code, words)))
    assert all(isinstance(reply, TeacherError) and words in str(reply) for reply in replies)
    assert server.sizes == [3]
    assert entries(tmp_path) == []


def test_the_length_field_is_renamed_if_the_model_requires_it(tmp_path):
    def answer(row):
        if "max_tokens" in row["body"]:
            return bad(row, 400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return good(row)

    server, replies = run(tmp_path, 2, server=FakeBatches(answer=answer), max_attempts=1, learns=True)
    assert replies == texts(2)
    assert [row["body"]["max_completion_tokens"] for row in server.rows(server.batches["batch-1"])] == [32, 32]


def test_a_refused_parameter_is_reported_once_and_left_out(tmp_path):
    def answer(row):
        return bad(row, 400, "Unsupported parameter: 'seed'") if "seed" in row["body"] else good(row)

    server, replies = run(tmp_path, 2, server=FakeBatches(answer=answer), max_attempts=1, learns=True)
    assert replies == texts(2)
    assert all("seed" not in row["body"] for row in server.rows(server.batches["batch-1"]))


def test_a_cancelled_batch_is_not_sent_again(tmp_path):
    def answer(row):
        return good(row) if row["body"]["prompt"] == "Why 0?" else unasked(row, "batch_cancelled")

    server, (fine, error) = run(tmp_path, 2, server=FakeBatches(answer=answer, end=["cancelled"]))
    assert fine == "Re: Why 0?"
    assert isinstance(error, RequestFailed)
    assert "batch_cancelled" in str(error)
    assert server.sizes == [2]


def test_a_batch_that_is_refused_stops_the_teacher_in_the_servers_own_words(tmp_path):
    def refusal(row):
        return {"code": "model_not_found", "message": "The model 'm' has no batches.", "line": 1}

    _, replies = run(tmp_path, 2, server=FakeBatches(answer=refusal, end=["failed"]))
    assert all(isinstance(r, TeacherError) and "The model 'm' has no batches." in str(r) for r in replies)
    assert entries(tmp_path) == []  # nothing of it was done


def test_a_batch_that_exceeds_the_queue_is_sent_later_in_parts(tmp_path):
    def refusal(row):
        if any(batch["status"] == "failed" for batch in server.batches.values()) and len(server.batches) > 1:
            return good(row)
        return {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m."}

    server = FakeBatches(answer=refusal, end=["failed", "completed"])
    _, replies = run(tmp_path, 6, server=server)
    assert replies == texts(6)
    assert server.sizes == [6, 3, 3]
    assert set(server.sent.values()) == {1}


def test_a_provider_that_never_has_room_is_given_up(tmp_path):
    def refusal(row):
        return {"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m."}

    _, (error,) = run(tmp_path, 1, server=FakeBatches(answer=refusal, end=["failed"]), pace={"full_s": 0.1})
    assert isinstance(error, TeacherError)
    assert "Enqueued token limit" in str(error)


def test_a_batch_that_this_key_may_not_see_is_not_paid_again(tmp_path):
    async def both():
        async with FakeBatches(looks=None) as server:
            await interrupted(server.url, tmp_path, 1)
            server.batches.clear()
            return server, await ask(server.url, tmp_path, 1)

    server, (error,) = asyncio.run(both())
    assert isinstance(error, TeacherError)
    assert "batch-0" in str(error)
    assert str(next(tmp_path.glob("*/*.json"))) in str(error)
    assert server.sizes == []


@pytest.mark.parametrize("clock", [-400, 0, 400], ids=["behind", "right", "ahead"])
@pytest.mark.parametrize(
    ("days", "sizes"), [(1, [1]), (3, [1, 1]), (None, [1, 1])], ids=["not yet", "no more", "untold"]
)
def test_deleted_results_are_asked_again_and_late_results_are_awaited(tmp_path, days, sizes, clock):
    """What is gone is told by the provider's own clock; this machine's was wrong by `clock` days when it was sent."""

    async def both():
        async with FakeBatches(looks=None) as server:
            await interrupted(server.url, tmp_path, 1)
            (path,) = tmp_path.glob("*/*.json")
            entry = json.loads(path.read_text())
            path.write_text(json.dumps({**entry, "created": entry["created"] + clock * 86400}))
            ended = {} if days is None else {"completed_at": time.time() - days * 86400}
            server.batches["batch-0"] |= {"status": "completed", "output_file_id": "file-gone", "looks": 0, **ended}
            server.looks = 1
            return server, await ask(server.url, tmp_path, 1, pace={"silence_s": 0.1})

    server, (reply,) = asyncio.run(both())
    assert server.sizes == sizes
    assert isinstance(reply, TeacherError) if days == 1 else reply == "Re: Why 0?"


@pytest.mark.parametrize(("days", "told"), [(10, True), (60, False)])
def test_an_old_batch_that_the_provider_deleted_is_asked_again(tmp_path, days, told):
    async def both():
        async with FakeBatches(looks=None) as server:
            await interrupted(server.url, tmp_path, 1)
            (path,) = tmp_path.glob("*/*.json")
            entry = json.loads(path.read_text())
            path.write_text(json.dumps({**entry, "created": entry["created"] - days * 86400}))
            server.batches.clear()
            server.looks = 1
            return await ask(server.url, tmp_path, 1)

    (reply,) = asyncio.run(both())
    assert isinstance(reply, TeacherError) if told else reply == "Re: Why 0?"


# --- a server that makes no sense -------------------------------------------------------------------------------

LIMITED = ["0", "-1", "-1e9", "nan", "inf", "1e300", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "", "0.0000001"]


@pytest.mark.parametrize("after", LIMITED)
def test_a_rate_limit_without_a_useful_pause_backs_off(tmp_path, after):
    async def both():
        async with FakeBatches() as server:
            server.faults["upload"] = [status(429, retry_after=after)] * 100_000
            began = time.monotonic()
            (error,) = await ask(server.url, tmp_path, 1, pace={"silence_s": 1.0, "backoff_s": 0.05})
            return server, error, time.monotonic() - began

    server, error, took_s = asyncio.run(both())
    assert isinstance(error, TeacherError)
    assert "limiting its rate" in str(error)
    assert server.calls["upload"] <= 40
    assert took_s > 0.5, "it is given up because of the silence, not because of the nonsense"


NONSENSE = [None, True, -5, 10**400, 1.5e308, float("nan"), "many", [], {}, {"completed": "x"}, [1]]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_state_of_a_batch_is_read_without_an_error(tmp_path_factory, data):
    fields = ("request_counts", "created_at", "completed_at", "expired_at", "errors", "error_file_id", "metadata")
    odd = {name: data.draw(st.sampled_from(NONSENSE), label=name) for name in fields}
    counts = {name: data.draw(st.sampled_from(NONSENSE)) for name in ("completed", "failed", "total")}

    class Odd(FakeBatches):
        def _finish(self, batch):
            super()._finish(batch)
            batch |= odd | ({"request_counts": counts} if data.draw(st.booleans()) else {})
            if not isinstance(batch["error_file_id"], str):
                batch["error_file_id"] = None

    _, replies = run(tmp_path_factory.mktemp("odd"), 2, server=Odd())
    assert replies == texts(2)


def test_list_entries_that_are_no_batches_are_ignored(tmp_path):
    class Odd(FakeBatches):
        async def _step(self, name, request, work):
            def odd():
                page = work()
                extra = [None, 3, {}, {"id": 7}, {"id": None, "metadata": 1}, "x"]
                return {**page, "data": [*extra, *page["data"], *extra]} if name == "list" else page

            return await super()._step(name, request, odd)

    server = Odd(faults={"create": ["drop"], "upload": [], "list": [], "look": [], "content": []})
    server, replies = run(tmp_path, 2, server=server)
    assert replies == texts(2)
    assert set(server.sent.values()) == {1}


def test_a_list_without_end_is_not_taken_for_one_without_the_batch(tmp_path, monkeypatch):
    class Endless(FakeBatches):
        async def _list(self, request):
            self.calls["list"] += 1
            name = f"other-{self.calls['list']}"
            return web.json_response({"data": [{"id": name}], "has_more": True})

    monkeypatch.setattr("tinyllm.teachers._batch.client._PAGES", 30)
    server = Endless(faults={"create": ["drop"] * 9, "upload": [], "list": [], "look": [], "content": []})
    server, (error,) = run(tmp_path, 1, server=server)
    assert isinstance(error, TeacherError)
    assert "without end" in str(error)
    assert server.sizes == [1], "no second batch is paid"
    assert server.calls["list"] <= 400


@pytest.mark.parametrize("line", [b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"custom_id": 3}', b"9" * 5000])
def test_an_invalid_row_does_not_affect_others(tmp_path, line):
    class Odd(FakeBatches):
        def _file(self, content):
            if b'"response"' in content:
                content = line + b"\n" + content
            return super()._file(content)

    _, replies = run(tmp_path, 3, server=Odd())
    assert replies == texts(3)


def test_messages_of_a_server_have_no_control_sequences(tmp_path):
    said = "no\x1b]0;title\x07 \x1b[2Jmodel \u202eabc"
    server = FakeBatches(faults={"upload": [status(400, said)], "create": [], "list": [], "look": [], "content": []})
    _, (error,) = run(tmp_path, 1, server=server)
    assert "no model abc" in str(error)
    _, (error,) = run(
        tmp_path / "2", 1, server=FakeBatches(answer=lambda _: {"code": "x", "message": said}, end=["failed"])
    )
    assert "no model abc" in str(error)


def test_a_proxys_password_is_shown_nowhere(tmp_path, monkeypatch):
    secret = "s3cr%40t-pass"

    async def both():
        async with FakeBatches() as server:
            server.faults["upload"] = [status(407, f"proxy says {secret} s3cr@t-pass bWU6czNjckB0LXBhc3M=")] * 20
            proxy = server.url.removesuffix("/v1").replace("http://", f"http://me:{secret}@")
            monkeypatch.setenv("http_proxy", proxy)
            return await ask("http://teacher.example/v1", tmp_path, 1), await ask(
                "http://teacher.example:1/v1", tmp_path, 1
            )

    for (error,) in asyncio.run(both()):
        assert isinstance(error, TeacherError)
        assert "s3cr" not in str(error)
        assert "bWU6" not in str(error)


# --- nothing new after the wish to stop -------------------------------------------------------------------------


def test_a_batch_that_nobody_waits_for_any_more_is_not_started(tmp_path):
    async def both():
        async with FakeBatches() as server:
            server.faults["upload"] = ["hold"]
            async with teacher(server.url, tmp_path) as t:
                asked = [asyncio.create_task(t.ask(r)) for r in requests(2)]
                await server.reached["upload"].wait()
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
                server.release()
                await asyncio.sleep(0.3)
                assert server.calls["create"] == 0
                assert entries(tmp_path) == []
                assert (await t.ask(requests(1)[0])).text == "Re: Why 0?"  # who asks again is served
            return server

    assert asyncio.run(both()).sizes == [1]


# --- the journal and the key ------------------------------------------------------------------------------------


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("BATCH_KEY", KEY)

    def answer(row):
        return bad(row, 400, f"no, {KEY} may not")

    server, (error,) = run(tmp_path, 1, server=FakeBatches(answer=answer), api_key_env="BATCH_KEY")
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in str(error)

    def refusal(row):
        return {"code": "odd", "message": f"{KEY} is odd"}

    _, (error,) = run(tmp_path, 1, server=FakeBatches(answer=refusal, end=["failed"]), api_key_env="BATCH_KEY")
    assert "*** is odd" in str(error)

    server = FakeBatches()
    server.faults["look"] = [status(401, f"wrong key {KEY}")]
    _, (error,) = run(tmp_path, 1, server=server, api_key_env="BATCH_KEY")
    assert isinstance(error, TeacherError)
    assert KEY not in str(error)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".json" for path in files)
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_missing_key_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("BATCH_KEY", raising=False)
    with pytest.raises(TeacherError, match="BATCH_KEY"):
        teacher("http://127.0.0.1:9/v1", tmp_path, api_key_env="BATCH_KEY").check()


def test_a_damaged_entry_is_told(tmp_path):
    async def both():
        async with FakeBatches(looks=None) as server:
            await interrupted(server.url, tmp_path, 1)
            (path,) = tmp_path.glob("*/*.json")
            path.write_text("{")
            with pytest.raises(TeacherError, match="is damaged") as error:
                await ask(server.url, tmp_path, 1)
            return path, error.value

    path, error = asyncio.run(both())
    assert str(path) in str(error)


def test_a_journal_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(TeacherError, match="cannot be written"):
        asyncio.run(ask("http://127.0.0.1:9/v1", tmp_path / "journal", 1))


KEYS = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=8)


@settings(max_examples=25)  # each is put on the disk
@given(KEYS, KEYS)
def test_forgetting_removes_only_the_given_keys(tmp_path_factory, keys, gone):
    journal = Journal(tmp_path_factory.mktemp("j"), {"model": "m"})
    journal.prepare()
    entry = JournalEntry("t", tuple(keys), "file", time.time(), "batch")
    journal.write(entry)
    journal.forget("t", gone)
    left = tuple(key for key in keys if key not in gone)
    assert journal.read() == ([replace(entry, keys=left)] if left else [])


def test_journals_of_other_models_are_not_read(tmp_path):
    first, second = (Journal(tmp_path, {"model": name}) for name in "ab")
    for journal in (first, second):
        journal.prepare()
    first.write(JournalEntry("t", ("k",), "file", time.time()))
    assert len(first.read()) == 1
    assert second.read() == []


def test_no_entry_is_ignored_because_of_the_local_clock(tmp_path):
    journal = Journal(tmp_path, {})
    journal.prepare()
    journal.write(JournalEntry("old", ("k",), "file", time.time() - 60 * 86400))
    journal.write(JournalEntry("new", ("k",), "file", time.time() - 30 * 86400))
    assert [entry.token for entry in journal.read()] == ["old", "new"]


# --- rows -------------------------------------------------------------------------------------------------------


def test_a_file_holds_as_many_rows_as_fit():
    asked = [(f"k{i}", request) for i, request in enumerate(requests(5))]
    _, one = request_rows(asked[:1], "m", "completion", Manners(), 1)
    keys, lines = request_rows(asked, "m", "completion", Manners(), 2 * len(one))
    assert keys == ["k0", "k1"]
    assert [json.loads(line)["custom_id"] for line in lines.splitlines()] == keys
    assert request_rows(asked, "m", "completion", Manners(), 1)[0] == ["k0"]


ODD = [
    None,
    1,
    "x",
    [],
    {},
    {"status_code": 200},
    {"status_code": "200", "body": {"choices": [1]}},
    {"status_code": 400},
]


@given(st.lists(st.dictionaries(st.sampled_from(["custom_id", "response", "error"]), st.sampled_from(ODD))))
def test_rows_of_any_kind_are_read(rows):
    outcomes = read_rows(rows, "chat", 1.0)
    assert all(isinstance(outcome, Reply | Missed) for outcome in outcomes.values())


def test_a_reply_wins_over_a_failure_in_another_row():
    row = {"custom_id": "k", "body": {"prompt": "x"}}
    assert isinstance(read_rows([bad(row, 500, "no"), good(row), unasked(row)], "completion", 1.0)["k"], Reply)


def test_a_row_that_tells_of_a_cut_thought_is_a_reply_without_a_text():
    said = "Could not finish the message because max_tokens or model output limit was reached."
    row = {"custom_id": "k", "body": {"prompt": "x"}}
    assert read_rows([bad(row, 400, said)], "chat", 1.0)["k"] == Reply("", "length", latency_s=1.0)


def test_a_prompt_with_half_a_character_is_sent(tmp_path):
    asked = [Request("q", Prompt(text="Why \ud83d?"), SAMPLING)]
    server, replies = run(tmp_path, asked=asked)
    assert len(server.sent) == 1
    assert isinstance(replies[0], str)
