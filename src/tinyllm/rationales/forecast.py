"""The forecast: what asking will take, before anything is spent.

What the store holds is not counted. The figures rest, in this order, on the teacher's own tokenizer, on its newest
replies in the store (a pilot's, or an earlier run's), and on a rule of thumb; `basis` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tinyllm.config import PriceSection
from tinyllm.rationales.requests import Ask, Requests, answered
from tinyllm.replies import Store
from tinyllm.spending.budget import most_cost, most_tokens
from tinyllm.spending.charges import cost
from tinyllm.teachers.base import Reply

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""From prompts to their lengths in a teacher's tokens."""

_CHUNK = 256
_MEASURED = 200  # prompts that are counted; of more requests, as many spread over all
_REMEMBERED = 200  # newest replies that tell what a teacher is like
_CHARACTERS_PER_TOKEN = 4  # of English, for want of a tokenizer
_TEMPLATE_TOKENS = 8  # what a chat's form adds to a message
_SETTLED_ENOUGH = 20  # questions that tell how often a reply is not good enough


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one teacher will take.

    Attributes:
        stored: questions that the store answers already.
        requests: to send, with those for replies that will not pass the checks, as far as that can be known.
        hours: by the latency of its newest replies; None if it never gave one.
        thinking_tokens: those of the completion that are expected to be thoughts.
        usd: None without a price.
        tokens_most, usd_most: if every question takes all its samples, each of the longest. Attempts that are lost (by
            time-outs, say) come on top, up to the cap.
        basis: what the token figures rest on.
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


def forecast(
    requests: Requests,
    store: Store | None,
    *,
    price: PriceSection | None = None,
    count: CountTokens | None = None,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    hours: float | None = None,
) -> Forecast:
    """Return what asking one teacher will take.

    Args:
        store: None if there is none yet.
        count: the teacher's tokenizer, if it is at hand.
        hours: if they are known beforehand, as a batch's are.
    """
    survey = _survey(requests, store)
    rated = bool(survey.measured and survey.measured[0].request.options)
    remembered = store.last(requests.teacher.name, _REMEMBERED, rated=rated) if store is not None else []
    total = round(survey.missing * survey.samples_each)
    prompt_each, basis = _prompt_tokens(survey.measured, remembered, count)
    longest = survey.measured[0].request.sampling.max_tokens if survey.measured else 0
    said = [min(longest, r.completion_tokens) for r in remembered if r.completion_tokens is not None]
    thought = [r.thinking_tokens for r in remembered if r.thinking_tokens is not None]
    prompt, completion = round(total * prompt_each), round(total * (fmean(said) if said else longest))
    most_said = sum(requests.longest_replies())
    most_prompt, most_completion = survey.most_prompt * len(requests.longest_replies()), survey.missing * most_said
    if not said and total:
        basis += "; replies of the longest length"
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
        hours
        if hours is not None and total
        else _hours(
            total, prompt + completion, remembered, requests.teacher.concurrency, requests_per_minute, tokens_per_minute
        ),
        basis if total else "",
    )


@dataclass(slots=True)
class _Survey:
    stored: int
    missing: int
    samples_each: float
    measured: list[Ask]
    most_prompt: int = 0  # tokens of all missing questions' prompts, at the most


def _survey(requests: Requests, store: Store | None) -> _Survey:
    """Go through all questions once; keep a few, spread over all, to be measured."""
    total = len(requests.questions)
    survey = _Survey(0, 0, 1.0, [])
    samples = 0
    every = max(1, total // _MEASURED)
    for start in range(0, total, _CHUNK):
        asks = requests.between(start, min(start + _CHUNK, total))
        settled, missing = ([], asks) if store is None else answered(requests, store, asks)
        survey.stored += len(settled)
        samples += sum(requests.tries(ask) for ask, _ in settled)
        once = {ask.root: ask for ask in missing}.values()  # the same prompt twice is asked once
        survey.missing += len(once)
        survey.most_prompt += sum(most_tokens(ask.request.prompt) for ask in once)
        survey.measured += [ask for ask in missing if ask.place % every == 0]
        if not survey.measured:
            survey.measured += missing[:1]
    if survey.stored >= _SETTLED_ENOUGH:
        survey.samples_each = samples / survey.stored
    return survey


def _prompt_tokens(
    measured: Sequence[Ask], remembered: Sequence[Reply], count: CountTokens | None
) -> tuple[float, str]:
    """Tokens of one prompt, and how that is known."""
    if not measured:
        return 0.0, ""
    texts = [_text(ask) for ask in measured]
    template = fmean(_TEMPLATE_TOKENS * len(ask.request.prompt.messages) for ask in measured)
    if count is not None:
        return fmean(count(texts)) + template, "the teacher's tokenizer"
    known = [r.prompt_tokens for r in remembered if r.prompt_tokens is not None]
    if known:
        return fmean(known), f"its last {len(known)} replies"
    return fmean(map(len, texts)) / _CHARACTERS_PER_TOKEN + template, "a rule of thumb"


def _text(ask: Ask) -> str:
    prompt = ask.request.prompt
    return "\n".join(m.content for m in prompt.messages) or prompt.text


def _hours(
    requests: int,
    tokens: int,
    remembered: Sequence[Reply],
    concurrency: int,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
) -> float | None:
    if not requests:
        return 0.0
    if not remembered:
        return None
    # Latencies of a few replies are those of a few at once.
    at_once = min(concurrency, len(remembered), requests)
    seconds = [requests * fmean(r.latency_s for r in remembered) / at_once]
    seconds += [] if requests_per_minute is None else [60 * requests / requests_per_minute]
    seconds += [] if tokens_per_minute is None else [60 * tokens / tokens_per_minute]
    return max(seconds) / 3600
