"""The budget: a hard cap on dollars, tokens and hours.

Before an attempt is sent, the most that it can cost is reserved in the database (`replies/_ledger.py`). If the cap
leaves no room, the request waits until other requests have returned. Near the cap a run is slow, but it never exceeds
the cap.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.prompts import Prompt
from tinyllm.spending.charges import Bill, Charge, Spent, cost
from tinyllm.teachers.base import Request

_TEMPLATE_TOKENS = 64  # a chat template adds at most so many to a conversation, and the next number to each message
_MESSAGE_TOKENS = 16

CountTokens = Callable[[str], int]
"""Returns the length of a text in a teacher's tokens."""


class Budget:
    """What a run may spend, and what it has spent.

    Args:
        spent: what this run spent earlier, by teacher.
        counts: tokenizers of the teachers that have one.

    Attributes:
        usd, tokens: spent so far, including what is reserved now.
    """

    def __init__(
        self,
        cap: BudgetSection,
        prices: Mapping[str, PriceSection | None],
        spent: Mapping[str, Spent] | None = None,
        *,
        run: str = "",
        counts: Mapping[str, CountTokens] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = cap
        self.run = run
        self._prices = prices
        self._counts = counts or {}
        self._clock = clock
        before = (spent or {}).values()
        self._began = clock() - sum(s.seconds for s in before)
        self.tokens = sum(s.tokens for s in before)
        self.usd = sum((s.usd or 0.0) + s.lost_usd for s in before)
        self._in_flight = 0
        self._settled = 0  # how often a reservation was released or paid
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def hours(self) -> float:
        """Hours that this run has spent asking."""
        return (self._clock() - self._began) / 3600

    @property
    def is_set(self) -> bool:
        """Whether there is any cap."""
        return self.cap != BudgetSection()

    def is_kept_for(self, teacher: str) -> bool:
        """Return whether attempts of a teacher must be recorded before they are sent."""
        return self.cap.usd is not None or self.cap.tokens is not None or self._prices.get(teacher) is not None

    def most(self, teacher: str, key: str, request: Request) -> Charge:
        """Return the most that one attempt can cost."""
        prompt, reply = most_tokens(request.prompt, self._counts.get(teacher)), request.sampling.max_tokens
        return Charge(self.run, teacher, key, prompt, reply, most_cost(self._prices.get(teacher), prompt, reply))

    def bill(
        self, teacher: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int, charge: int | None,
        resumed: str | None = None,
    ) -> Bill:  # fmt: skip
        """Return what a reply cost; see `Bill`."""
        cached = min(cached_tokens, prompt_tokens)
        usd = cost(self._prices.get(teacher), prompt_tokens, completion_tokens, cached)
        return Bill(self.run, teacher, charge, prompt_tokens, completion_tokens, cached, usd, resumed)

    async def reserve(self, most: Charge, record: Callable[[Charge], Awaitable[int | None]]) -> int | None:
        """Reserve what an attempt can cost, and return the id of the charge.

        Args:
            record: writes the charge to the database; returns its id, or None if the cap leaves no room.

        Returns:
            None if the cap will never leave enough room.
        """
        while self.cap.hours is None or self.hours < self.cap.hours:
            settled = self._settled
            self._in_flight += 1
            charge = None
            try:
                charge = await record(most)
            finally:
                self._in_flight -= charge is None
            if charge is not None:
                self.spend(most.usd, most.tokens)
                return charge
            if self._settled != settled:
                continue  # another request has returned in the meantime
            if not self._in_flight:
                break
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self.wake()
        return None

    def settle(self, most: Charge, usd: float, tokens: int) -> None:
        """Replace a reservation by what the attempt cost. Call it after the database was told."""
        self.spend(usd - most.usd, tokens - most.tokens)
        self._in_flight -= 1
        self._settled += 1
        self.wake()

    def spend(self, usd: float, tokens: int) -> None:
        """Add to what was spent."""
        self.usd += usd
        self.tokens += tokens

    def wake(self) -> None:
        """Let the waiting requests check again whether there is room."""
        waiting, self._waiting = self._waiting, []
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def left(self) -> str:
        """Return how much of each cap is spent, as text; empty if there is no cap."""
        cap = self.cap
        parts = [] if cap.usd is None else [f"${max(0.0, self.usd):.4f} of ${cap.usd:g}"]
        parts += [] if cap.tokens is None else [f"{self.tokens:,} of {cap.tokens:,} tokens"]
        parts += [] if cap.hours is None else [f"{self.hours:.2f} of {cap.hours:g} h"]
        return ", ".join(parts)


def most_tokens(prompt: Prompt, count: CountTokens | None = None) -> int:
    """Return the most tokens that a prompt can have.

    A token is at least one byte of UTF-8, so the number of bytes is an upper bound. A tokenizer gives the exact number.
    """
    texts = [m.content for m in prompt.messages] if prompt.messages else [prompt.text]
    known = sum(count(t) if count is not None else len(t.encode("utf-8", "surrogatepass")) for t in texts)
    return known + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(texts)


def most_cost(price: PriceSection | None, prompt_tokens: int, completion_tokens: int) -> float:
    """Return the most that so many tokens can cost, whether or not the prompt is cached."""
    return max(cost(price, prompt_tokens, completion_tokens, cached) for cached in (0, prompt_tokens))
