"""The budget: a hard cap on dollars, tokens and hours, whatever becomes of the requests.

The most that an attempt can cost is set aside, durably, before it is sent (`replies/_ledger.py`). A request for which
nothing is left waits until others have come back, and is sent if they leave enough. Near the cap it is slow; it never
passes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.prompts import Prompt
from tinyllm.spending.charges import Bill, Cap, Charge, Spent, cost
from tinyllm.teachers.base import Request

_TEMPLATE_TOKENS = 64  # what a chat's form adds to a conversation, and to each message of it
_MESSAGE_TOKENS = 16

CountTokens = Callable[[str], int]
"""From a text to its length in a teacher's tokens."""


class _SetsAside(Protocol):
    """Whoever writes charges down; see `Writer.set_aside`."""

    async def set_aside(self, charge: Charge) -> int | None:
        """Return the id of what was set aside, once it is durable; None if the cap leaves no room."""
        ...


class Budget:
    """What a run may spend, and what it has spent.

    Args:
        section: the cap.
        prices: of each teacher, by name.
        spent: by this run before, by teacher.
        run: the account.
        counts: tokenizers of teachers, where they are known.
        clock: seconds.

    Attributes:
        run: the account.
        cap: on dollars and tokens.
        usd, tokens: spent so far, with what is set aside now.
    """

    def __init__(
        self,
        section: BudgetSection,
        prices: Mapping[str, PriceSection | None],
        spent: Mapping[str, Spent] | None = None,
        *,
        run: str = "",
        counts: Mapping[str, CountTokens] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cap = Cap(section.usd, section.tokens)
        self._is_capped = self.cap != Cap()
        self._section = section
        self.run = run
        self._prices = prices
        self._counts = counts or {}
        self._clock = clock
        before = (spent or {}).values()
        self._began = clock() - sum(s.seconds for s in before)
        self.tokens = sum(s.tokens for s in before)
        self.usd = sum((s.usd or 0.0) + s.lost_usd for s in before)
        self._under_way = 0
        self._settled = 0  # how often something was given back or paid
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def hours(self) -> float:
        """Hours of asking, by this run."""
        return (self._clock() - self._began) / 3600

    @property
    def is_set(self) -> bool:
        """Whether there is any cap."""
        return self._section != BudgetSection()

    def is_kept_for(self, teacher: str) -> bool:
        """Tell whether attempts of a teacher must be written down before they are sent."""
        return self._is_capped or self._prices.get(teacher) is not None

    def most(self, teacher: str, key: str, request: Request) -> Charge:
        """Return the most that one attempt can cost."""
        shown, said = most_tokens(request.prompt, self._counts.get(teacher)), request.sampling.max_tokens
        return Charge(self.run, teacher, key, shown, said, most_cost(self._prices.get(teacher), shown, said))

    def bill(
        self, teacher: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int, charge: int | None,
        resumed: str | None = None,
    ) -> Bill:  # fmt: skip
        """Return what a reply did cost; see `Bill`."""
        cached = min(cached_tokens, prompt_tokens)
        usd = cost(self._prices.get(teacher), prompt_tokens, completion_tokens, cached)
        return Bill(self.run, teacher, charge, prompt_tokens, completion_tokens, cached, usd, resumed)

    async def set_aside(self, most: Charge, ledger: _SetsAside) -> int | None:
        """Set aside what an attempt can cost; None if that is more than will ever be left."""
        while not self._is_late():
            settled = self._settled
            self._under_way += 1
            charge = None
            try:
                charge = await ledger.set_aside(most)
            finally:
                self._under_way -= charge is None
            if charge is not None:
                self.usd += most.usd
                self.tokens += most.tokens
                return charge
            if self._settled != settled:
                continue  # something came back meanwhile
            if not self._under_way:
                break
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        self.wake()
        return None

    def settle(self, most: Charge, usd: float, tokens: int) -> None:
        """Take in what became of an attempt for which something was set aside, once that is written down.

        Args:
            usd, tokens: what it has cost.
        """
        self.spend(usd - most.usd, tokens - most.tokens)
        self._under_way -= 1
        self._settled += 1
        self.wake()

    def spend(self, usd: float, tokens: int) -> None:
        """Take in what has been spent besides what was set aside."""
        self.usd += usd
        self.tokens += tokens

    def wake(self) -> None:
        """Let those who wait for room look again."""
        waiting, self._waiting = self._waiting, []
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def left(self) -> str:
        """Return what is spent of the cap, in words; empty where there is no cap."""
        section = self._section
        parts = [] if section.usd is None else [f"${self.usd:.4f} of ${section.usd:g}"]
        parts += [] if section.tokens is None else [f"{self.tokens:,} of {section.tokens:,} tokens"]
        parts += [] if section.hours is None else [f"{self.hours:.2f} of {section.hours:g} h"]
        return ", ".join(parts)

    def _is_late(self) -> bool:
        return self._section.hours is not None and self.hours >= self._section.hours


def most_tokens(prompt: Prompt, count: CountTokens | None = None) -> int:
    """Return the most tokens that a prompt can have.

    A token is at least one byte of UTF-8, so a text has at most as many tokens as bytes; a tokenizer tells it exactly.
    """
    texts = [m.content for m in prompt.messages] if prompt.messages else [prompt.text]
    known = sum(count(t) if count is not None else len(t.encode("utf-8", "surrogatepass")) for t in texts)
    return known + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(texts)


def most_cost(price: PriceSection | None, prompt_tokens: int, completion_tokens: int) -> float:
    """Return the most that so many tokens can cost, whatever of the prompt is in a cache."""
    return max(cost(price, prompt_tokens, completion_tokens, cached) for cached in (0, prompt_tokens))
