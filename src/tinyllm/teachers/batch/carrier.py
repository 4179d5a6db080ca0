"""One batch on its way: sent, noted in the journal, found again, waited for, fetched."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinyllm import config
from tinyllm.errors import TeacherError
from tinyllm.teachers.base import Request
from tinyllm.teachers.batch.client import BatchClient, BatchPace, UnansweredError, UnknownError
from tinyllm.teachers.batch.journal import Journal, JournalEntry
from tinyllm.teachers.batch.rows import endpoint_of, request_rows
from tinyllm.teachers.http.refusals import hide
from tinyllm.teachers.manners import Manners

_FILE_BYTES = 100_000_000  # OpenAI takes files of up to 200 MB
_FRESH_S = 2 * 86400.0  # results of a batch older than this may be gone; those of a younger one are not there yet


@dataclass(frozen=True, slots=True)
class Over:
    """How a batch ended.

    Attributes:
        rows: its results, also failed ones; None if the provider refused the batch as a whole and did nothing.
        words: why it refused.
        cancelled: whether somebody ended it, at the provider.
        took_s: seconds from its start to its end; 0 if the provider does not tell.
    """

    rows: list[dict[str, Any]] | None
    words: str
    cancelled: bool
    took_s: float


class Carrier:
    """Takes batches to one provider and brings back what came of them."""

    def __init__(self, spec: config.OpenAIBatchTeacher, client: BatchClient, journal: Journal, pace: BatchPace) -> None:
        self._spec = spec
        self._client = client
        self._journal = journal
        self._pace = pace

    async def send(self, asked: Sequence[tuple[str, Request]], manners: Manners) -> JournalEntry:
        """Start a batch of the first of some requests, as many as fit into a file. The journal is locked.

        Killed at any moment, this leaves an entry from which `identified` finds out whether there is a batch, or
        none, and then there is no batch.

        Args:
            asked: keys and requests.
        """
        keys, lines = await asyncio.to_thread(
            request_rows, asked, self._spec.model, self._spec.form, manners, _FILE_BYTES
        )
        token = uuid.uuid4().hex
        file = await self._client.upload(f"tinyllm-{token}.jsonl", lines)
        entry = JournalEntry(token, tuple(keys), file, time.time())
        await asyncio.to_thread(self._journal.write, entry)
        try:
            batch_id = await self._client.create(token, file, endpoint_of(self._spec.form))
        except UnansweredError:
            raise  # it may have been started all the same
        except TeacherError:
            await asyncio.to_thread(self._journal.forget, token, keys)
            raise
        entry = replace(entry, batch=batch_id)
        await asyncio.to_thread(self._journal.write, entry)
        return entry

    async def identified(self, entry: JournalEntry) -> JournalEntry | None:
        """Find out a batch's id, if whoever sent it was killed before it was told; None if there is no such batch."""
        if entry.batch is not None:
            return entry
        async with self._journal.locked():  # so its sender is not at work any more
            now = await asyncio.to_thread(self._journal.get, entry.token)
            if now is None or now.batch is not None:
                return now
            try:
                found = await self._client.find(entry.token, entry.file)
            except TeacherError as error:
                raise self._lost(entry, error, "that may have been started with file " + entry.file) from None
            if found is None:
                await asyncio.to_thread(self._journal.forget, entry.token, entry.keys)
                return None
            now = replace(now, batch=str(found["id"]))
            await asyncio.to_thread(self._journal.write, now)
            return now

    async def until_over(self, entry: JournalEntry, tell: Callable[[int], None]) -> Over:
        """Wait until a batch is over, and fetch what it has brought.

        Args:
            tell: told at every look how many of its requests are done.

        Raises:
            TeacherError: the provider does not know the batch, or has been silent for long.
        """
        heard = time.monotonic()
        while True:
            try:
                state = await self._state(entry)
                tell(_done(state))
                if _is_over(state):
                    rows, words = await self._rows(entry, state), hide(_words(state), self._client.secrets)
                    return Over(rows, words, _status(state) == "cancelled", _took_s(state))
                heard = time.monotonic()
            except UnansweredError:  # an outage must not end a run that waits for a day, nor results that come late
                if time.monotonic() - heard > self._pace.silence_s:
                    raise
            await asyncio.sleep(self._pace.poll_s * random.uniform(0.8, 1.2))

    async def _state(self, entry: JournalEntry) -> dict[str, Any]:
        try:
            return await self._client.batch(str(entry.batch))
        except UnknownError as error:
            raise self._lost(entry, error, str(entry.batch)) from None

    def _lost(self, entry: JournalEntry, error: TeacherError, which: str) -> TeacherError:
        first = str(error).splitlines()[0]
        return TeacherError(
            f"{first}\n  It was asked for the batch {which}, with {len(entry.keys)} requests, which may be gone, or "
            "not for this key to see. Use the key that it was sent with. Or delete "
            f"{self._journal.path(entry.token)}, and the requests are sent, and paid, anew."
        )

    async def _rows(self, entry: JournalEntry, state: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        files = [state[name] for name in ("output_file_id", "error_file_id") if state.get(name)]
        if not files and _status(state) == "failed":
            return None
        if _count(state, "completed") and not state.get("output_file_id"):
            raise UnansweredError(f"{self._client.url} names no file with the results of batch {entry.batch}")
        rows: list[dict[str, Any]] = []
        for file in files:
            try:
                rows += await self._client.rows(str(file))
            except UnknownError as error:
                if time.time() - entry.created < _FRESH_S:
                    raise UnansweredError(str(error)) from None
        return rows


# --- how a batch stands -------------------------------------------------------------------------------------------


def _status(state: Mapping[str, Any]) -> str:
    return str(state.get("status")).casefold()


def _is_over(state: Mapping[str, Any]) -> bool:
    return _status(state) in ("completed", "expired", "cancelled", "failed")


def _done(state: Mapping[str, Any]) -> int:
    return _count(state, "completed") + _count(state, "failed")


def _count(state: Mapping[str, Any], name: str) -> int:
    counts = state.get("request_counts")
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if type(count) is int else 0


def _words(state: Mapping[str, Any]) -> str:
    """The provider's own words about what is wrong with a batch; the first three if there are many."""
    errors = state.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    told = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    words = [": ".join(str(row[k]) for k in ("code", "message") if row.get(k)) for row in told]
    return "; ".join(dict.fromkeys(words[:3])) or "(it gave no reason)"


def _took_s(state: Mapping[str, Any]) -> float:
    times = [state.get(name) for name in ("created_at", "completed_at", "expired_at", "cancelled_at")]
    began, *ends = [float(t) if isinstance(t, int | float) else None for t in times]
    end = next((e for e in ends if e is not None), None)
    return 0.0 if began is None or end is None else max(0.0, end - began)
