"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Models this small are slower with several threads; set before torch is loaded, here and in processes started by tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test asks the hub. Its client would try again and again for half a minute where there is no network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis  # noqa: F401 - its import looks for referrers of objects, and does not see frozen ones
import pytest

import tinyllm.cli
from projects import Project
from support import save_tiny

SLOWEST = (
    "test_tutorials.py", "experiments/test_experiment.py", "cli/test_cli.py", "student/test_train.py",
    "faults/test_use_faults.py", "faults/test_generation_faults.py", "test_docs.py", "student/test_choices.py",
    "comparison/test_seeds.py",
)  # fmt: skip
"""Files that take longest. They come first, so that no worker is left with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first. `make test` tells pytest-xdist to keep the order."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(SLOWEST)))


def pytest_collection_finish() -> None:
    """Keep the garbage collector from modules and tests: each run of a command looks for garbage several times."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def cli(capsys) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        try:
            tinyllm.cli.main([str(a) for a in arguments])
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return Said(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory) -> Path:
    """A tiny T5 in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "t5", "t5")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A tiny Llama in a folder."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "llama", "llama")


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """A headless Chromium that logs its console and its requests."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = tmp_path_factory.mktemp("profile")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update", f"user-data-dir={profile}",
                 "window-size=1280,900", "disable-dev-shm-usage", "force-prefers-reduced-motion"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def project(tmp_path, tiny_t5, monkeypatch) -> Project:
    """A project of one's own, which is also the current folder."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, tiny_t5)
