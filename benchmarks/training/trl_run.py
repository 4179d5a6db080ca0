"""TRL's `SFTTrainer` on a job: `python trl_run.py JOB WAY` prints JSON. Runs in an environment of its own.

packed      rows packed to 2,048 tokens
sorted      plain batches of rows of about one length, padded to the longest
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

from benchmarks.training.models import build, limit_memory, peak_bytes, scratch

_ROWS_AT_ONCE = 4  # measured to be as fast here as any other number, with less memory than more


def rows_of(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what TRL takes: tokens, and which of them are learnt."""
    return [
        {
            "input_ids": r["prompt"] + r["prefix"] + r["target"],
            "completion_mask": [0] * len(r["prompt"] + r["prefix"]) + [1] * len(r["target"]),
        }
        for q in questions
        for r in q["rows"]
    ]


def trainer_of(model: Any, rows: list[dict[str, Any]], way: str, rows_a_step: int) -> SFTTrainer:
    """Return a trainer on rows."""
    packs = way == "packed"
    more: dict[str, Any] = (
        {"packing": True, "max_length": 2048, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
        if packs
        else {
            "per_device_train_batch_size": _ROWS_AT_ONCE,
            "gradient_accumulation_steps": max(1, rows_a_step // _ROWS_AT_ONCE),
            "train_sampling_strategy": "group_by_length",
        }
    )
    arguments = SFTConfig(
        output_dir=scratch(), num_train_epochs=1, learning_rate=1e-4, lr_scheduler_type="constant", use_cpu=True,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, completion_only_loss=True,
        bf16=False, gradient_checkpointing=False, dataloader_pin_memory=False, **({"max_length": None} | more),
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(os.environ["BENCH_SMOLLM"])
    return SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def first_loss(trainer: SFTTrainer, rows: list[dict[str, Any]]) -> float:
    """Return the mean cross-entropy over the learnt tokens of some rows, as the trainer computes it."""
    total = count = 0.0
    with torch.no_grad():
        for row in rows:
            pairs = zip(row["input_ids"], row["completion_mask"], strict=True)
            labels = [token if learnt else -100 for token, learnt in pairs]
            batch = trainer.data_collator([{"input_ids": row["input_ids"], "labels": labels}])
            learnt = sum(row["completion_mask"])
            total += float(trainer.compute_loss(trainer.model, batch)) * learnt
            count += learnt
    return total / count


def main(job_file: str, way: str) -> None:
    """Train and print."""
    logging.disable(logging.WARNING)
    limit_memory()
    job = json.loads(Path(job_file).read_text("utf-8"))
    rows = rows_of(job["questions"])
    trainer = trainer_of(build(job["model"]), rows, way, job["batch"] * len(job["questions"][0]["rows"]))
    loss = first_loss(trainer, rows_of(job["questions"][: job["batch"]]))
    began = time.perf_counter()
    trainer.train()
    print(json.dumps({"loss": loss, "seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
