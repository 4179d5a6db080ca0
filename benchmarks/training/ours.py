"""TinyLLM's trainer on a job: `python -m benchmarks.training.ours JOB` prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import SaveStrategy

from benchmarks.training.material import rows_of
from benchmarks.training.models import build, limit_memory, peak_bytes, scratch
from tinyllm.config import TrainSection
from tinyllm.student._steps import MicroBatch
from tinyllm.student._trainer import PlanTrainer
from tinyllm.student.learner import Learner
from tinyllm.student.plan import StepPlan
from tinyllm.student.train import _training_arguments
from tinyllm.system.machine import keep_freed_memory


class InOrder(StepPlan):
    """A plan that takes the questions as they come, as the peers do."""

    def _shuffled(self, epoch: int) -> list[int]:  # noqa: ARG002
        return list(range(len(self.questions)))


def main(job_file: str, micro_batch_tokens: str = "") -> None:
    """Train and print."""
    limit_memory()
    keep_freed_memory()
    job: dict[str, Any] = json.loads(Path(job_file).read_text("utf-8"))
    learner = Learner(build(job["model"]), pad=0)
    learner.verify()
    shared = not learner.is_encoder_decoder and not job.get("apart")
    rows = [rows_of(q, shared=shared) for q in job["questions"]]
    section = TrainSection(learning_rate=1e-4, schedule="constant", save_steps=10_000, batch_size=job["batch"])
    tokens = int(micro_batch_tokens or section.micro_batch_tokens)
    plan = InOrder(rows, batch_size=job["batch"], normalisation="tokens", shape=learner.shape(tokens))
    tasks = list(dict.fromkeys(b.task for q in rows for r in q for b in r.branches))
    with torch.no_grad():
        first = sum(float(learner(learner.collate(m, tasks))[0]) for m in _first(plan, job))
    arguments = _training_arguments(learner.student, plan, section, Path(scratch()))
    arguments.save_strategy = SaveStrategy.NO  # as the peers
    trainer = PlanTrainer(learner, plan, tasks, arguments)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    print(json.dumps({"loss": first, "seconds": seconds, "peak_bytes": peak_bytes(), "way": str(learner.way)}))


def _first(plan: StepPlan, job: dict[str, Any]) -> list[MicroBatch]:
    """Return the first step's micro-batches, with the weights by which the job's contenders agree on a loss."""
    micros = list(plan[0].micro_batches)
    if job.get("loss") == "mean":  # over all target tokens, whatever their task
        count = sum(m.target_tokens for m in micros)
        return [MicroBatch(m.rows, tuple(tuple(1 / count for _ in w) for w in m.weights)) for m in micros]
    return micros


if __name__ == "__main__":
    main(*sys.argv[1:])
