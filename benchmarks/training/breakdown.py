"""Where a step's time goes: `python -m benchmarks.training.breakdown` writes docs/profile.md. Alone on the machine.

One optimizer step's forward and backward pass, before (rows padded, the model's own forward and loss) and now.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import common
from benchmarks.training import material
from benchmarks.training.arithmetic import peak_flops, useful_flops
from benchmarks.training.models import build
from tinyllm.student._ways import Way
from tinyllm.student.learner import Learner
from tinyllm.student.plan import StepPlan
from tinyllm.system.machine import keep_freed_memory, spin_shortly

_PAGE = common.ROOT / "docs" / "profile.md"
_INTRO = """\
# Where a training step's time goes

Written by `python -m benchmarks.training.breakdown`: self time of PyTorch's operators in one step's forward and
backward pass, summed by kind, float32. *Before* is rows padded side by side and the model's own forward with logits at
every token; *now* is rows end to end with the chunked loss. *Ideal* is the time that the useful arithmetic would take
at the {peak:.0f} GFLOP/s that one large matrix product reaches here. Profiling itself costs some time.
"""
_KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "aten::matmul"),
    "attention kernels": ("scaled_dot_product", "_BiasedBlocks", "aten::_softmax"),
    "softmax over the vocabulary": ("aten::exp_", "log_softmax", "nll_loss", "aten::logsumexp", "_ChunkedCrossEntropy"),
    "filling and copying memory": (
        "aten::fill_",
        "aten::zero_",
        "aten::copy_",
        "aten::cat",
        "aten::index",
        "embedding",
    ),
}
_WAYS = {"before": Way(packed=False, whole_forward=True), "now": Way()}


def _kind(operator: str) -> str:
    for kind, names in _KINDS.items():
        if any(operator == name or (name in operator and not name.startswith("aten::")) for name in names):
            return kind
    return "everything else (element by element)"


def _measured(learner: Learner, job: dict[str, Any], way: Way) -> tuple[Counter[str], list[tuple[str, float]], int]:
    """Return seconds by kind, the dearest operators, and the tokens that are computed."""
    learner.take(way)
    rows = [material.rows_of(q, shared=not learner.is_encoder_decoder) for q in job["questions"]]
    plan = StepPlan(rows, batch_size=job["batch"], shape=learner.shape(2048))

    def step() -> None:
        for micro in plan[0].micro_batches:
            learner(learner.collate(micro, ()))[0].backward()
        learner.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    each = [(e.key, e.self_cpu_time_total / 1e6) for e in found.key_averages()]
    kinds: Counter[str] = Counter()
    for name, seconds in each:
        kinds[_kind(name)] += seconds
    return kinds, sorted(each, key=lambda pair: -pair[1])[:10], plan.totals(1).computed


def main() -> None:
    """Write the page."""
    spin_shortly()
    keep_freed_memory()
    peak = peak_flops()
    parts = [_INTRO.format(peak=peak / 1e9)]
    jobs = {
        "FLAN-T5-small's shape, 16 ARC questions, two teachers": material.arc_t5(16),
        "SmolLM2-135M, 4 PubMedQA questions, two teachers": material.pubmedqa_smollm(4, 2, batch=4),
    }
    for title, job in jobs.items():
        learner = Learner(build(job["model"]), pad=0)
        found = {name: _measured(learner, job, way) for name, way in _WAYS.items()}
        ideal = useful_flops(job, learner.config) / peak
        parts += [f"## {title}", "", f"Ideal: {ideal:.2f} s.", "", "| | before | now |", "|---|---:|---:|"]
        names = [*_KINDS, "everything else (element by element)"]
        parts += [f"| {n} | {found['before'][0][n]:.2f} s | {found['now'][0][n]:.2f} s |" for n in names]
        parts.append("| **all** | " + " | ".join(f"**{k.total():.2f} s**" for k, _, _ in found.values()) + " |")
        parts.append("| tokens computed | " + " | ".join(f"{tokens:,}" for _, _, tokens in found.values()) + " |")
        dearest = ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in found["now"][1])
        parts += ["", f"The dearest operators now: {dearest}.", ""]
    machine = common.machine()
    parts.append(
        f"<sub>{datetime.now(UTC).date()}, commit {common.commit()}. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}. torch {torch.__version__}.</sub>\n"
    )
    _PAGE.write_text("\n".join(parts), "utf-8")


if __name__ == "__main__":
    from benchmarks.train import smollm_folder

    os.environ.setdefault("BENCH_SMOLLM", smollm_folder())
    os.environ.setdefault("BENCH_SCRATCH", str(Path.cwd()))
    main()
