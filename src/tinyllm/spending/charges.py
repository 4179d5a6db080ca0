"""What an attempt may cost, what a reply did cost, and what a run has spent."""

from __future__ import annotations

from dataclasses import dataclass

from tinyllm.config import PriceSection

_MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Cap:
    """The most that a run may spend; None: any sum."""

    usd: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """The most that one attempt can cost.

    Attributes:
        key: of the request.
    """

    run: str
    teacher: str
    key: str
    prompt_tokens: int
    completion_tokens: int
    usd: float

    @property
    def tokens(self) -> int:
        """Of prompt and reply."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Bill:
    """What a reply did cost.

    Attributes:
        charge: id of what was set aside for it; None: nothing was.
        resumed: for the key of a request that was sent by an earlier process; what that set aside is looked for.
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
class Lost:
    """An attempt whose cost nobody will know.

    Attributes:
        charge: what it may have cost.
        id: of what was set aside; None: nothing was.
    """

    charge: Charge
    id: int | None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has got from one teacher, and paid for. `seconds`: of asking, by the clock.

    Attributes:
        usd: None: not known, because an earlier version wrote it; see `price_tokens`.
        lost: attempts whose cost nobody knows, those under way among them, with the most that they may have cost.
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
        """All that counts towards a cap."""
        return self.prompt_tokens + self.completion_tokens + self.lost_tokens


def cost(price: PriceSection | None, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    """Return the price of so many tokens in US dollars; `cached_tokens` are among `prompt_tokens`."""
    if price is None:
        return 0.0
    cached_price = price.prompt if price.cached is None else price.cached
    full = price.prompt * (prompt_tokens - cached_tokens) + cached_price * cached_tokens
    return (full + price.completion * completion_tokens) / _MILLION
