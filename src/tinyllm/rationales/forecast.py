"""The forecast: how many requests, tokens and dollars asking will take, before anything is spent.

Replies in the store are not counted. The estimates use, in this order: the teacher's own tokenizer, the newest
replies of the same model in the store, a rule of thumb. `basis` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from tinyllm.config import PriceSection
from tinyllm.rationales.requests import Ask, Requests, answered
from tinyllm.replies import Store
from tinyllm.spending.budget import most_cost, most_tokens
from tinyllm.spending.charges import cost
from tinyllm.teachers.base import Reply

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Returns the lengths of prompts in a teacher's tokens."""

_CHUNK = 256
_MEASURED = 200  # prompts to tokenize, spread over all requests
_RECENT = 200  # newest replies to look at
_CHARACTERS_PER_TOKEN = 4  # in English, where there is no tokenizer
_TEMPLATE_TOKENS = 8  # a chat template adds so many to a message
_PRIOR = 4  # questions that are taken to need one request each, so that a few stored ones do not say too much


@dataclass(frozen=True, slots=True)
class Forecast:
    """What asking one teacher will take.

    Attributes:
        stored: questions that the store answers already.
        requests: requests to send, including those for replies that will fail the checks.
        thinking_tokens: completion tokens that are expected to be thoughts.
        usd: None without a price.
        tokens_most, usd_most: if every question takes all its samples and each is as long as allowed. Lost attempts
            (timeouts, for example) come on top, up to the cap.
        hours: from the latency of its newest replies, and how fast they came; None if it has none.
        basis: what the token estimates are based on.
        may_think: `tokens_most` has room for thoughts only because the teacher was never asked.
    """

    teacher: str
    stored: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int
    usd: float | None
    tokens_most: int
    usd_most: float | None
    hours: float | None
    basis: str
    may_think: bool = False


def forecast(
    requests: Requests,
    store: Store | None,
    *,
    price: PriceSection | None = None,
    count: CountTokens | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    hours: float | None = None,
    first: int | None = None,
) -> Forecast:
    """Return what asking one teacher will take.

    Args:
        store: None if there is none yet.
        count: the teacher's tokenizer, if there is one.
        hours: given if known, as for a batch.
        first: about the first so many questions only.
    """
    survey = _survey(requests, store, first)
    rated = bool(survey.measured and survey.measured[0].request.options)
    longest = survey.measured[0].request.sampling.max_tokens if survey.measured else 0
    identity, recent, pace = requests.teacher.identity, list[Reply](), None
    if store is not None:  # replies of the same kind: a vote has one token, and a rationale a hundred
        recent = store.last(identity, _RECENT, rated=rated, max_tokens=longest)
        pace = store.pace(identity, _RECENT, rated=rated, max_tokens=longest)
    total = survey.requests
    prompt_each, basis = _prompt_tokens(survey.measured, recent, count)
    said = [min(longest, r.completion_tokens) for r in recent if r.completion_tokens is not None]
    thought = [r.thinking_tokens for r in recent if r.thinking_tokens is not None]
    prompt, completion = round(total * prompt_each), round(total * (fmean(said) if said else longest))
    longest_replies = requests.longest_replies()
    most_prompt, most_completion = survey.most_prompt * len(longest_replies), survey.missing * sum(longest_replies)
    if not said and total:
        basis += "; replies of the longest length"
    if more := total - survey.missing:
        basis += f"; {round(100 * more / survey.missing)} % more requests, for replies that fail a check"
    if hours is None or not total:
        limits = (
            (requests_per_minute, total),
            (tokens_per_minute, prompt + completion),
            (None if pace is None else 60 * pace, total),
        )
        hours = _hours(total, recent, requests.teacher.concurrency, limits)
    return Forecast(
        requests.teacher.name,
        survey.stored,
        total,
        prompt,
        completion,
        round(total * (fmean(thought) if thought else 0 if said else requests.thinking_tokens)),
        None if price is None else cost(price, prompt, completion),
        most_prompt + most_completion,
        None if price is None else most_cost(price, most_prompt, most_completion),
        hours,
        basis if total else "",
        bool(total) and max(longest_replies) > longest and not requests.thinking_tokens,
    )


@dataclass(slots=True)
class _Survey:
    """`most_prompt`: the most tokens that the prompts of all missing questions can have. `requests`: to be sent."""

    stored: int = 0
    missing: int = 0
    requests: int = 0
    most_prompt: int = 0
    measured: list[Ask] = field(default_factory=list)


def _survey(requests: Requests, store: Store | None, first: int | None) -> _Survey:
    """Go through all questions once, and keep a few requests, spread over all, to be measured."""
    total = min(first or len(requests.questions), len(requests.questions))
    survey = _Survey()
    samples = failed = 0
    every = max(1, total // _MEASURED)
    for start in range(0, total, _CHUNK):
        asks = requests.between(start, min(start + _CHUNK, total))
        settled, missing = ([], asks) if store is None else answered(requests, store, asks)
        survey.stored += len(settled)
        samples += sum(requests.tries(ask) for ask, _ in settled)
        once = {ask.root: ask for ask in missing}.values()  # the same prompt is asked once
        failed += sum(requests.tries(ask) - 1 for ask in once)
        survey.missing += len(once)
        survey.most_prompt += sum(most_tokens(ask.request.prompt) for ask in once)
        survey.measured += [ask for ask in missing if ask.place % every == 0]
        if not survey.measured:
            survey.measured += missing[:1]
    each = min(len(requests.longest_replies()), (samples + failed + _PRIOR) / (survey.stored + _PRIOR))
    survey.requests = max(survey.missing, round(survey.missing * each) - failed)
    return survey


def _prompt_tokens(measured: Sequence[Ask], recent: Sequence[Reply], count: CountTokens | None) -> tuple[float, str]:
    """Return the mean tokens of a prompt, and what the number is based on."""
    if not measured:
        return 0.0, ""
    prompts = [ask.request.prompt for ask in measured]
    texts = ["\n".join(m.content for m in prompt.messages) or prompt.text for prompt in prompts]
    template = fmean(_TEMPLATE_TOKENS * len(prompt.messages) for prompt in prompts)
    if count is not None:
        return fmean(count(texts)) + template, "the teacher's tokenizer"
    known = [r.prompt_tokens for r in recent if r.prompt_tokens is not None]
    if known:
        return fmean(known), f"its last {len(known)} replies"
    return fmean(map(len, texts)) / _CHARACTERS_PER_TOKEN + template, "a rule of thumb"


def _hours(
    requests: int, recent: Sequence[Reply], concurrency: int, limits: Sequence[tuple[float | None, int]]
) -> float | None:
    """Return the hours that requests take, by latency and by limits per minute (each with the amount it limits)."""
    if not requests:
        return 0.0
    if not recent:
        return None
    # The latency of a few replies was measured with a few requests in flight.
    at_once = min(concurrency, len(recent), requests)
    seconds = [requests * fmean(r.latency_s for r in recent) / at_once]
    seconds += [60 * amount / per_minute for per_minute, amount in limits if per_minute is not None]
    return max(seconds) / 3600
