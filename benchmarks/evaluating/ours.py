"""TinyLLM's likelihood ranking on a job: `python -m benchmarks.evaluating.ours JOB` prints JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.training.models import peak_bytes
from tinyllm.config import StudentSection
from tinyllm.questions.types import Question
from tinyllm.scoring.score import score_options
from tinyllm.student.model import StudentCard, load_student
from tinyllm.system.machine import keep_freed_memory, spin_shortly


def main(job_file: str) -> None:
    """Score and print; loading is not timed."""
    spin_shortly()
    keep_freed_memory()
    job = json.loads(Path(job_file).read_text("utf-8"))
    card = StudentCard(prefixes={"answer": job["prefix"]}, layout=job["layout"])
    student = load_student(StudentSection(model=os.environ["BENCH_SMOLLM"]), card)
    learner = student.learner(learns=False)
    questions = [Question(d["id"], d["question"], tuple(d["choices"]), d["answer"]) for d in job["docs"]]
    score_options(student, learner, questions[:8])
    began = time.perf_counter()
    scores = score_options(student, learner, questions, batch_tokens=job["batch_tokens"])
    seconds = time.perf_counter() - began
    chosen = [s.best for s in scores]
    print(json.dumps({"seconds": seconds, "chosen": chosen, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
