"""What `Seq2SeqTrainer` makes of a job: `python -m benchmarks.training.seq2seq_peers JOB WAY` prints JSON.

release:N   the authors' way: inputs padded to N tokens, targets to the longest in the batch, one forward a task
tuned       all tasks' rows together, dynamic padding, rows of about one length grouped
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from benchmarks.training.models import build, limit_memory, peak_bytes, scratch

_IGNORED = -100
Rows = list[dict[str, Any]]


def padded(lists: Sequence[Sequence[int]], value: int, width: int = 0) -> Tensor:
    """Return a tensor of lists, padded to the longest or to `width`, and cut there."""
    width = width or max(map(len, lists))
    return torch.tensor([[*x[:width], *[value] * (width - len(x))] for x in lists])


def batch_of(rows: Rows, width: int = 0) -> dict[str, Tensor]:
    """Return what a T5 is fed."""
    inputs = padded([r["prompt"] for r in rows], 0, width)
    return {
        "input_ids": inputs,
        "attention_mask": (inputs != 0).long(),
        "labels": padded([r["target"] for r in rows], _IGNORED),
    }


class ReleaseTrainer(Seq2SeqTrainer):
    """One forward a task; L = Σ of the tasks' mean losses."""

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """Return L."""
        return torch.stack([model(**batch).loss for batch in inputs.values()]).sum()


class TunedTrainer(Seq2SeqTrainer):
    """One forward over rows of all tasks, each token with its weight in L."""

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """Return the batch's part of L."""
        weights = inputs.pop("weights")
        logits = model(**inputs).logits
        labels = inputs["labels"]
        each = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=_IGNORED, reduction="none"
        )  # fmt: skip
        return (each.view_as(labels) * weights[:, None]).sum()


def release(job: dict[str, Any], width: int) -> tuple[Any, Any, Any, Any]:
    """Return trainer class, dataset, collator and further arguments of the authors' way."""

    def collate(questions: list[dict[str, Any]]) -> dict[str, dict[str, Tensor]]:
        tasks = [r["task"] for r in questions[0]["rows"]]
        rows = {t: [r for q in questions for r in q["rows"] if r["task"] == t] for t in tasks}
        return {task: batch_of(some, width) for task, some in rows.items()}

    return ReleaseTrainer, job["questions"], collate, {"per_device_train_batch_size": job["batch"]}


def tuned(job: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Return the same of the tuned way: as many rows a step as the other ways have."""
    tasks = len(job["questions"][0]["rows"])
    rows: Rows = []
    for at in range(0, len(job["questions"]), job["batch"]):
        step = [r for q in job["questions"][at : at + job["batch"]] for r in q["rows"]]
        tokens = {t: sum(len(r["target"]) for r in step if r["task"] == t) for t in {r["task"] for r in step}}
        rows += [r | {"weight": 1 / tokens[r["task"]], "length": len(r["prompt"]) + 2 * len(r["target"])} for r in step]

    def collate(some: Rows) -> dict[str, Tensor]:
        return batch_of(some) | {"weights": torch.tensor([r["weight"] for r in some])}

    more = {
        "per_device_train_batch_size": job["batch"], "gradient_accumulation_steps": tasks,
        "train_sampling_strategy": "group_by_length", "length_column_name": "length",
    }  # fmt: skip
    return TunedTrainer, rows, collate, more


def main(job_file: str, way: str) -> None:
    """Train and print."""
    limit_memory()
    job = json.loads(Path(job_file).read_text("utf-8"))
    kind, rows, collate, more = tuned(job) if way == "tuned" else release(job, int(way.partition(":")[2]))
    arguments = Seq2SeqTrainingArguments(
        output_dir=scratch(), num_train_epochs=1, learning_rate=1e-4, lr_scheduler_type="constant", use_cpu=True,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, remove_unused_columns=False,
        dataloader_pin_memory=False, **more,
    )  # fmt: skip
    trainer = kind(
        model=build(job["model"]), args=arguments, train_dataset=Dataset.from_list(rows), data_collator=collate
    )
    first = rows[: job["batch"]] if way != "tuned" else rows[: job["batch"] * more["gradient_accumulation_steps"]]
    with torch.no_grad():
        size = len(first) if way != "tuned" else job["batch"]
        parts = [collate(first[at : at + size]) for at in range(0, len(first), size)]
        loss = sum(float(trainer.compute_loss(trainer.model, part)) for part in parts)
    began = time.perf_counter()
    trainer.train()
    print(json.dumps({"loss": loss, "seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
