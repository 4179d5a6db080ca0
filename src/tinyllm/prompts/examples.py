"""The in-context example generator: which training questions stand before a question in a teacher's prompt.

A strategy is made once for a pool; it then maps the questions that share examples to their examples.
"""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from tinyllm.bm25 import Bm25, ranked
from tinyllm.config import ExamplesSection
from tinyllm.errors import ConfigError, did_you_mean
from tinyllm.prompts.text import one_line, worked_text
from tinyllm.questions import Question

Strategy = Callable[[Sequence[Question]], tuple[Question, ...]]
"""The questions that share examples (none of which may be one) → the examples, in the order they are shown."""

_CONTEXT_WORDS = 64  # of a context that are compared: passages are long, and it is questions that are to be alike
_CANDIDATES = 50  # nearest questions that `diverse` chooses among
_RELEVANCE = 0.5  # share of nearness, as against difference from the examples chosen before, in `diverse`
_READ = 256  # questions that are read, besides the block's own, before less strict examples are taken
_HINTED = 20_000  # ids that a misspelt one is compared with


class ExampleGenerator:
    """Picks the examples of any number of questions from one pool, which is prepared once.

    A pick depends on the pool, the section and the questions that share it alone: not on the order of the picks,
    the process or the machine. `random` and `fixed` keep no part of the pool in memory; `similar` and `diverse` keep
    an index of its words. May be used by several threads at once, if the pool may.

    Args:
        pool: the training split; examples come from nowhere else. May read its questions from a disk.
        section: strategy, count, scope and seed.

    Attributes:
        worked: key of the rationales that the picked examples are shown with; None: they are shown without.

    Raises:
        ConfigError: `section.ids` names a question that the pool does not have.
    """

    def __init__(self, pool: Sequence[Question], section: ExamplesSection) -> None:
        self._section = section
        named = _find(pool, section.ids) if section.strategy == "fixed" else ()
        strategy = section.strategy if section.count or named else "none"
        carriers = _carriers(pool, section.worked if strategy != "none" else None)
        enough = len(carriers) > section.count
        explained = enough or any(worked_text(pool[place], section.worked) for place in named)
        self.worked: str | None = section.worked if explained else None
        places = carriers if enough else range(len(pool))
        self._block = max(1, min(section.block, len(pool) // 2))  # there must be others to show
        self._strategy = _STRATEGIES[strategy](_Pool(pool, places, named, len(named) or section.count), section.seed)

    def pick(self, question: Question, block: Sequence[Question] = ()) -> tuple[Question, ...]:
        """Return the examples of a question: never itself, nor (if there are others) one with its text and choices.

        Args:
            block: the questions that share these examples, `question` among them; none of them is an example of
                another. All of them get the same, in the same order. Empty: the question shares with no other.
        """
        return self._strategy(block or (question,))

    def picks(self, questions: Sequence[Question], start: int, stop: int) -> list[tuple[Question, ...]]:
        """Return the examples of the questions at the places from `start` up to `stop`, by the section's scope.

        Args:
            questions: the whole list: a block begins at every multiple of its size in it, wherever `start` is. A block
                that leaves too few others to be shown does not share: each of its questions gets its own.
        """
        size = self._block if self._section.scope == "block" else 1
        stop = min(stop, len(questions))
        picked: list[tuple[Question, ...]] = []
        for first in range(start - start % size, stop, size):
            block = [questions[place] for place in range(first, min(first + size, len(questions)))]
            shared = self.pick(block[0], block)
            enough = size == 1 or len(shared) >= self._section.count
            wanted = (q for place, q in enumerate(block, first) if start <= place < stop)
            picked.extend(shared if enough else self.pick(q) for q in wanted)
        return picked


@dataclass(frozen=True, slots=True)
class _Pool:
    """What examples are taken from.

    Attributes:
        places: of the questions that may be shown.
        named: places of those that are to be shown first.
        count: how many are shown.
    """

    questions: Sequence[Question]
    places: Sequence[int]
    named: Sequence[int]
    count: int

    def texts(self) -> Iterator[str]:
        """What each question that may be shown is compared by, in the order of `places`."""
        every = isinstance(self.places, range)
        return map(_compared, self.questions if every else (self.questions[place] for place in self.places))

    def drawn(self, draw: random.Random) -> Iterator[int]:
        """Places in random order: as many are drawn as are asked for (Fisher and Yates, of what has moved alone)."""
        moved: dict[int, int] = {}
        for i in range(len(self.places)):
            j = draw.randrange(i, len(self.places))
            yield self.places[moved.get(j, j)]
            moved[j] = moved.get(i, i)

    def others(self, places: Iterable[int], block: Sequence[Question]) -> Iterator[Question]:
        """Read the questions at some places, leaving out those that are one of the block, by id or by content.

        Some data ask the same of every context. So those that differ from the block by their context alone are
        taken in the end, if there are not enough others.
        """
        ids = {question.id for question in block}
        texts = {_folded(question.question) for question in block}  # most questions differ in their text already
        asked: set[object] = set()
        known: set[object] = set()
        found, alike = 0, list[Question]()
        for place in islice(places, _READ + len(block)):
            question = self.questions[place]
            if question.id in ids:
                continue
            same_text = _folded(question.question) in texts
            if same_text and not asked:
                asked, known = {_content(q) for q in block}, {_with_context(q) for q in block}
            if not same_text or _content(question) not in asked:
                found += 1
                yield question
            elif _with_context(question) not in known:
                alike.append(question)
        if found < self.count:
            yield from alike


def _random(pool: _Pool, seed: int) -> Strategy:
    def pick(block: Sequence[Question]) -> tuple[Question, ...]:
        places = pool.drawn(_seeded(seed, block[0].id))
        return tuple(islice(pool.others(places, block), pool.count))

    return pick


def _fixed(pool: _Pool, seed: int) -> Strategy:
    """The named questions, all of them; or `count`, drawn once. For one that is asked about the next drawn steps in."""

    def pick(block: Sequence[Question]) -> tuple[Question, ...]:
        drawn = (place for place in pool.drawn(random.Random(seed)) if place not in pool.named)
        return tuple(islice(pool.others(chain(pool.named, drawn), block), pool.count))

    return pick


def _similar(pool: _Pool, _seed: int) -> Strategy:
    near = _Nearness(pool)
    return lambda block: _nearest_last(islice(near.to(block), pool.count))


def _diverse(pool: _Pool, _seed: int) -> Strategy:
    near = _Nearness(pool)

    def pick(block: Sequence[Question]) -> tuple[Question, ...]:
        candidates = list(islice(near.to(block), _CANDIDATES))
        vectors = [near.index.vector(_compared(question)) for question in candidates]
        chosen = _spread(near.index.vector(_together(block)), vectors, pool.count)
        return _nearest_last(candidates[i] for i in chosen)

    return pick


def _none(_pool: _Pool, _seed: int) -> Strategy:
    return lambda _block: ()


_STRATEGIES: Mapping[str, Callable[[_Pool, int], Strategy]] = {
    "random": _random,
    "similar": _similar,
    "diverse": _diverse,
    "fixed": _fixed,
    "none": _none,
}


class _Nearness:
    """The questions of a pool from the nearest to the farthest, by BM25."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self.index = Bm25(pool.texts())

    def to(self, block: Sequence[Question]) -> Iterator[Question]:
        """Yield the questions nearest to all of a block together; of those with the same content only the first."""
        places = (self._pool.places[number] for number in ranked(self.index.scores(_together(block))))
        seen: set[object] = set()
        for question in self._pool.others(places, block):
            content = _with_context(question)
            if content not in seen:
                seen.add(content)
                yield question


def _nearest_last(nearest_first: Iterable[Question]) -> tuple[Question, ...]:
    """What stands next to the question counts most with a model (recency bias: Zhao et al., 2021)."""
    return tuple(nearest_first)[::-1]


def _spread(asked: Mapping[str, float], vectors: Sequence[Mapping[str, float]], count: int) -> list[int]:
    """Choose by max-marginal relevance (Carbonell and Goldstein, 1998): near what is asked, but not near each other."""
    relevance, likeness = _cosines(asked, vectors), [0.0] * len(vectors)  # likeness: to the nearest of the chosen
    rest, chosen = list(range(len(vectors))), list[int]()
    while rest and len(chosen) < count:
        if chosen:
            likeness = list(map(max, likeness, _cosines(vectors[chosen[-1]], vectors)))
        best = max(rest, key=lambda i: _RELEVANCE * relevance[i] - (1 - _RELEVANCE) * likeness[i])
        rest.remove(best)
        chosen.append(best)
    return chosen


def _cosines(vector: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> list[float]:
    return [sum(weight * other.get(word, 0.0) for word, weight in vector.items()) for other in others]


def _together(block: Sequence[Question]) -> str:
    return " ".join(map(_compared, block))


def _compared(question: Question) -> str:
    """What a question is compared by."""
    context = (question.context or "").split()[:_CONTEXT_WORDS]
    return " ".join([question.question, *question.choices, *context])


def _carriers(pool: Sequence[Question], worked: str | None) -> Sequence[int]:
    """Places of the questions that carry a worked rationale."""
    if worked is None:
        return ()
    return array("Q", (place for place, question in enumerate(pool) if worked_text(question, worked)))


def _find(pool: Sequence[Question], ids: Sequence[str]) -> tuple[int, ...]:
    """Places of the questions with some ids, in the order of the ids."""
    wanted = dict.fromkeys(ids)
    places: dict[str, int] = {}
    for place, question in enumerate(pool if wanted else ()):
        if question.id in wanted:
            places.setdefault(question.id, place)
    unknown = [name for name in wanted if name not in places]
    if unknown:
        known = [question.id for question in islice(pool, _HINTED)]
        problems = [f"  - no training question has the id {name!r}.{did_you_mean(name, known)}" for name in unknown]
        raise ConfigError(
            "rationales.examples.ids: name questions of the training split, or none to have them drawn:\n"
            + "\n".join(problems)
        )
    return tuple(places[name] for name in wanted)


def _content(question: Question) -> tuple[str, tuple[str, ...]]:
    """What makes two questions the same although their ids differ: text and choices, in any order and spacing."""
    return _folded(question.question), tuple(sorted(map(_folded, question.choices)))


def _with_context(question: Question) -> tuple[object, str]:
    return _content(question), _folded(question.context or "")


def _folded(text: str) -> str:
    return one_line(text).casefold()


def _seeded(seed: int, question_id: str) -> random.Random:
    """A generator that is the same on every machine and in every process (`hash` of a text is not)."""
    digest = hashlib.sha256(json.dumps([seed, question_id]).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
