"""A made-up run folder with all files of a finished run."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCRIPT = "<script>alert(1)</script>"
EVIL_TEACHER = f"evil{SCRIPT}"

CONFIG = """\
name: made-up
preset: paper
data: {folder: questions}
teachers:
- {name: smollm2, kind: llamacpp, model: smollm2-135m-instruct}
- {name: gemma3, kind: openai, model: gemma3-270m, base_url: https://api.example.com/v1}
student: {model: smollm2-135m-instruct, adapter: lora}
train:
  method: tinyllm
  alpha: {smollm2: 1.0, gemma3: 0.5}
"""

SUBJECTS = ["a magnet", "a seed in the dark", "an iron nail", "a puddle in the sun", "the Moon", "a hibernating bear"]
CHOICES = ["it takes up water", "it is drawn to the pole", "it loses heat slowly", "it turns into vapour"]


def write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree), "utf-8")


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_rationales(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    kinds = [("question_id", pa.string()), ("teacher", pa.string()), ("text", pa.string())]
    pq.write_table(pa.Table.from_pylist(list(rows), pa.schema([*kinds, ("repaired", pa.list_(pa.string()))])), path)


def prediction(stage: str, split: str, number: int, pred: int, dice: random.Random, **more: Any) -> dict[str, Any]:
    total = [-14.0 - 5 * dice.random() for _ in CHOICES]
    total[pred] = -12.5 - dice.random()
    return {
        "stage": stage,
        "split": split,
        "id": f"{split}-{number}",
        "question": f"Which of these best explains what happens to {SUBJECTS[number % 6]} in experiment {number}?",
        "choices": CHOICES,
        "answer": number % 4,
        "likelihood": {"pred": pred, "total": total, "mean": [value / 4 for value in total]},
        "generation": {
            "text": CHOICES[pred] if stage == "after" else "The",
            "pred": pred if stage == "after" else None,
        },
        **more,
    }


def accuracy(value: float, n: int = 100, **more: Any) -> dict[str, Any]:
    reach = 1.96 * math.sqrt(value * (1 - value) / n)
    return {"value": value, "ci95": [value - reach, value + reach], "n": n, **more}


def made_up_metrics() -> dict[str, Any]:
    return {
        "name": "made-up",
        "preset": "paper",
        "method": "tinyllm",
        "student": "smollm2-135m-instruct",
        "accuracy": {
            "likelihood": accuracy(0.46),
            "likelihood_normalised": accuracy(0.41),
            "generation": accuracy(0.44, unparsed=3),
        },
        "before": {
            "likelihood": accuracy(0.31),
            "likelihood_normalised": accuracy(0.33),
            "generation": accuracy(0.08, unparsed=71),
        },
        "majority": 0.27,
        "chance": 0.25,
        "teachers": {
            "smollm2": {
                "rationales": 171,
                "missing": 2,
                "rejected": {"wrong_answer": 14, "repeats": 10, "empty": 3},
                "repaired": {"cut_off": 44, "runs_on": 9},
                "resampled": {"repeats": 31},
                "prompt_tokens": 60_000,
                "completion_tokens": 14_000,
                "cached_tokens": 45_000,
            },
            "gemma3": {"rationales": 188, "missing": 0, "rejected": {"repeats": 12}, "repaired": {}},
        },
        "train": {
            "examples_per_second": 6.42,
            "target_tokens": 48211,
            "padding_fraction": 0.064,
            "seconds": 187.3,
            "peak_memory_bytes": 1_932_735_283,
            "steps": 120,
        },
        "data": {
            "train": 200,
            "valid": 40,
            "test": 100,
            "dropped": [
                {"split": "train", "where": "train.jsonl, line 17", "reason": f"empty choice {SCRIPT}"},
                *({"split": "test", "where": f"test.jsonl, line {n}", "reason": "answer 4 of 4"} for n in range(60)),
            ],
            "warnings": {"a wrong choice stands twice": 3},
        },
    }


def made_up_log(steps: int = 120) -> list[dict[str, Any]]:
    dice = random.Random(0)
    rows = []
    for step in range(1, steps + 1):
        fall = math.exp(-step / 40)
        losses = {
            "answer": 0.4 + 1.6 * fall + dice.gauss(0, 0.12),
            "smollm2": 1.9 + 1.1 * fall + dice.gauss(0, 0.10),
            "gemma3": 1.5 + 1.3 * fall + dice.gauss(0, 0.14),
        }
        if step % 7 == 0:
            del losses["gemma3"]  # a batch in which this teacher has no rationale
        rate = 2e-4 * (1 - step / steps)
        rows.append(
            {"step": step, "epoch": step / 60, "loss": sum(losses.values()), "losses": losses, "learning_rate": rate,
             "grad_norm": 1.5 + dice.random(), "seconds": 1.5 * step}
        )  # fmt: skip
    return rows


def made_up_predictions(test: int = 100, train: int = 30) -> list[dict[str, Any]]:
    dice = random.Random(1)
    rows = []
    for stage, right in (("before", 0.31), ("after", 0.46)):
        for split, number in [("test", n) for n in range(test)] + [("train", n) for n in range(train)]:
            pred = number % 4 if dice.random() < right else dice.randrange(4)
            more: dict[str, Any] = {}
            if number < 8:
                more["rationales"] = {"smollm2": f"It is so, {stage} all.", "gemma3": "Heat moves from warm to cold."}
            if number == 1:
                more["context"] = "Experiments were made in a dim and draughty shed, over three winters. " * 12
            if split == "train" and number == 2:
                more["question"] = f"What does {SCRIPT} do?"
            rows.append(prediction(stage, split, number, pred, dice, **more))
    return rows


def made_up_rationales(train: int = 30) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(train):
        said = f"Water {CHOICES[number % 4][3:]}. Warm air holds more of it than cold air does, so the puddle shrinks."
        rows.append({"question_id": f"train-{number}", "teacher": "smollm2", "text": said, "repaired": ["cut_off"]})
        if number != 3:
            rows.append({"question_id": f"train-{number}", "teacher": "gemma3", "text": said * 2, "repaired": []})
    rows[0]["text"] = f"Because of {SCRIPT}</script><!--\u2028 & more."
    rows.append({"question_id": "train-1", "teacher": EVIL_TEACHER, "text": "Evil, but kept.", "repaired": []})
    return rows


def write_made_up_run(run: Path) -> Path:
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG, "utf-8")
    machine = {"processor": "two cores", "memory_bytes": 8_000_000_000}
    write_json(
        run / "environment.json", {"date": "2026-01-31", "seed": 0, "machine": machine, "versions": {"torch": "2.7"}}
    )
    write_json(run / "metrics.json", made_up_metrics())
    write_lines(run / "train_log.jsonl", made_up_log())
    write_lines(run / "predictions.jsonl", made_up_predictions())
    write_rationales(run / "rationales.parquet", made_up_rationales())
    write_lines(
        run / "rejected.jsonl",
        [
            {
                "question_id": "train-3",
                "teacher": "gemma3",
                "reason": "repeats",
                "text": "It is. It is. It is. " + SCRIPT,
            }
        ],
    )
    return run
