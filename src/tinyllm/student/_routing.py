"""Pure helpers of the mixtures: they choose among the rationales of a question, or change their texts."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from tinyllm.questions.bm25 import Bm25
from tinyllm.questions.types import Question
from tinyllm.rationales.types import Rationale

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_FUNCTION_WORDS = frozenset(
    """
    a about above after again against all also am an and any are aren't as at be because been before being below
    between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each few for
    from further had hadn't has hasn't have haven't having he her here hers herself him himself his how i if in into is
    isn't it it's its itself just let let's me more most my myself no nor not now of off on once only or other our ours
    ourselves out over own same she should shouldn't so some such than that that's the their theirs them themselves
    then there there's these they this those through to too under until up us very was wasn't we were weren't what when
    where which while who whom whose why will with won't would wouldn't you your yours yourself yourselves
    """.split()  # noqa: SIM905  a list of so many would fill pages
)


def best_of_each(rationales: Iterable[Rationale], merit: Callable[[Rationale], float]) -> list[Rationale]:
    """Return the rationale with the highest merit for each question; of equals the first one."""
    best: dict[str, tuple[float, Rationale]] = {}
    for rationale in rationales:
        worth = merit(rationale)
        if rationale.question_id not in best or worth > best[rationale.question_id][0]:
            best[rationale.question_id] = worth, rationale
    return [rationale for _, rationale in best.values()]


def shuffled(rationales: Sequence[Rationale], seed: int) -> list[Rationale]:
    """Give each question the rationale of another question by the same teacher, if there is another question.

    Each text is used once, so the lengths and the style of a teacher's texts do not change.
    """
    of_teacher: dict[str, list[Rationale]] = {}
    for rationale in rationales:
        of_teacher.setdefault(rationale.teacher, []).append(rationale)
    moved = []
    for teacher, own in of_teacher.items():
        order = list(own)
        random.Random(f"{seed} {teacher}").shuffle(order)
        of_question: dict[str, list[Rationale]] = {}
        for rationale in order:
            of_question.setdefault(rationale.question_id, []).append(rationale)
        order = [r for several in of_question.values() for r in several]
        far = max(map(len, of_question.values()))  # to another question, from each of its rationales
        moved += [replace(r, text=n.text) for r, n in zip(order, [*order[far:], *order[:far]], strict=True)]
    return moved


def content_words(text: str) -> str:
    """Return the words of a text without English function words and punctuation, in order."""
    return " ".join(w for w in _WORD.findall(text) if w.casefold().replace("’", "'") not in _FUNCTION_WORDS)


class Nearness:
    """Cosine of the tf-idf vectors of a rationale and of its question with the answer, between 0 and 1."""

    def __init__(self, questions: Sequence[Question], rationales: Sequence[Rationale]) -> None:
        self._texts = {q.id: f"{q.question} {q.answer_text}" for q in questions}
        self._index = Bm25([*self._texts.values(), *(r.text for r in rationales)])

    def __call__(self, rationale: Rationale) -> float:
        """Return the similarity of a rationale; 0 if its question is unknown."""
        wanted = self._index.vector(self._texts.get(rationale.question_id, ""))
        said = self._index.vector(rationale.text)
        return sum(weight * said.get(word, 0.0) for word, weight in wanted.items())
