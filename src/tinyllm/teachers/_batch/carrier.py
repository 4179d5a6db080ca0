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
from tinyllm.teachers._batch.client import KEPT, BatchClient, BatchPace, UnansweredError, UnknownError
from tinyllm.teachers._batch.journal import Journal, JournalEntry
from tinyllm.teachers._batch.rows import endpoint_of, request_rows
from tinyllm.teachers.base import Request
from tinyllm.teachers.manners import Manners

_FILE_BYTES = 100_000_000  # OpenAI takes files of up to 200 MB
_FRESH_S = 2 * 86400.0  # results of a batch that ended longer ago may be gone; those of a later one are not there yet
_LAST_S = 1e11  # in the year 5138
_KEPT_S = 45 * 86400.0  # a batch that is older may be gone; OpenAI keeps results for 30 days


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

    async def send(
        self, asked: Sequence[tuple[str, Request]], manners: Manners, is_wanted: Callable[[str], bool]
    ) -> JournalEntry | None:
        """Start a batch of the first of some requests, as many as fit into a file. The journal is locked.

        Killed at any moment, this leaves an entry from which `identified` finds out whether there is a batch, or
        none, and then there is no batch.

        Args:
            asked: keys and requests.
            is_wanted: tells of a key whether anyone still waits for its reply.

        Returns:
            None: nobody waits any more, and no batch was started.
        """
        keys, lines = await asyncio.to_thread(
            request_rows, asked, self._spec.model, self._spec.form, manners, _FILE_BYTES
        )
        token = uuid.uuid4().hex
        if not any(map(is_wanted, keys)):
            return None
        file = await self._client.upload(f"tinyllm-{token}.jsonl", lines)
        if not any(map(is_wanted, keys)):  # the run was interrupted meanwhile
            return None
        entry = JournalEntry(token, tuple(keys), file, self._client.clock or time.time())
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
        began = heard = time.monotonic()
        while True:
            late = time.monotonic() - heard > self._pace.silence_s
            try:
                state = await self._state(entry)
                if state is None:
                    return Over([], "", cancelled=False, took_s=0.0)
                tell(min(_done(state), len(entry.keys)))
                if _is_over(state):
                    rows, words = await self._rows(entry, state, late), self._client.clean(_words(state))
                    return Over(rows, words, _status(state) == "cancelled", _took_s(state))
                heard = time.monotonic()
                if heard - began > self._pace.over_s:
                    raise TeacherError(
                        f"Teacher '{self._spec.name}': {self._client.url} says that batch {entry.batch} is "
                        f"'{self._client.clean(_status(state))}' after {(heard - began) / 3600:.0f} h.\n"
                        f"  To do: run again later, or cancel the batch there. {KEPT}"
                    )
            except UnansweredError:  # an outage must not end a run that waits for a day, nor results that come late
                if late:
                    raise
            await asyncio.sleep(self._pace.poll_s * random.uniform(0.8, 1.2))

    async def _state(self, entry: JournalEntry) -> dict[str, Any] | None:
        """Return how a batch stands; None if it is so old that the provider may have forgotten it."""
        try:
            return await self._client.batch(str(entry.batch))
        except UnknownError as error:
            # Both moments are told by the provider's clock: the one of this machine may have been set since.
            if self._client.clock is not None and self._client.clock - entry.created > _KEPT_S:
                return None
            raise self._lost(entry, error, str(entry.batch)) from None

    def _lost(self, entry: JournalEntry, error: TeacherError, which: str) -> TeacherError:
        first = str(error).splitlines()[0]
        return TeacherError(
            f"{first}\n  It was asked for the batch {which}, with {len(entry.keys)} requests, which may be gone, or "
            "not for this key to see. Use the key that it was sent with. Or delete "
            f"{self._journal.path(entry.token)}, and the requests are sent, and paid, anew."
        )

    async def _rows(self, entry: JournalEntry, state: Mapping[str, Any], waited: bool) -> list[dict[str, Any]] | None:
        """Fetch the results of a batch that is over; None if nothing was done.

        A file that the provider does not know is not there yet, or not any more. Which of both is told by the
        provider's own moments; where it tells none, by whether it was `waited` for long enough.
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
                age_s = _age_s(state, self._client.clock)
                if not waited if age_s is None else age_s < _FRESH_S:
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
    return count if type(count) is int and count > 0 else 0


def _words(state: Mapping[str, Any]) -> str:
    """The provider's own words about what is wrong with a batch; the first three if there are many."""
    errors = state.get("errors")
    rows = errors.get("data") if isinstance(errors, dict) else errors
    told = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    words = [": ".join(str(row[k]) for k in ("code", "message") if row.get(k)) for row in told]
    return "; ".join(dict.fromkeys(words[:3])) or "(it gave no reason)"


def _took_s(state: Mapping[str, Any]) -> float:
    began, end = _seconds(state.get("created_at")), _ended(state)
    return 0.0 if began is None or end is None else max(0.0, end - began)


def _age_s(state: Mapping[str, Any], now: float | None) -> float | None:
    """How long a batch has been over, by the provider's clock; None where it does not tell."""
    end = _ended(state)
    return None if end is None or now is None else now - end


def _ended(state: Mapping[str, Any]) -> float | None:
    moments = (_seconds(state.get(name)) for name in ("completed_at", "expired_at", "cancelled_at"))
    return next((moment for moment in moments if moment is not None), None)


def _seconds(value: Any) -> float | None:
    """A moment as a provider tells it; None for what is none."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _LAST_S
    return float(value) if is_one else None
