"""The benchmark of evaluating: `python -m benchmarks.evaluate`, alone on the machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Reach, Result, child, row, say
from benchmarks.material import fresh_folder
from benchmarks.peers import Peer
from benchmarks.train import smollm_folder
from benchmarks.training.material import DATA
from tinyllm.config import DataSection
from tinyllm.questions import load_splits
from tinyllm.scoring.harness import _prompt_text
from tinyllm.student.model import StudentCard

LM_EVAL = Peer("lm-eval", ("torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "lm-eval==0.4.13"))
_BATCHES = (1, 8, 32)
_TRIED = 64  # questions on which the harness's batch size is chosen
_SCRIPT = Path(__file__).parent / "evaluating" / "lm_eval_run.py"

_ABOUT = """\
{count:,} questions of ARC's test split ranked by likelihood, SmolLM2-135M untrained, float32, layout `{layout}`.
*Ours* is what `tinyllm evaluate` does: all choices of a question share one pass over its prompt, rows lie end to end.
The peer is lm-evaluation-harness's own `hf` model on the same texts, with the batch size that is fastest here
({batch}, of {tried}). Both score every choice with the end of text after it. Loading the model and importing count
for neither. Accuracies: {ours:.2f} % and {theirs:.2f} %; {same:.2f} % of the answers are the same."""


def evaluate(count: int | None, layout: str, rounds: int) -> Result:
    """ARC's test questions by ours and by the harness."""
    LM_EVAL.install()
    job = arc_job(count, layout)
    with fresh_folder() as folder:
        file, some = folder / "job.json", folder / "some.json"
        file.write_text(json.dumps(job), "utf-8")
        some.write_text(json.dumps(job | {"docs": job["docs"][:_TRIED]}), "utf-8")
        tried = {batch: harness(some, batch)["seconds"] for batch in _BATCHES}
        say("lm-eval: " + ", ".join(f"batch {b}: {s:.1f} s" for b, s in tried.items()))
        batch = min(tried, key=lambda b: tried[b])
        ours, theirs = [], []
        for number in range(rounds):  # each in a fresh process that warms up by itself
            theirs.append(harness(file, batch))
            ours.append(child("-m", "benchmarks.evaluating.ours", file, env={"BENCH_SMOLLM": smollm_folder()}))
            say(f"  round {number}: {ours[-1]['seconds']:.1f} s, lm-eval {theirs[-1]['seconds']:.1f} s")
    figures = {"ours": accuracy(ours[0]["chosen"], job), "theirs": accuracy(theirs[0]["chosen"], job)}
    same = _same(ours[0]["chosen"], theirs[0]["chosen"])
    if abs(figures["ours"] - figures["theirs"]) > _EQUAL:
        raise SystemExit(f"The accuracies differ: {figures}")
    speeds = [[len(job["docs"]) / float(r["seconds"]) for r in some] for some in (ours, theirs)]
    peaks = [[r["peak_bytes"] / 1e9 for r in some] for some in (ours, theirs)]
    speed = Reach("ratio", "at least", 3)
    return Result(
        name="evaluate",
        title="Evaluating",
        about=_ABOUT.format(
            count=len(job["docs"]),
            layout=layout,
            batch=batch,
            tried=", ".join(map(str, _BATCHES)),
            same=same,
            **figures,
        ),
        command="python -m benchmarks.evaluate",
        rows=[
            row("questions", *speeds, unit="questions/s", peer_name="lm-eval", reach=speed),
            row("peak memory", *peaks, unit="GB", peer_name="lm-eval"),
        ],
        settings={"questions": len(job["docs"]), "layout": layout},
        versions=LM_EVAL.versions(),
    )


_EQUAL = 0.2  # points: where two choices are all but equally likely, rounding decides


def arc_job(count: int | None, layout: str) -> dict[str, Any]:
    card = StudentCard(prefixes={"answer": "predict: "}, layout=layout)  # type: ignore[arg-type]
    questions = list(load_splits(DataSection(folder=DATA / "arc", on_invalid="drop")).test)[:count]
    docs = [
        {
            "id": q.id,
            "question": q.question,
            "choices": list(q.choices),
            "answer": q.answer,
            "text": _prompt_text(q, card),
        }
        for q in questions
    ]
    return {"docs": docs, "prefix": card.prefixes["answer"], "layout": layout, "batch_tokens": 4096}


def harness(job: Path, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = child(
        _SCRIPT, job, batch, python=LM_EVAL.python, env={"BENCH_SMOLLM": smollm_folder(), "HF_HUB_OFFLINE": "1"}
    )
    return found


def accuracy(chosen: Sequence[int], job: Mapping[str, Any]) -> float:
    return 100 * sum(c == d["answer"] for c, d in zip(chosen, job["docs"], strict=True)) / len(chosen)


def _same(one: Sequence[int], other: Sequence[int]) -> float:
    return 100 * sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=2, help="rounds")
    parser.add_argument("--questions", type=int, help="at most so many questions; by default all")
    parser.add_argument(
        "--layout", default="cloze", choices=["cloze", "labelled"], help="how a question is written out"
    )
    parser.add_argument("--note", help="the reason where something falls short; without it, the one before stays")
    options = parser.parse_args(arguments)
    if not DATA.is_dir():
        raise SystemExit(f"The real data are not at {DATA}; this benchmark needs them.")
    result = evaluate(options.questions, options.layout, options.rounds)
    file = common.write(result, options.out, options.note)
    for line in result.rows:
        met = {True: "met", False: "NOT met", None: ""}[line.met]
        say(f"{result.name}: {line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
    say(f"wrote {file}")


if __name__ == "__main__":
    main()
