"""The questions of an experiment as data for the page's script, an island a dataset and student, parsed when opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyllm.config import DataSection
from tinyllm.errors import TinyLLMError
from tinyllm.evidence.answers import Scorer
from tinyllm.evidence.outline import DatasetOutline
from tinyllm.evidence.results import Place, Results
from tinyllm.questions import load_splits
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.files import RATIONALES, REJECTED, read_rationales
from tinyllm.report.browser import MAX_QUESTIONS, safe_json
from tinyllm.runs import read_jsonl


def islands(results: Results, folder: Path, scorer: Scorer) -> list[tuple[str, str]]:
    """Return (label, JSON) of each dataset and student; texts are left out where the data are not at hand."""
    made, room = [], MAX_QUESTIONS
    for dataset, facts in results.outline.datasets.items():
        splits = _splits(facts)
        notes = _notes(folder, facts)
        for student in results.outline.students:
            rows = list(_rows(results, student, dataset, scorer, splits, notes))[:room]
            room -= len(rows)
            label = f"{dataset}, {student}" if len(results.outline.students) > 1 else dataset
            made.append((label, safe_json(_island(results, student, dataset, rows))))
    return made


def _island(results: Results, student: str, dataset: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    methods = [m for m in results.outline.methods if results.of(Place(student, dataset, m.id))]
    return {
        "methods": [m.label for m in methods],
        "baseline": next((i for i, m in enumerate(methods) if m.id == results.outline.baseline), 0),
        "chief": next((i for i, m in enumerate(methods) if m.id == "tinyllm"), len(methods) - 1),
        "teachers": list(results.outline.datasets[dataset].teachers),
        "questions": rows,
    }


def _rows(
    results: Results,
    student: str,
    dataset: str,
    scorer: Scorer,
    splits: Splits | None,
    notes: Mapping[str, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield the test questions with every method's answers, then the training questions with their rationales."""
    known = {q.id: q for q in splits.test} if splits is not None else {}
    chosen = _chosen(results, student, dataset, scorer)
    for name, answers in chosen.items():
        yield {"id": name, "split": "test", **_texts(known.get(name)), "a": answers}
    for question in splits.train if splits is not None else ():
        if question.id in notes:
            yield {"id": question.id, "split": "train", **_texts(question, own=False), **notes[question.id]}


def _chosen(results: Results, student: str, dataset: str, scorer: Scorer) -> dict[str, list[list[int]]]:
    """Return, for each test question, the choice of each method (in their order) with each seed."""
    found: dict[str, list[list[int]]] = {}
    methods = [m for m in results.outline.methods if results.of(Place(student, dataset, m.id))]
    for index, method in enumerate(methods):
        for record in results.of(Place(student, dataset, method.id)):
            scored = record.answers.scored(scorer)
            for name, choice in zip(scored.ids, scored.chosen, strict=True) if scored is not None else ():
                found.setdefault(str(name), [[] for _ in methods])[index].append(int(choice))
    return found


def _texts(question: Question | None, *, own: bool = True) -> dict[str, Any]:
    """Return what a question says; `own` rationales came with the data and were not asked for."""
    if question is None:
        return {}
    texts: dict[str, Any] = {"q": question.question, "c": list(question.choices), "k": question.answer}
    if question.context:
        texts["x"] = question.context
    if own and question.rationales:
        texts["given"] = [[teacher, text] for teacher, text in question.rationales.items()]
    return texts


def _notes(folder: Path, facts: DatasetOutline) -> dict[str, dict[str, Any]]:
    """Return the checked rationales of the training questions, and the rejected replies."""
    if facts.rationales is None or not (folder / facts.rationales / RATIONALES).is_file():
        return {}
    found: dict[str, dict[str, Any]] = defaultdict(lambda: {"kept": [], "rejected": []})
    for rationale in read_rationales(folder / facts.rationales):
        found[rationale.question_id]["kept"].append([rationale.teacher, rationale.text, ", ".join(rationale.repaired)])
    for row in read_jsonl(folder / facts.rationales / REJECTED):
        found[str(row["question_id"])]["rejected"].append([row["teacher"], row.get("text") or "", row["reason"]])
    return dict(found)


def _splits(facts: DatasetOutline) -> Splits | None:
    try:
        return load_splits(DataSection.model_validate(facts.data))
    except (TinyLLMError, OSError):
        return None
