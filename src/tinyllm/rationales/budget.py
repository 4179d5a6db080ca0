"""The budget: a hard cap on dollars, tokens and hours, which also holds with many requests in flight.

What a request can cost at most is set aside before it is sent, and exchanged for what it did cost when its reply is
there. A request for which nothing is left waits until the others have come back, and is sent if they leave enough.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.rationales.store import Spent
from tinyllm.teachers.base import Reply, Request

_TOKENS_PER_CHARACTER = 0.5  # before anything was measured; English has about 0.25
_TEMPLATE_TOKENS = 32  # what a chat's form adds to the words
_MILLION = 1e6
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Hold:
    """What was set aside for one request."""

    teacher: str
    characters: int
    prompt_tokens: int
    completion_tokens: int
    usd: float

    @property
    def tokens(self) -> int:
        """Of prompt and reply."""
        return self.prompt_tokens + self.completion_tokens


def cost(price: PriceSection | None, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    """Return the price of so many tokens in US dollars; `cached_tokens` are among `prompt_tokens`."""
    if price is None:
        return 0.0
    cached_price = price.prompt if price.cached is None else price.cached
    full = price.prompt * (prompt_tokens - cached_tokens) + cached_price * cached_tokens
    return (full + price.completion * completion_tokens) / _MILLION


class Budget:
    """What a run has spent, what it has set aside, and what is left.

    Args:
        section: the cap.
        prices: of each teacher, by name.
        spent: by this run before, by teacher.
        clock: seconds.
    """

    def __init__(
        self,
        section: BudgetSection,
        prices: Mapping[str, PriceSection | None],
        spent: Mapping[str, Spent] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._section = section
        self._prices = prices
        self._clock = clock
        before = spent or {}
        self._began = clock() - sum(s.seconds for s in before.values())
        self.tokens = sum(s.prompt_tokens + s.completion_tokens for s in before.values())
        self.usd = sum(
            cost(prices.get(name), s.prompt_tokens, s.completion_tokens, s.cached_tokens) for name, s in before.items()
        )
        self._ratios: dict[str, float] = {}
        self._holds = 0
        self._held_tokens = 0
        self._held_usd = 0.0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def hours(self) -> float:
        """Hours of asking, by this run."""
        return (self._clock() - self._began) / 3600

    @property
    def is_set(self) -> bool:
        """Whether there is any cap."""
        return self._section != BudgetSection()

    async def reserve(self, teacher: str, request: Request) -> Hold | None:
        """Set aside what a request can cost at most; None if that is more than will ever be left."""
        characters = len(request.prompt.text) + sum(len(m.content) for m in request.prompt.messages)
        while True:
            hold = self._hold(teacher, characters, request.sampling.max_tokens)
            if self._fits(hold):
                self._holds += 1
                self._held_tokens += hold.tokens
                self._held_usd += hold.usd
                return hold
            if not self._holds or self._is_late():
                return None
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled

    def settle(self, hold: Hold, reply: Reply | None) -> None:
        """Exchange what was set aside for what the reply cost; for nothing, if there is no reply."""
        self._holds -= 1
        self._held_tokens -= hold.tokens
        self._held_usd = self._held_usd - hold.usd if self._holds else 0.0  # no error is carried on
        if reply is not None:
            # A server that does not tell is taken to have counted what was set aside, and about what can be seen.
            prompt = hold.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
            said = len(reply.text) // 3 + 1 if reply.completion_tokens is None else reply.completion_tokens
            self.tokens += prompt + said
            self.usd += cost(self._prices.get(hold.teacher), prompt, said, reply.cached_tokens or 0)
            if reply.prompt_tokens is not None and hold.characters:
                ratio = reply.prompt_tokens / hold.characters
                self._ratios[hold.teacher] = max(self._ratios.get(hold.teacher, 0.0), ratio)
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

    def _hold(self, teacher: str, characters: int, max_tokens: int) -> Hold:
        ratio = self._ratios.get(teacher, _TOKENS_PER_CHARACTER)
        prompt = round(characters * ratio) + _TEMPLATE_TOKENS
        return Hold(teacher, characters, prompt, max_tokens, cost(self._prices.get(teacher), prompt, max_tokens))

    def _fits(self, hold: Hold) -> bool:
        section = self._section
        usd, tokens = self.usd + self._held_usd + hold.usd, self.tokens + self._held_tokens + hold.tokens
        if section.usd is not None and hold.usd > 0 and usd > section.usd * (1 + _ROUNDING):
            return False
        if section.tokens is not None and tokens > section.tokens:
            return False
        return not self._is_late()

    def _is_late(self) -> bool:
        return self._section.hours is not None and self.hours >= self._section.hours
