"""The short form of the fault tests runs with all tests. `make test-faults` runs the long form and keeps figures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import common

USE = "fault: "  # begins the names of figures about predicting and serving; they have a file of their own


@pytest.fixture(scope="session")
def full() -> bool:
    """Whether this is `make test-faults`."""
    return os.environ.get("TINYLLM_FAULTS") == "full"


@pytest.fixture
def figures(request) -> Callable[..., None]:
    """Keep figures for the table at the end; `wrong` counts what must not happen: lost, doubled, overspent, …

    They travel with the test's report, so they also arrive from the worker processes of pytest-xdist.
    """

    def keep(name: str, *, wrong: int, **values: Any) -> None:
        request.node.user_properties.append(("figures", [name, {"wrong": wrong, **values}]))

    return keep


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the figures, and write them where `make test-faults` wants them."""
    reports = (r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ()))
    kept = dict(value for r in reports for name, value in r.user_properties if name == "figures")
    if not kept:
        return
    terminalreporter.section("faults")
    for name, values in kept.items():
        terminalreporter.write_line(f"{name}: {_words(values)}")
    if target := os.environ.get("TINYLLM_FAULTS_FIGURES"):
        _write(Path(target), kept)


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())


def _write(folder: Path, kept: Mapping[str, Mapping[str, Any]]) -> None:
    using = {name: values for name, values in kept.items() if name.startswith(USE)}
    generating = {name: values for name, values in kept.items() if name not in using}
    if generating:
        about = (
            "`tinyllm generate` as a process, against a server in another; every fault is a real one. A row counts "
            "what must not happen: questions without an outcome, replies kept twice, requests beyond their bound, "
            "money beyond the cap."
        )
        rows = _rows(generating, "lost, doubled or overspent")
        common.write(common.Result("faults", "Faults", about, "make test-faults", rows), folder, None)
    if using:
        file = folder / "serve.json"
        before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        old = [r["name"] for r in before.get("rows", ()) if r["name"].startswith(USE)]
        rows = _rows(using, "wrong")
        about = before.get("about", "A row of a fault counts what must not happen.")
        found = common.Result("serve", "Serving", about, "make test-faults", rows)
        common.write(found, folder, None, replaces=old)


def _rows(kept: Mapping[str, Mapping[str, Any]], unit: str) -> list[common.Row]:
    bound = common.Reach("ours", "at most", 0)
    return [
        common.row(
            f"{name} ({_words({k: v for k, v in values.items() if k != 'wrong'})})",
            [values["wrong"]],
            unit=unit,
            reach=bound,
        )
        for name, values in kept.items()
    ]
