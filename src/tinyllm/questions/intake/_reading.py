"""A proven reading: from a row to its question. `understand` finds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllm.questions.intake._answers import NOTHING, SEVERAL, Way, names_empty, resolve
from tinyllm.questions.intake._cells import flat, is_scalar, text_of
from tinyllm.questions.intake._choices import (
    Choices,
    ColumnChoices,
    FixedChoices,
    ListChoices,
    ObjectChoices,
    labels_for,
)
from tinyllm.questions.intake._names import has_role
from tinyllm.questions.types import Question

_HALF = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a row asks.

    Attributes:
        question: the question, without an answer if that of the row cannot be used; or why the row is not a question.
        unused: why the answer of the row cannot be used; empty: it can, or there is none.
        letters: of the choices in the file. Otherwise by their places in the row: A is the first, also if it is empty.
    """

    question: Question | str
    unused: str = ""
    letters: tuple[str, ...] = ()

    @property
    def kept(self) -> Question | str:
        """The question, or why the row is left out where its answer is needed."""
        return self.unused or self.question


@dataclass(frozen=True, slots=True)
class Reading:
    """What each column is, how the answer is given, and the proof.

    Attributes:
        answer: column of the answer; None: the choices mark it, or there is none.
        way: how it is given.
        names: names of the classes, if the answer's column holds class numbers.
        proof: sentences for the user.
        unused: columns that no question uses.
        opens: columns whose cells are lists or objects written as text.
        columns: all columns.
        withheld: whether the answer's column has -1 for unknown answers.
    """

    question: str
    choices: Choices
    context: str | None = None
    answer: str | None = None
    way: Way | None = None
    names: tuple[str, ...] = ()
    identity: str | None = None
    proof: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    opens: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    withheld: bool = False

    def of(self, cells: Mapping[str, Any], name: str) -> Asked:
        """Return what a row asks.

        Args:
            cells: as in the file.
            name: the id of the question, if the row has none.
        """
        cells = flat(cells, self.opens)
        value = cells.get(self.question)
        question = text_of(value) if is_scalar(value) else ""
        if not question:
            return Asked(f"no question in '{self.question}'")
        options = self.choices.of(cells)
        if isinstance(options, str):
            return Asked(options)
        answer, unused = options.right, ""
        if self.choices.answers_itself and answer is None:
            unused = options.marked_wrongly or "no choice is marked as right"
        if self.answer is not None and self.way is not None and not self.choices.answers_itself:
            columns = self.choices.columns if isinstance(self.choices, ColumnChoices) else ()
            found = resolve(cells.get(self.answer), options, self.way, columns, self.names)
            if found < NOTHING:
                shown = repr(cells.get(self.answer))[:60]
                why = "names several choices" if found == SEVERAL else "is none of the choices"
                if names_empty(cells.get(self.answer), options, self.way, columns):
                    why = "names a choice that is empty"
                unused = f"the answer {shown} in '{self.answer}' {why}"
            answer = found if found >= 0 else None
        if answer is not None and options.texts.count(options.texts[answer]) > 1:
            unused = f"the right choice {options.texts[answer][:40]!r} is there twice"
        context = self._context(cells)
        if any(_HALF.search(t) for t in (question, context or "", *options.texts) if not t.isascii()):
            return Asked("a text holds half a character (a surrogate without its pair)")
        given = "" if self.identity is None else text_of(cells.get(self.identity))
        asked = Question(given or name, question, options.texts, None if unused else answer, context)
        letters = tuple(label.upper() for label in options.labels)
        if not all(len(x) == 1 and "A" <= x <= "Z" for x in letters):
            names = labels_for(options.places[-1] + 1)
            letters = tuple(names[place] for place in options.places)
        return Asked(asked, unused, letters)

    def _context(self, cells: Mapping[str, Any]) -> str | None:
        value = None if self.context is None else cells.get(self.context)
        paragraphs = value if isinstance(value, list) else [value]
        return "\n".join(t for t in (text_of(p) for p in paragraphs if is_scalar(p)) if t) or None

    @property
    def explanations(self) -> tuple[str, ...]:
        """The unused columns that may explain the answers."""
        return tuple(c for c in self.unused if has_role(c, "explanation"))

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of `data` for this reading, without the path; None: no settings can express it."""
        choices, fields = self.choices, dict[str, Any]()
        data: dict[str, Any] = {}
        if isinstance(choices, ColumnChoices) and not choices.flags:
            fields["choices"] = list(choices.columns)
        elif isinstance(choices, ListChoices) and not choices.flags and not choices.strip:
            fields["choices"] = choices.column
            fields["labels"] = choices.labels
        elif isinstance(choices, ObjectChoices) and not choices.flag:
            fields["choices"] = f"{choices.column}.{choices.text}"
            fields["labels"] = choices.label and f"{choices.column}.{choices.label}"
        elif isinstance(choices, FixedChoices):
            data["choices"] = list(choices.classes)
        else:
            return None
        ways: Mapping[Way | None, str] = {"from 0": "index", "from 1": "number", "text": "text", None: "index"}
        way = ways.get(self.way, "label" if fields.get("labels") else "letter")
        if way != "label":
            fields.pop("labels", None)
        given = {
            "id": self.identity if self.identity or "id" in self.columns else "id",
            "question": self.question,
            "context": self.context or "context",
            "answer": self.answer,
            "answer_as": way if self.answer else "index",
            **({"no_answer": -1} if self.withheld else {}),
        }
        usual = {k: k for k in ("id", "question", "context", "choices", "answer")} | {"answer_as": "index"}
        fields = {k: v for k, v in (given | fields).items() if usual.get(k, "") != v}
        return {**({"fields": fields} if fields else {}), **data}
