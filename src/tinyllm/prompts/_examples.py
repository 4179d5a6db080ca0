"""The in-context example generator: which training questions come before a question in a teacher's prompt.

A strategy is prepared once for a pool of questions. It then maps questions that share examples to their examples.
"""

from __future__ import annotations

import hashlib
import json
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from tinyllm.config import ExamplesSection
from tinyllm.errors import ConfigError, did_you_mean
from tinyllm.prompts._text import one_line, worked_text
from tinyllm.questions import Question
from tinyllm.questions.bm25 import Bm25

Strategy = Callable[[Sequence[Question]], tuple[Question, ...]]
"""From the questions that share examples to the examples, in the order in which they are shown."""

_CONTEXT_WORDS = 64  # words of a context that are compared: contexts are long, and the questions matter more
_CANDIDATES = 50  # most similar questions from which `diverse` chooses
_RELEVANCE = 0.5  # weight of the similarity in `diverse`; the rest is the difference from examples chosen before
_READ = 256  # questions that are read, besides the block's own, before less strict examples are taken
_HINTED = 20_000  # ids with which a misspelt id is compared
_POINTS = 16  # numbers of 32 bits in one digest of BLAKE2b


class ExampleGenerator:
    """Picks examples for questions from one pool.

    A pick depends only on the pool, the section and the questions that share it. It does not depend on the order of the
    picks, the process or the machine. `random` and `fixed` keep eight bytes per question of the pool in memory,
    `similar` and `diverse` an index of its words. Several threads may use it at once, if they may use the pool.

    `random` and `fixed` draw by the texts of the questions, not by their ids and places. When a question is added to
    the pool, only the few picks change that now include it. When one is removed, only the picks with it change.
    See docs/decisions/0012-examples-are-drawn-by-text.md.

    Args:
        pool: the training split, the only source of examples. It may be on disk.
        section: strategy, count, scope and seed.
        by_place: draw by ids and places in the pool, as earlier versions did: for stores that they filled.

    Attributes:
        worked: key of the rationales that are shown with the examples; None: none are shown.
        draws: whether examples are drawn at random, so that `by_place` makes a difference.

    Raises:
        ConfigError: `section.ids` names a question that is not in the pool.
    """

    def __init__(self, pool: Sequence[Question], section: ExamplesSection, *, by_place: bool = False) -> None:
        self._section = section
        named = _find(pool, section.ids) if section.strategy == "fixed" else ()
        strategy = section.strategy if section.count or named else "none"
        worked = section.worked if strategy != "none" else None
        self.draws = strategy in ("random", "fixed")
        by_place = by_place or not self.draws
        every, carriers = _entries(pool, worked, None if by_place else section.seed)
        enough = len(carriers) > section.count
        explained = enough or any(worked_text(pool[place], section.worked) for place in named)
        self.worked: str | None = section.worked if explained else None
        entries = carriers if enough else every
        self._block = max(1, min(section.block, len(pool) // 2))  # other questions must remain to be shown
        self._pool = _Pool(pool, entries, named, len(named) or section.count, by_place)
        self._strategy = _STRATEGIES[strategy](self._pool, section.seed)
        self._draws_ahead = strategy == "random" and section.scope == "question" and not by_place and len(entries) > 0

    def pick(self, question: Question, block: Sequence[Question] = ()) -> tuple[Question, ...]:
        """Return the examples of a question: never the question itself, nor a duplicate of it if there are others.

        Args:
            block: the questions that share these examples, including `question`. None of them is an example of another.
                All get the same examples in the same order. Empty: the question does not share its examples.
        """
        return self._strategy(block or (question,))

    def picks(self, questions: Sequence[Question], start: int, stop: int) -> list[tuple[Question, ...]]:
        """Return the examples of the questions from `start` up to `stop`, by the section's scope.

        Args:
            questions: the whole list. A block begins at every multiple of the block size in this list, wherever `start`
                is. If a block leaves too few other questions to show, each of its questions gets its own examples.
        """
        size = self._block if self._section.scope == "block" else 1
        stop = min(stop, len(questions))
        picked: list[tuple[Question, ...]] = []
        if self._draws_ahead:
            asked = [questions[place] for place in range(start, stop)]
            shown = self._pool.drawn_ahead("random", self._section.seed, asked)
            return [few or self.pick(question) for question, few in zip(asked, shown, strict=True)]
        for first in range(start - start % size, stop, size):
            block = [questions[place] for place in range(first, min(first + size, len(questions)))]
            shared = self.pick(block[0], block)
            enough = size == 1 or len(shared) >= self._section.count
            wanted = (q for place, q in enumerate(block, first) if start <= place < stop)
            picked.extend(shared if enough else self.pick(q) for q in wanted)
        return picked


@dataclass(frozen=True, slots=True)
class _Pool:
    """The questions that may be shown as examples.

    Attributes:
        entries: one for each question that may be shown; see `_entries`.
        named: places of the questions that are shown first.
        by_place: whether the entries are places, in order.
    """

    questions: Sequence[Question]
    entries: Sequence[int]
    named: Sequence[int]
    count: int
    by_place: bool

    def texts(self) -> Iterator[str]:
        """Return the text by which each question is compared, in the order of the entries."""
        every = isinstance(self.entries, range)
        return map(_compared, self.questions if every else (self.questions[place] for place in self.entries))

    def drawn(self, what: str, seed: int, asked: Question | None) -> Iterator[int]:
        """Yield all places once, in a random order that depends only on the arguments.

        Args:
            asked: the question for which places are drawn; None: all questions share the draw.
        """
        if not self.entries:
            return
        if self.by_place:
            yield from self._by_place(random.Random(seed) if asked is None else _seeded(seed, asked.id))
            return
        key = _draw_key(what, seed, asked)
        attempts, few = range(16 + 2 * self.count), self.count + 2  # this is nearly always enough
        tries = (n for start in attempts[::few] for n in self._nearest([key], attempts[start : start + few]))
        first = bisect_left(self.entries, int.from_bytes(key[:8]))
        # In a pool hardly larger than `count`, finding the last questions by drawing would take very many draws.
        rest = (number % len(self.entries) for number in range(first, first + len(self.entries)))
        seen: set[int] = set()
        for number in chain(tries, rest):
            if number not in seen:
                seen.add(number)
                yield self.entries[number] & 0xFFFFFFFF

    def drawn_ahead(self, what: str, seed: int, asked: Sequence[Question]) -> list[tuple[Question, ...]]:
        """Return the result of `drawn` and `others` for many questions, computed together.

        A result is empty if the first draws are not enough: they repeat, or have the question's own text or id.
        """
        found = self._nearest([_draw_key(what, seed, question) for question in asked], range(self.count))
        shown: list[tuple[Question, ...]] = []
        for start, question in zip(range(0, len(found), self.count), asked, strict=True):
            numbers = found[start : start + self.count]
            few = tuple(self.questions[self.entries[number] & 0xFFFFFFFF] for number in numbers)
            text = _folded(question.question)
            settled = len(set(numbers)) == self.count and all(
                other.id != question.id and _folded(other.question) != text for other in few
            )
            shown.append(few if settled else ())
        return shown

    def _nearest(self, keys: Sequence[bytes], attempts: range) -> list[int]:
        """Draw entries from the ring: of sixteen points, take the one that is closest to its next entry.

        This is multi-probe consistent hashing (Appleton and O'Reilly, 2015). With a single point, the probability of an
        entry would be proportional to the gap before it, and gaps differ a lot. All attempts are computed in one numpy
        call, because each needs sixteen searches in the ring.
        """
        import numpy as np

        digests = b"".join(hashlib.blake2b(key + attempt.to_bytes(2)).digest() for key in keys for attempt in attempts)
        points = np.frombuffer(digests, ">u4").astype(np.uint64)
        ring = np.frombuffer(self.entries, np.uint64)  # type: ignore[call-overload]  # an array, see `_entries`
        numbers = ring.searchsorted(points << np.uint64(32)) % len(ring)
        ways = ((ring[numbers] >> np.uint64(32)) - points) & np.uint64(0xFFFFFFFF)
        rows = np.arange(len(keys) * len(attempts))
        found: list[int] = numbers.reshape(-1, _POINTS)[rows, ways.reshape(-1, _POINTS).argmin(1)].tolist()
        return found

    def _by_place(self, draw: random.Random) -> Iterator[int]:
        """Yield places in random order: a lazy Fisher-Yates shuffle that stores only the moved places."""
        moved: dict[int, int] = {}
        for i in range(len(self.entries)):
            j = draw.randrange(i, len(self.entries))
            yield self.entries[moved.get(j, j)]
            moved[j] = moved.get(i, i)

    def others(self, places: Iterable[int], block: Sequence[Question]) -> Iterator[Question]:
        """Yield the questions at the given places, without those of the block and without their duplicates.

        Some datasets ask the same question about every context. So questions that differ from the block only in their
        context come last, and only if there are not enough others.
        """
        ids = {question.id for question in block}
        texts = {_folded(question.question) for question in block}  # most questions already differ in their text
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
        places = pool.drawn("random", seed, block[0])
        return tuple(islice(pool.others(places, block), pool.count))

    return pick


def _fixed(pool: _Pool, seed: int) -> Strategy:
    """Show all named questions, or `count` that are drawn once. The next drawn one replaces the asked question."""
    first = tuple(islice(pool.drawn("fixed", seed, None), _READ))  # the same for all questions

    def pick(block: Sequence[Question]) -> tuple[Question, ...]:
        rest = islice(pool.drawn("fixed", seed, None), len(first), None)
        drawn = (place for place in chain(first, rest) if place not in pool.named)
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


_STRATEGIES: Mapping[str, Callable[[_Pool, int], Strategy]] = {
    "random": _random,
    "similar": _similar,
    "diverse": _diverse,
    "fixed": _fixed,
    "none": lambda _pool, _seed: lambda _block: (),
}


class _Nearness:
    """The questions of a pool by descending similarity (BM25)."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self.index = Bm25(pool.texts())

    def to(self, block: Sequence[Question]) -> Iterator[Question]:
        """Yield the questions most similar to a whole block; of duplicates only the first."""
        places = (self._pool.entries[number] for number in self.index.nearest(_together(block)))
        seen: set[object] = set()
        for question in self._pool.others(places, block):
            content = _with_context(question)
            if content not in seen:
                seen.add(content)
                yield question


def _nearest_last(nearest_first: Iterable[Question]) -> tuple[Question, ...]:
    """Put the most similar example last: models weigh the latest text most (recency bias: Zhao et al., 2021)."""
    return tuple(nearest_first)[::-1]


def _spread(asked: Mapping[str, float], vectors: Sequence[Mapping[str, float]], count: int) -> list[int]:
    """Choose by max-marginal relevance (Carbonell and Goldstein, 1998): similar to the question, not to each other."""
    relevance, likeness = _cosines(asked, vectors), [0.0] * len(vectors)  # likeness: the largest to a chosen one
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
    """Return the text by which a question is compared."""
    context = (question.context or "").split()[:_CONTEXT_WORDS]
    return " ".join([question.question, *question.choices, *context])


def _entries(pool: Sequence[Question], worked: str | None, seed: int | None) -> tuple[Sequence[int], Sequence[int]]:
    """Return the entries of all questions, and the entries of the questions with a worked rationale.

    Without a seed, an entry is the question's place. With a seed, its upper 32 bits are a hash of the question's text
    (a point on a ring), its lower 32 bits are the place, and the entries are sorted.
    """
    every: Sequence[int] = range(len(pool))
    if worked is None and seed is None:
        return every, ()
    entries, carriers = array("Q"), array("Q")
    for place, question in enumerate(pool):
        entry = place
        if seed is not None:
            point = hashlib.blake2b(f"{seed} {_text(question)}".encode(), digest_size=4).digest()
            entry |= int.from_bytes(point) << 32
            entries.append(entry)
        if worked is not None and worked_text(question, worked):
            carriers.append(entry)
    if seed is None:
        return every, carriers
    import numpy as np

    for ring in (entries, carriers):
        np.frombuffer(ring, np.uint64).sort()
    return entries, carriers


def _find(pool: Sequence[Question], ids: Sequence[str]) -> tuple[int, ...]:
    """Return the places of the questions with the given ids, in the order of the ids."""
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
            "rationales.examples.ids: name questions of the training split, or none to draw them at random:\n"
            + "\n".join(problems)
        )
    return tuple(places[name] for name in wanted)


def _content(question: Question) -> tuple[str, tuple[str, ...]]:
    """Return what duplicates have in common: text and choices, without their order and spacing."""
    return _folded(question.question), tuple(sorted(map(_folded, question.choices)))


def _with_context(question: Question) -> tuple[object, str]:
    return _content(question), _folded(question.context or "")


def _draw_key(what: str, seed: int, asked: Question | None) -> bytes:
    return hashlib.blake2b(f"{what} {seed} {'' if asked is None else _text(asked)}".encode()).digest()


def _folded(text: str) -> str:
    return one_line(text).casefold()


def _text(question: Question) -> str:
    """Return what identifies a question in a draw. Not its id: in a file without ids, it is the row number."""
    return json.dumps([question.question, question.context, sorted(question.choices)])


def _seeded(seed: int, question_id: str) -> random.Random:
    """Return a generator that is the same on every machine and in every process (`hash` of a text is not)."""
    digest = hashlib.sha256(json.dumps([seed, question_id]).encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))
