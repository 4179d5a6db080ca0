"""A made-up experiment: records with answers of known accuracies, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinyllm.comparison.answers import Answer, Answers
from tinyllm.comparison.outline import DatasetOutline, MethodOutline, Outline
from tinyllm.comparison.records import LOG_FILE, Record, cells
from tinyllm.comparison.selection import Sweep
from tinyllm.system.files import write_jsonl

METHODS: dict[str, tuple[str, float]] = {
    "inference": ("reference", 0.30),
    "fine-tuning": ("method", 0.50),
    "tinyllm": ("method", 0.75),
    "one-random": ("router", 0.50),
    "shuffled": ("control", 0.30),
}
"""Kind and accuracy of each method."""


def made_up_experiment(
    folder: Path,
    *,
    datasets: Sequence[str] = ("arc", "<b>obqa"),
    seeds: Sequence[int] = (0, 1),
    count: int = 200,
    alphas: Sequence[float] = (),
    students: Sequence[str] = ("tiny",),
    texts: bool = True,
) -> Outline:
    """Write an experiment's folder; `texts` also writes the questions."""
    every = [(d, s, m, seed, a) for d in datasets for s in students for m in METHODS for seed in seeds
             for a in ((alphas or (None,)) if m == "tinyllm" else (None,))]  # fmt: skip
    for dataset, student, method, seed, alpha in every:
        if method == "inference" and seed != seeds[0]:
            continue
        settings = {} if alpha is None else {"alpha": alpha}
        _write_record(folder, dataset, student, method, settings, seed, count, seed == seeds[0])
    data = {dataset: _data(folder, dataset, count) if texts else {"folder": "/nowhere"} for dataset in datasets}
    outline = Outline(
        name="made <i>up",
        datasets={d: _dataset(data[d], count, _rationales(folder, d) if texts else None) for d in datasets},
        students={s: "google/flan-t5-small" if s == "t5" else s for s in students},
        methods=tuple(
            MethodOutline(
                m, m, m.capitalize(), kind,  # type: ignore[arg-type]
                Sweep(tuple(seeds) if m != "inference" else (seeds[0],), tuple(alphas) if m == "tinyllm" else ()),
                tuple(datasets),
            )
            for m, (kind, _) in METHODS.items()
        ),
        baseline="fine-tuning",
        scorer="likelihood",
        seeds=tuple(seeds),
        quoted={"GPT <quoted>": {datasets[0]: 81.5}},
    )  # fmt: skip
    outline.write(folder)
    return outline


def _dataset(data: dict[str, Any], count: int, rationales: str | None) -> DatasetOutline:
    return DatasetOutline(
        questions={"train": 20, "valid": 40, "test": count},
        chance=0.25,
        majority=0.28,
        exact=("t1",),
        ngram=("t2", "t3"),
        teachers={"ada": {"rationales": 18, "missing": 1, "rejected": {"empty": 1}}, "<b>bob": {"rationales": 20}},
        data=data,
        rationales=rationales,
        valid_ngram=("t3", "t4"),
        majority_right=tuple(f"t{i}" for i in range(0, count, 4)),
    )


def _rationales(folder: Path, dataset: str) -> str:
    """Write the rationales of the training questions."""
    place = folder / "shared" / dataset.replace("<b>", "")
    place.mkdir(parents=True)
    rows = [
        {"question_id": f"r{i}", "teacher": t, "text": f"It is c{i % 4} </script>", "repaired": ["cut_off"] if i % 2 else []}
        for i in range(20) for t in ("ada", "<b>bob") if (i, t) != (3, "ada")
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), place / "rationales.parquet")
    write_jsonl(place / "rejected.jsonl", [{"question_id": "r3", "teacher": "ada", "reason": "empty", "text": ""}])
    return str(place.relative_to(folder))


def _write_record(
    folder: Path, dataset: str, student: str, method: str, settings: dict[str, Any], seed: int, count: int, first: bool
) -> None:
    rng = np.random.default_rng([seed, *map(ord, dataset + method + json.dumps(settings))])
    answers = [_answer("valid", "asked", f"v{i}", rng, METHODS[method][1]) for i in range(40)]
    answers += [_answer("test", "asked", f"t{i}", rng, METHODS[method][1]) for i in range(count)]
    if first:
        answers += [_answer("test", "rotated", f"t{i}", rng, METHODS[method][1]) for i in range(count)]
        answers += [_answer("test", "choices-only", f"t{i}", rng, 0.25) for i in range(count)]
    found = Answers.of(answers)
    key = "--".join(
        [dataset.replace("<b>", ""), student, method, *(f"{k}={v}" for k, v in settings.items()), str(seed)]
    )
    place = cells(folder) / key
    found.write(place)
    trains = method != "inference"
    if trains:
        tasks = ("answer",) if method == "fine-tuning" else ("answer", "ada", "<b>bob")
        write_jsonl(place / LOG_FILE, [{"step": i + 1, "losses": dict.fromkeys(tasks, 3 / (i + 1))} for i in range(12)])
    figures = {
        "accuracy": found.accuracies(),
        "train": {"seconds": 12.5, "tokens": 1000, "padding_fraction": 0.01, "peak_memory_bytes": 1 << 30}
        if trains
        else {},
        "evaluate_seconds": 3.0,
        "seconds": 20.0,
        "environment": {"date": "2026-01-02T03:04:05+00:00", "packages": {"torch": "2"}},
    }
    record = Record(place, key, dataset, student, method, settings, seed, "same", "", {}, figures)
    record.write()


def _answer(split: Any, view: Any, name: str, rng: np.random.Generator, accuracy: float) -> Answer:
    right = int(name[1:]) % 4
    chosen = right if rng.random() < accuracy else (right + 1) % 4
    total = tuple(-1.0 if c == chosen else -3.0 for c in range(4))
    writes = view == "asked" and split == "test"
    return Answer(split, view, name, right, total, total, f"c{chosen}" if writes else None, chosen if writes else None)


def _data(folder: Path, dataset: str, count: int) -> dict[str, Any]:
    """Write the questions, some with hostile texts."""
    place = folder / "data" / dataset.replace("<b>", "")
    for split, prefix, size in (("train", "r", 20), ("valid", "v", 40), ("test", "t", count)):
        rows = [
            {
                "id": f"{prefix}{i}",
                "question": f"Which is number {i}? <script>alert(1)</script> {'word ' * 20}",
                "choices": [f"c{k} </script>" for k in range(4)],
                "answer": i % 4,
                "rationales": {"ada": f"It is c{i % 4}, because & so on.", "<b>bob": "<img src=x onerror=alert(1)>"},
            }
            for i in range(size)
        ]
        write_jsonl(place / f"{split}.jsonl", rows)
    return {"folder": str(place)}
