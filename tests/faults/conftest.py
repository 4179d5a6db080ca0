"""The short form of the fault tests runs with all others; `make test-faults` runs the long one and keeps its figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FIGURES: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether this is `make test-faults`."""
    return os.environ.get("TINYLLM_FAULTS") == "full"


@pytest.fixture
def figures() -> Callable[..., None]:
    """Keep figures for the table at the end."""

    def keep(name: str, **values: Any) -> None:
        FIGURES[name] = values

    return keep


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures, and write them where `make test-faults` wants them."""
    if not FIGURES:
        return
    terminalreporter.section("faults")
    for name, values in FIGURES.items():
        terminalreporter.write_line(f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items()))
    if target := os.environ.get("TINYLLM_FAULTS_FIGURES"):
        Path(target).write_text(json.dumps(FIGURES, indent=2) + "\n", encoding="utf-8")
