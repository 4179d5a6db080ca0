"""Fixtures of a made-up run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import made_up_metrics, write_json, write_made_up_run


@pytest.fixture
def made_up_run(tmp_path: Path) -> Path:
    """A run folder with every file."""
    return write_made_up_run(tmp_path / "made-up")


@pytest.fixture
def edit_metrics(made_up_run: Path) -> Callable[..., None]:
    """Change top-level keys of the made-up metrics; None takes a key out."""

    def edit(**changes: Any) -> None:
        metrics = made_up_metrics() | changes
        write_json(made_up_run / "metrics.json", {key: value for key, value in metrics.items() if value is not None})

    return edit
