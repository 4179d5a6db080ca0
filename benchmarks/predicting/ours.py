"""`tinyllm predict` on a file: `python -m benchmarks.predicting.ours STUDENT QUESTIONS` prints JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.training.models import peak_bytes
from tinyllm.inference import load, predict_file
from tinyllm.questions.types import Question
from tinyllm.system.machine import keep_freed_memory, spin_shortly
from tinyllm.system.news import News

WARM = 8


def main(folder: str, questions: str) -> None:
    """Answer and print; loading is not timed."""
    spin_shortly()
    keep_freed_memory()
    student = load(folder)
    lines = [json.loads(line) for line in Path(questions).read_text("utf-8").splitlines()]
    student.answers([Question(d["id"], d["question"], tuple(d["choices"]), None) for d in lines[:WARM]])
    with tempfile.TemporaryDirectory() as scratch:
        done = predict_file(lambda: student, Path(questions), Path(scratch) / "out.jsonl", News(quiet=True))
        chosen = [json.loads(line)["choice"] for line in done.file.read_text("utf-8").splitlines()]
    print(json.dumps({"seconds": done.seconds, "chosen": chosen, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
