"""Prices: what an attempt may cost, what a reply cost, and what a run has spent."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.config import PriceSection

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Charge:
    """The most that one attempt can cost. `key` is the key of its request."""

    run: str
    teacher: str
    key: str
    prompt_tokens: int
    completion_tokens: int
    usd: float

    @property
    def tokens(self) -> int:
        """Tokens of prompt and reply."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Bill:
    """What a reply cost.

    Attributes:
        charge: id of the charge that the bill replaces; None: there is none.
        resumed: key of a request that an earlier process sent; that process's charge is looked up by it.
    """

    run: str
    teacher: str
    charge: int | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    usd: float
    resumed: str | None = None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run got from one teacher, and what it paid.

    Attributes:
        cached_tokens: those of the prompt tokens that were cached.
        seconds: time spent asking.
        usd: None: unknown, because an earlier version counted tokens only; see `price_tokens`.
        lost: attempts of unknown cost, including those in flight; `lost_tokens` and `lost_usd` are their maximum.
    """

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    usd: float | None = 0.0
    lost: int = 0
    lost_tokens: int = 0
    lost_usd: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens that count towards the cap."""
        return self.prompt_tokens + self.completion_tokens + self.lost_tokens


def cost(price: PriceSection | None, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    """Return the price in US dollars. `cached_tokens` are part of `prompt_tokens`."""
    if price is None:
        return 0.0
    cached_price = price.prompt if price.cached is None else price.cached
    full = price.prompt * (prompt_tokens - cached_tokens) + cached_price * cached_tokens
    return (full + price.completion * completion_tokens) / _MILLION
