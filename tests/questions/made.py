"""Questions files for the tests, and reading them back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm.config import DataSection
from tinyllm.questions import Question, Splits, load_splits

NO_CUT = {"valid": 0, "test": 0}


def rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Two-way questions with the ids q0, q1, …"""
    return [{"id": f"q{i}", "question": f"q {i}?", "choices": ["x", "y"], "answer": i % 2} for i in range(start, count)]


def write(path: Path, *lines: object) -> Path:
    """Write a text as it is, and anything else as JSON, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def load(fetch: Any = None, in_memory: int = 10_000, **data: object) -> Splits:
    """Load the questions of a `data` section."""
    return load_splits(DataSection.model_validate(data), fetch=fetch, in_memory=in_memory)


def train(path: Path, **data: object) -> Sequence[Question]:
    """Load all questions of one file."""
    return load(train=path, cut=NO_CUT, **data).train
