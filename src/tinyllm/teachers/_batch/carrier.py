"""Sends a batch, records it in the journal, finds it again, waits for it, and fetches its results."""

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
from tinyllm.teachers._batch.client import KEPT, BatchClient, BatchPace, UnansweredError, UnknownError
from tinyllm.teachers._batch.journal import Journal, JournalEntry
from tinyllm.teachers._batch.rows import endpoint_of, request_rows
from tinyllm.teachers.base import Request
from tinyllm.teachers.manners import Manners

_FILE_BYTES = 100_000_000  # OpenAI takes files of up to 200 MB
_FRESH_S = 2 * 86400.0  # if results are missing: before this they are not there yet, later they are deleted
_LAST_S = 1e11  # the year 5138
_KEPT_S = 45 * 86400.0  # an older batch may be deleted; OpenAI keeps results for 30 days


@dataclass(frozen=True, slots=True)
class Over:
    """How a batch ended.

    Attributes:
        rows: its results, including failures; None if the provider refused the whole batch and did nothing.
        words: why it was refused.
        cancelled: whether it was cancelled at the provider.
        took_s: seconds from start to end; 0 if the provider does not report them.
    """

    rows: list[dict[str, Any]] | None
    words: str
    cancelled: bool
    took_s: float


class Carrier:
    """Sends batches to one provider and fetches their results."""

    def __init__(self, spec: config.OpenAIBatchTeacher, client: BatchClient, journal: Journal, pace: BatchPace) -> None:
        self._spec = spec
        self._client = client
        self._journal = journal
        self._pace = pace

    async def send(
        self, asked: Sequence[tuple[str, Request]], manners: Manners, is_wanted: Callable[[str], bool]
    ) -> JournalEntry | None:
        """Start a batch with the first requests, as many as fit into a file. The journal must be locked.

        If the process is killed, either an entry remains, and `identified` finds out whether there is a batch; or no
        entry remains, and there is no batch.

        Args:
            asked: keys and requests.
            is_wanted: returns whether anyone still waits for the reply to a key.

        Returns:
            None if nobody waits any more; then no batch was started.
        """
        keys, lines = await asyncio.to_thread(
            request_rows, asked, self._spec.model, self._spec.form, manners, _FILE_BYTES
        )
        token = uuid.uuid4().hex
        if not any(map(is_wanted, keys)):
            return None
        file = await self._client.upload(f"tinyllm-{token}.jsonl", lines)
        if not any(map(is_wanted, keys)):  # the run was interrupted in the meantime
            return None
        entry = JournalEntry(token, tuple(keys), file, self._client.clock or time.time())
        await asyncio.to_thread(self._journal.write, entry)
        try:
            batch_id = await self._client.create(token, file, endpoint_of(self._spec.form))
        except UnansweredError:
            raise  # the batch may have been started
        except TeacherError:
            await asyncio.to_thread(self._journal.forget, token, keys)
            raise
        entry = replace(entry, batch=batch_id)
        await asyncio.to_thread(self._journal.write, entry)
        return entry

    async def identified(self, entry: JournalEntry) -> JournalEntry | None:
        """Find the id of a batch whose sender was killed before it got the id; None if there is no such batch."""
        if entry.batch is not None:
            return entry
        async with self._journal.locked():  # so the sender has ended
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
        """Wait until a batch has ended, and fetch its results.

        Args:
            tell: receives the number of finished requests at every poll.

        Raises:
            TeacherError: the provider does not know the batch, or has not answered for too long.
        """
        began = heard = time.monotonic()
        while True:
            late = time.monotonic() - heard > self._pace.silence_s
            try:
                state = await self._state(entry)
                if state is None:
                    return Over([], "", cancelled=False, took_s=0.0)
                tell(min(_count(state, "completed") + _count(state, "failed"), len(entry.keys)))
                if _status(state) in ("completed", "expired", "cancelled", "failed"):
                    rows, words = await self._rows(entry, state, late), self._client.clean(_words(state))
                    began_at, ended_at = _seconds(state.get("created_at")), _ended(state)
                    took_s = 0.0 if began_at is None or ended_at is None else max(0.0, ended_at - began_at)
                    return Over(rows, words, _status(state) == "cancelled", took_s)
                heard = time.monotonic()
                if heard - began > self._pace.over_s:
                    raise TeacherError(
                        f"Teacher '{self._spec.name}': {self._client.url} says that batch {entry.batch} is "
                        f"'{self._client.clean(_status(state))}' after {(heard - began) / 3600:.0f} h.\n"
                        f"  To do: run again later, or cancel the batch there. {KEPT}"
                    )
            except UnansweredError:  # a short outage, or results that come late, must not end the run
                if late:
                    raise
            await asyncio.sleep(self._pace.poll_s * random.uniform(0.8, 1.2))

    async def _state(self, entry: JournalEntry) -> dict[str, Any] | None:
        """Return the state of a batch; None if it is so old that the provider may have deleted it."""
        try:
            return await self._client.batch(str(entry.batch))
        except UnknownError as error:
            # Both times are from the provider's clock, because the clock of this machine may have been changed.
            if self._client.clock is not None and self._client.clock - entry.created > _KEPT_S:
                return None
            raise self._lost(entry, error, str(entry.batch)) from None

    def _lost(self, entry: JournalEntry, error: TeacherError, which: str) -> TeacherError:
        first = str(error).splitlines()[0]
        return TeacherError(
            f"{first}\n  The batch {which} with {len(entry.keys)} requests was not found. It may be deleted, or belong "
            "to another API key. Use the key with which it was sent. Or delete "
            f"{self._journal.path(entry.token)}; then the requests are sent and paid again."
        )

    async def _rows(self, entry: JournalEntry, state: Mapping[str, Any], waited: bool) -> list[dict[str, Any]] | None:
        """Fetch the results of a batch that has ended; None if nothing was done.

        If the provider does not know a file, the file is not there yet, or it was deleted. The end of the batch by the
        provider's clock decides between the two; if it is unknown, `waited` (whether we waited long enough) decides.
        """
        files = [state[name] for name in ("output_file_id", "error_file_id") if isinstance(state.get(name), str)]
        files = [file for file in files if file]
        if not files and _status(state) == "failed":
            return None
        if _count(state, "completed") and not state.get("output_file_id"):
            raise UnansweredError(f"{self._client.url} names no file with the results of batch {entry.batch}")
        rows: list[dict[str, Any]] = []
        for file in files:
            try:
                rows += await self._client.rows(file)
            except UnknownError as error:
                ended, now = _ended(state), self._client.clock
                age_s = None if ended is None or now is None else now - ended
                if not waited if age_s is None else age_s < _FRESH_S:
                    raise UnansweredError(str(error)) from None
        return rows


def _status(state: Mapping[str, Any]) -> str:
    return str(state.get("status")).casefold()


def _count(state: Mapping[str, Any], name: str) -> int:
    counts = state.get("request_counts")
    count = counts.get(name) if isinstance(counts, dict) else None
    return count if type(count) is int and count > 0 else 0


def _words(state: Mapping[str, Any]) -> str:
    """Return the provider's messages about a batch, at most three."""
    errors = state.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    told = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    words = [": ".join(str(row[k]) for k in ("code", "message") if row.get(k)) for row in told]
    return "; ".join(dict.fromkeys(words[:3])) or "(it gave no reason)"


def _ended(state: Mapping[str, Any]) -> float | None:
    moments = (_seconds(state.get(name)) for name in ("completed_at", "expired_at", "cancelled_at"))
    return next((moment for moment in moments if moment is not None), None)


def _seconds(value: Any) -> float | None:
    """Return a time that a provider reports; None if it is not a time."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LAST_S
    return float(value) if is_one else None
