"""A small experiment: questions of two datasets, and a grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def write_dataset(folder: Path, count: int = 24, marker: str = "") -> Path:
    """Questions with both teachers' rationales, in three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["ice", "water", "iron", "the moon"]
    for split, size in (("train", count), ("valid", 8), ("test", 12)):
        rows = [
            {
                "id": f"{split}{i}",
                "question": f"{marker}Which is number {i}?",
                "choices": words,
                "answer": i % 4,
                "rationales": {
                    "ada": f"It is {words[i % 4]}, because number {i} is always that.",
                    "bob": f"The right one is {words[i % 4]} since all the others are wrong.",
                },
            }
            for i in range(size)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def base(*teachers: str, **train: Any) -> dict[str, Any]:
    """The settings of all runs: teachers whose rationales come with the data, and a short training."""
    return {
        "teachers": [{"name": name, "kind": "given"} for name in teachers or ("ada", "bob")],
        "train": {"learning_rate": 1e-2, "batch_size": 8, "epochs": 1, **train},
        "evaluate": {"max_new_tokens": 4},
    }


def grid_tree(folder: Path, student: Path, **more: Any) -> dict[str, Any]:
    """A small grid over two datasets."""
    return {
        "name": "small",
        "base": base(),
        "datasets": {
            "one": {"data": {"folder": str(write_dataset(folder / "one"))}},
            "two": {"data": {"folder": str(write_dataset(folder / "two", marker="Say: "))}},
        },
        "students": {"tiny": {"student": {"model": str(student)}}},
        "methods": ["inference", "fine-tuning", "tinyllm"],
        "seeds": [0, 1],
        **more,
    }


def write_grid(folder: Path, tree: dict[str, Any]) -> Path:
    """The grid as a file."""
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return file
