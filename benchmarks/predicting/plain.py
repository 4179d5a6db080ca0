"""Plain transformers on a job: `python -m benchmarks.predicting.plain JOB TOKENS` prints JSON.

TOKENS 0: a question at a time, its choices padded to one batch. Else the best padded batches that we know how to write:
rows of all questions, sorted by length, as many as have TOKENS tokens with their padding; and the last layer only where
a choice's tokens are predicted, as a careful person would.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.predicting.ours import WARM
from benchmarks.training.models import peak_bytes


@dataclass(frozen=True)
class _Row:
    """A question with one of its choices: its tokens, and how many of them are the prompt's."""

    doc: int
    choice: int
    tokens: list[int]
    prompt: int


def _rows(docs: Sequence[dict[str, Any]], tokenizer: Any) -> list[_Row]:
    """Tokenize text and choice together and cut where the text ends, as lm-evaluation-harness does."""
    found = []
    for number, doc in enumerate(docs):
        prompt = len(tokenizer(doc["text"])["input_ids"])
        for place, choice in enumerate(doc["choices"]):
            tokens = tokenizer(f"{doc['text']} {choice}{tokenizer.eos_token}")["input_ids"]
            found.append(_Row(number, place, tokens, prompt))
    return found


def _batches(rows: Sequence[_Row], tokens: int) -> Iterator[list[_Row]]:
    if not tokens:
        for doc in range(rows[-1].doc + 1):
            yield [r for r in rows if r.doc == doc]
        return
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda r: -len(r.tokens)):
        if batch and (len(batch) + 1) * len(batch[0].tokens) > tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch


@torch.inference_mode()
def _scores(model: Any, batch: Sequence[_Row], everywhere: bool) -> list[tuple[float, int]]:
    """Return the log-likelihood of each row's choice and the number of its tokens."""
    width = max(len(r.tokens) for r in batch)
    ids = torch.tensor([r.tokens + [0] * (width - len(r.tokens)) for r in batch])
    mask = torch.tensor([[1] * len(r.tokens) + [0] * (width - len(r.tokens)) for r in batch])
    at = [(n, place) for n, r in enumerate(batch) for place in range(r.prompt, len(r.tokens))]
    rows, places = torch.tensor([n for n, _ in at]), torch.tensor([p for _, p in at])
    if everywhere:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[rows, places - 1]
    else:
        hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[rows, places - 1])
    each = logits.float().log_softmax(-1).gather(1, ids[rows, places][:, None])[:, 0]
    totals = torch.zeros(len(batch)).index_add(0, rows, each)
    return [(float(t), len(r.tokens) - r.prompt) for t, r in zip(totals, batch, strict=True)]


def main(job_file: str, tokens: str) -> None:
    """Score and print; loading is not timed, tokenizing is."""
    job = json.loads(Path(job_file).read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(os.environ["BENCH_SMOLLM"])
    model = AutoModelForCausalLM.from_pretrained(os.environ["BENCH_SMOLLM"], dtype=torch.float32).eval()
    _answer(model, tokenizer, job, job["docs"][:WARM], int(tokens))
    began = time.perf_counter()
    chosen = _answer(model, tokenizer, job, job["docs"], int(tokens))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "chosen": chosen, "peak_bytes": peak_bytes()}))


def _answer(model: Any, tokenizer: Any, job: dict[str, Any], docs: Sequence[dict[str, Any]], tokens: int) -> list[int]:
    ranks: list[list[float]] = [[0.0] * len(d["choices"]) for d in docs]
    for batch in _batches(_rows(docs, tokenizer), tokens):
        for row, (total, count) in zip(batch, _scores(model, batch, not tokens), strict=True):
            ranks[row.doc][row.choice] = total / count if job["by_token"] else total
    return [r.index(max(r)) for r in ranks]


if __name__ == "__main__":
    main(*sys.argv[1:])
