"""lm-evaluation-harness on a job: `python lm_eval_run.py JOB BATCH` prints JSON. Runs in an environment of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import lm_eval  # type: ignore[import-not-found]
from datasets import Dataset  # type: ignore[import-untyped]
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

from benchmarks.training.models import peak_bytes


def task(docs: list[dict[str, Any]], end: str) -> dict[str, Any]:
    """Return the same questions, written out, as a task of the harness; each choice with the end of text after it."""
    return {
        "task": "job",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(docs)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["text"],
        "doc_to_choice": lambda doc: [choice + end for choice in doc["choices"]],
        "doc_to_target": lambda doc: doc["answer"],
        "metric_list": [{"metric": "acc"}],
    }


def main(job_file: str, batch: str) -> None:
    """Score and print; loading is not timed."""
    logging.disable(logging.WARNING)
    docs = json.loads(Path(job_file).read_text("utf-8"))["docs"]
    model = HFLM(pretrained=os.environ["BENCH_SMOLLM"], device="cpu", dtype="float32", batch_size=int(batch))
    end = model.tokenizer.eos_token
    lm_eval.simple_evaluate(model, tasks=[task(docs[:8], end)], bootstrap_iters=0)
    began = time.perf_counter()
    found = lm_eval.simple_evaluate(model, tasks=[task(docs, end)], bootstrap_iters=0, log_samples=True)
    seconds = time.perf_counter() - began
    chosen = []
    for sample in sorted(found["samples"]["job"], key=lambda s: s["doc_id"]):
        totals = [float(r[0]) for r in sample["filtered_resps"]]
        chosen.append(totals.index(max(totals)))
    print(json.dumps({"seconds": seconds, "chosen": chosen, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
