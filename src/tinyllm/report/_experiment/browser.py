"""The questions of an experiment as JSON for the page's script: one element for each dataset and student."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinyllm.comparison.answers import Scorer
from tinyllm.comparison.outline import DatasetOutline, MethodOutline
from tinyllm.comparison.results import Place, Results
from tinyllm.config import DataSection
from tinyllm.errors import TinyLLMError
from tinyllm.questions import load_splits
from tinyllm.questions.types import Question, Splits
from tinyllm.rationales.files import RATIONALES, read_rationales
from tinyllm.report._browser import MAX_QUESTIONS, safe_json
from tinyllm.system.files import read_jsonl


def islands(results: Results, folder: Path, scorer: Scorer) -> tuple[list[tuple[str, str]], int]:
    """Return (label, JSON) for each dataset and student, and the number of questions that are left out.

    Each dataset and student gets an equal share of `MAX_QUESTIONS`, test questions first. Texts are left out where the
    data cannot be read.
    """
    outline = results.outline
    texts = {dataset: (_splits(facts), _notes(folder, facts)) for dataset, facts in outline.datasets.items()}
    rows = {
        (dataset, student): list(_rows(results, student, dataset, scorer, *texts[dataset]))
        for student in outline.students
        for dataset in outline.datasets
    }
    share = MAX_QUESTIONS // max(1, len(rows))
    spare = sum(max(0, share - len(r)) for r in rows.values())
    made, left_out = [], 0
    for (dataset, student), all_ in rows.items():
        room = share + min(spare, max(0, len(all_) - share))
        spare -= room - share
        left_out += max(0, len(all_) - room)
        methods = _methods(results, student, dataset)
        data = {
            "methods": [m.label for m in methods],
            "baseline": next((i for i, m in enumerate(methods) if m.id == outline.baseline), 0),
            "chief": next((i for i, m in enumerate(methods) if m.like == "tinyllm"), len(methods) - 1),
            "teachers": list(outline.datasets[dataset].teachers),
            "questions": all_[:room],
        }
        made.append((outline.where(student, dataset), safe_json(data)))
    return made, left_out


def _methods(results: Results, student: str, dataset: str) -> list[MethodOutline]:
    return [m for m in results.outline.methods if results.of(Place(student, dataset, m.id))]


def _rows(
    results: Results,
    student: str,
    dataset: str,
    scorer: Scorer,
    splits: Splits | None,
    notes: Mapping[str, Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield the test questions with the answers of each method, then the training questions with their rationales."""
    known = {q.id: q for q in splits.test} if splits is not None else {}
    chosen, keys = _chosen(results, student, dataset, scorer)
    for name, answers in chosen.items():
        question = known.get(name)
        if question is not None and question.answer != keys[name]:
            question = None  # the data have changed: this is another question with the same id
        yield {"id": name, "split": "test", **_texts(question), "k": keys[name], "a": answers}
    for question in splits.train if splits is not None else ():
        if question.id in notes:
            yield {"id": question.id, "split": "train", **_texts(question, own=False), **notes[question.id]}


def _chosen(
    results: Results, student: str, dataset: str, scorer: Scorer
) -> tuple[dict[str, list[list[int]]], dict[str, int]]:
    """Return the choices for each test question by method and seed, and the right choice."""
    found: dict[str, list[list[int]]] = {}
    keys: dict[str, int] = {}
    methods = _methods(results, student, dataset)
    for index, method in enumerate(methods):
        for record in results.of(Place(student, dataset, method.id)):
            scored = record.answers.scored(scorer)
            if scored is None:
                continue
            keys |= dict(zip(scored.ids.tolist(), scored.key.tolist(), strict=True))
            for name, choice in zip(scored.ids.tolist(), scored.chosen.tolist(), strict=True):
                found.setdefault(name, [[] for _ in methods])[index].append(choice)
    return found, keys


def _texts(question: Question | None, *, own: bool = True) -> dict[str, Any]:
    """Return the texts of a question. `own` adds the rationales that came with the data."""
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
    for row in read_jsonl(folder / facts.rationales / "rejected.jsonl"):
        if row.get("kind", "rationale") != "rationale":
            continue
        found[str(row["question_id"])]["rejected"].append([row["teacher"], row.get("text") or "", row["reason"]])
    return dict(found)


def _splits(facts: DatasetOutline) -> Splits | None:
    try:
        return load_splits(DataSection.model_validate(facts.data))
    except (TinyLLMError, OSError):
        return None
