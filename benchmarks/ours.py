"""One generation in a process of its own: `python -m benchmarks.ours CONFIG RUN_DIR` prints what it took, as JSON.

Everything that is imported on the way is imported before the clock starts, as it is for the peers.

    began, ended      around `generate_run`, seconds since 1970: from reading the questions to the last file written
    phases            label of each stage of it (as a person sees them) → when it began and ended;
                      when "Rationales" ends every reply is durable
    yields            what the teacher gave
    opinions          the figures of its opinions, where it was asked for them
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tinyllm.system.files import read_json
from tinyllm.system.machine import spin_shortly
from tinyllm.system.news import News, Task

_IMPORTED_ON_THE_WAY = (
    "aiohttp",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.t5.configuration_t5",
    "tinyllm.stages.generate",
    "tinyllm.student.model",
    "tinyllm.student.train",
    "tinyllm.rationales.files",
    "tinyllm.rationales.generate",
    "tinyllm.teachers._llamacpp",
    "tinyllm.teachers._openai",
    "tinyllm.teachers._scripted",
)


class TimedNews(News):
    """Tells nothing, and notes when each stage began and ended."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.phases: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """Note a stage."""
        began = time.time()
        with super().task(label, total) as task:
            yield task
        self.phases[label] = began, time.time()


def main(config_file: str, run_dir: str) -> None:
    """Generate and print."""
    spin_shortly()  # as the command line does
    for module in _IMPORTED_ON_THE_WAY:
        importlib.import_module(module)
    from tinyllm.config import load_config
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.generate import generate_run

    config, run, news = load_config(Path(config_file)), RunFolder(Path(run_dir)), TimedNews()
    with run.claimed(config, renews_rationales=True):
        began = time.time()
        yields = generate_run(config, run, news)
        ended = time.time()
    found = {
        "began": began,
        "ended": ended,
        "phases": news.phases,
        "yields": {name: asdict(teacher) for name, teacher in yields.items()},
        "opinions": read_json(run.path / "opinions.json") if config.opinions.teachers else None,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
