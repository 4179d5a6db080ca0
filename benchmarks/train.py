"""The benchmarks of training: `python -m benchmarks.train NAME … | all`, alone on the machine.

Contenders run in turn, each in a process of its own, over the same rows from the same weights. Before anything is
timed, all of them must give the same loss on the first step.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Reach, Result, Row, child, row, say
from benchmarks.material import fresh_folder
from benchmarks.peers import Peer
from benchmarks.training import material
from benchmarks.training.arithmetic import useful_flops
from tinyllm.config import Layout

_TRL = Peer("trl", ("torch==2.13.0", "transformers==5.23.0", "trl==1.16.0"))
_LOSSES_AGREE = 1e-3
_LIMIT_BYTES = 8 << 30

_T5 = """\
{questions} ARC questions with the rationales of both of the authors' teachers, {batch} questions a step, a student of
FLAN-T5-small's shape, float32, no dropout, AdamW; only questions whose prompts have at most 100 of SmolLM2's tokens.
*Ours* is `tinyllm train`'s trainer. The peers are `Seq2SeqTrainer`: *padded to N*, the authors' way (inputs padded to N
tokens, targets to the longest in the batch, one forward a task); and *tuned* (rows of all tasks in batches of {batch},
grouped by length, padded to the longest, as many rows a step). Seconds are of the whole of `Trainer.train()`. On the
first step all give the same loss ({loss:.4f})."""
_SMOLLM = """\
{questions} PubMedQA questions with their abstracts, {teachers} teachers{copies}, {batch} questions a step,
SmolLM2-135M, float32, AdamW. *Ours* is `tinyllm train`'s trainer: tasks share a question's prompt. The peer is TRL's
`SFTTrainer`, loss on completions only, on the same rows: packed to 2,048 tokens, and as plain batches of rows of about
one length. On the first step all give the same loss ({loss:.4f})."""

_SHARE = """\
Useful arithmetic over what this machine's matrix product reaches at best, in whole trainings by `tinyllm train` with
two teachers: matrix products of real tokens, logits at targets, attention's pairs that may see each other; divided by
the seconds of all of `Trainer.train()`, AdamW, clipping and the first step's allocations included."""

CHOOSE_ABOUT = """\
ARC questions of four choices, 16 questions a step, SmolLM2-135M, float32, AdamW, answers alone, by
`tinyllm train`'s trainer. *Choices*: `train.answer: choices`, one row a question with a branch a choice. *Text*:
`train.answer: text` on the same questions. *Plain rows*: the loss of *choices* with a row a choice, laid end to end as
all rows are; on the first step both give the same loss.

*Opinions*: prompts per second of `tinyllm generate` with `kind: llamacpp`, each question in two orders of its choices,
log-probabilities of the letters; the peer starts the same server and posts the same bodies in a bare `aiohttp` loop
that keeps nothing. Memory: the greatest resident memory of `tinyllm generate`, with opinions that come with the
questions, or by letter of a server without latency."""


@dataclass(frozen=True)
class Contender:
    """One way to train on a job: a command that prints JSON."""

    name: str
    command: tuple[str, ...]
    python: str | Path = sys.executable

    def run(self, job: Path, **environment: str) -> dict[str, Any]:
        """Train in a process of its own."""
        with fresh_folder() as place:
            env = {"BENCH_SCRATCH": str(place), "BENCH_SMOLLM": smollm_folder(), **environment}
            head, *rest = self.command
            started = ("-m", head) if not head.endswith(".py") else (head,)
            found: dict[str, Any] = child(*started, job, *rest, python=self.python, env=env)
        return found


OURS = Contender("ours", ("benchmarks.training.ours",))


def seq2seq(way: str, name: str) -> Contender:
    """A way of `Seq2SeqTrainer`."""
    return Contender(name, ("benchmarks.training.seq2seq_peers", way))


def trl(way: str) -> Contender:
    """A way of TRL."""
    script = str(Path(__file__).parent / "training" / "trl_run.py")
    return Contender(f"TRL, {way}", (script, way), _TRL.python)


def smollm_folder() -> str:
    """Return a folder with SmolLM2-135M, de-quantised."""
    from tinyllm.student.model import _dequantised
    from tinyllm.system.packaged import model_file

    return str(_dequantised(model_file("smollm2-135m-instruct")))


def t5(questions: int, rounds: int) -> Result:
    """FLAN-T5-small's shape on ARC."""
    job = material.arc_t5(questions)
    contenders = [
        OURS,
        seq2seq("release:100", "padded to 100, a forward a task"),
        seq2seq("tuned", "Seq2SeqTrainer, tuned"),
        seq2seq("release:512", "padded to 512, a forward a task"),
    ]
    with fresh_folder() as folder:
        found = _compete(job, contenders, folder, rounds)
        share = _share_of_peak(job, found["ours"], reach=0.6)
        lean = _in_little_memory(material.arc_t5(16), folder)
    reaches = [Reach("ratio", "at least", r) for r in (3, 1.5, 8)]
    return Result(
        name="train-t5",
        title="Training an encoder-decoder",
        about=_T5.format(questions=questions, batch=job["batch"], loss=found["ours"].loss),
        command="python -m benchmarks.train t5",
        rows=[*_speeds(job, found, reaches), share, *_memories(found), *lean],
        settings={"questions": questions},
        versions=_versions(),
    )


def smollm(questions: int, teachers: int, rounds: int) -> Result:
    """SmolLM2-135M on PubMedQA."""
    _TRL.install()
    job = material.pubmedqa_smollm(questions, teachers) | {"loss": "mean"}
    with fresh_folder() as folder:
        found = _compete(job, [OURS, trl("packed"), trl("sorted")], folder, rounds)
        share = _share_of_peak(job, found["ours"], reach=0.7)
    least = Reach("ratio", "at least", 2.5 if teachers == 2 else 3.2)
    return Result(
        name=f"train-smollm-{teachers}",
        title=f"Training a causal student, {teachers} teachers",
        about=_SMOLLM.format(
            questions=questions, teachers=teachers, batch=job["batch"], loss=found["ours"].loss,
            copies=" (copies of the authors' two)" if teachers > 2 else "",
        ),
        command=f"python -m benchmarks.train smollm-{teachers}",
        rows=[*_speeds(job, found, [least, least]), share, *_memories(found)],
        settings={"questions": questions, "teachers": teachers},
        versions={**_versions(), **_TRL.versions()},
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a contender took, by round, and its loss on the first step."""

    seconds: list[float]
    peak_bytes: list[float]
    loss: float


def _compete(job: dict[str, Any], contenders: Sequence[Contender], folder: Path, rounds: int) -> dict[str, Found]:
    """Let all contenders train in turn, round after round."""
    file = material.write_job(job, folder / f"job-{len(job['questions'])}.json")
    say(f"{job['model']}: {len(job['questions'])} questions ({', '.join(c.name for c in contenders)}: seconds)")
    found = _in_turn([(c, file) for c in contenders], rounds)
    _check_losses(found)
    return found


def _in_turn(contenders: Sequence[tuple[Contender, Path]], rounds: int) -> dict[str, Found]:
    """Let contenders train in turn, each on its job, round after round."""
    runs: dict[str, list[dict[str, Any]]] = {c.name: [] for c, _ in contenders}
    for number in range(rounds):  # each in a fresh process, so that there is nothing to warm up
        for contender, file in contenders if number % 2 else reversed(contenders):
            runs[contender.name].append(contender.run(file))
        say(f"  round {number}: " + "   ".join(f"{runs[c.name][-1]['seconds']:.4g}" for c, _ in contenders))
    return {
        name: Found([r["seconds"] for r in some], [r["peak_bytes"] for r in some], some[0]["loss"])
        for name, some in runs.items()
    }


def _check_losses(found: Mapping[str, Found]) -> None:
    losses = {name: some.loss for name, some in found.items()}
    spread = max(losses.values()) - min(losses.values())
    if spread > _LOSSES_AGREE * max(losses.values()):
        raise SystemExit(f"The contenders' losses on the first step differ: {losses}")


def _speeds(job: dict[str, Any], found: Mapping[str, Found], reaches: Sequence[Reach]) -> list[Row]:
    count = len(job["questions"])
    ours, *peers = found
    mine = [count / s for s in found[ours].seconds]
    return [
        row(
            "questions", mine, [count / s for s in found[peer].seconds], unit="questions/s", peer_name=peer, reach=reach
        )
        for peer, reach in zip(peers, reaches, strict=True)
    ]


def _memories(found: Mapping[str, Found]) -> list[Row]:
    """Peak memory of the whole process: Python and libraries, weights, gradients, AdamW's state, and the rest."""
    ours, *peers = found
    peak = {name: [b / 1e9 for b in some.peak_bytes] for name, some in found.items()}
    reach = Reach("ratio", "at most", 1)
    return [row("peak memory", peak[ours], peak[p], unit="GB", peer_name=p, reach=reach) for p in peers]


def _share_of_peak(job: dict[str, Any], ours: Found, reach: float) -> Row:
    from transformers import AutoConfig, T5Config

    t5_small = T5Config(vocab_size=32_128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6)
    config = t5_small if job["model"] == "t5-small" else AutoConfig.from_pretrained(smollm_folder())
    peak = float(child("-m", "benchmarks.training.arithmetic")["peak_flops"])
    useful = useful_flops(job, config)
    shares = [100 * useful / s / peak for s in ours.seconds]
    name = f"useful arithmetic, of {peak / 1e9:.0f} GFLOP/s that a matrix product reaches"
    return row(name, shares, unit="%", reach=Reach("ours", "at least", 100 * reach))


def share(rounds: int) -> Result:
    """The share of the peak over several steps, so that what the first one costs once is spread."""
    jobs = {"FLAN-T5-small's shape, ARC": (material.arc_t5(96), 0.6), "SmolLM2-135M, PubMedQA": (_longer(), 0.7)}
    rows = []
    with fresh_folder() as folder:
        for name, (job, reach) in jobs.items():
            found = _compete(job, [OURS], folder, rounds)["ours"]
            line = _share_of_peak(job, found, reach)
            rows.append(replace(line, name=f"{name}, {len(job['questions'])} questions: {line.name}"))
    return Result(
        name="train-share",
        title="Training and the machine's limit",
        about=_SHARE,
        command="python -m benchmarks.train share",
        rows=rows,
        versions=_versions(),
    )


def choose(questions: int, rounds: int) -> Result:
    """Learning to choose beside learning to write, and shared prompts beside plain rows."""
    rows: list[Row] = []
    layouts: tuple[Layout, ...] = ("cloze", "labelled")
    for layout in layouts:
        choices = material.arc_answers(questions, "choices", layout)
        jobs = {
            "choices": choices,
            "text": material.arc_answers(questions, "text", layout),
            "plain rows": choices | {"apart": True},
        }
        with fresh_folder() as folder:
            say(f"{layout}: {questions} questions ({', '.join(jobs)}: seconds)")
            files = {
                name: material.write_job(job, folder / f"{place}.json")
                for place, (name, job) in enumerate(jobs.items())
            }
            found = _in_turn([(replace(OURS, name=name), file) for name, file in files.items()], rounds)
        _check_losses({name: found[name] for name in ("choices", "plain rows")})
        rows += _choice_rows(layout, questions, found)
    return Result(
        name="choose",
        title="Training to choose, and opinions",
        about=CHOOSE_ABOUT,
        command="python -m benchmarks.train choose",
        rows=rows,
        settings={"questions": questions},
        versions=_versions(),
    )


def _choice_rows(layout: str, questions: int, found: Mapping[str, Found]) -> list[Row]:
    cost = {name: [1000 * s / questions for s in some.seconds] for name, some in found.items()}
    speed = {name: [questions / s for s in some.seconds] for name, some in found.items()}
    peak = {name: [b / 1e9 for b in some.peak_bytes] for name, some in found.items()}
    most, least = Reach("ratio", "at most", 1.3), Reach("ratio", "at least", 2)
    return [
        row(f"{layout}: a question", cost["choices"], cost["text"], unit="ms", peer_name="text", reach=most),
        row(
            f"{layout}: questions", speed["choices"], speed["plain rows"],
            unit="questions/s", peer_name="plain rows", reach=least,
        ),
        row(f"{layout}: peak memory", peak["choices"], peak["text"], unit="GB", peer_name="text"),
    ]  # fmt: skip


def _longer() -> dict[str, Any]:
    return material.pubmedqa_smollm(32, 2) | {"loss": "mean"}


def _in_little_memory(job: dict[str, Any], folder: Path) -> list[Row]:
    """Whether a step runs in 8 GB; and whether the authors' way does at 1,024 tokens in all of the memory."""
    file = material.write_job(job, folder / "one-step.json")
    ours = OURS.run(file, BENCH_MEMORY=str(_LIMIT_BYTES))["peak_bytes"] / 1e9
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = int(0.9 * whole)
    try:
        theirs = seq2seq("release:1024", "").run(file, BENCH_MEMORY=str(limit))["peak_bytes"] / 1e9
        said = f"padded to 1,024, a forward a task: {theirs:.1f} GB"
    except SystemExit as error:
        if "memory" not in str(error).lower():
            raise
        said = f"padded to 1,024, a forward a task: more than {limit / 1e9:.0f} GB, it fails"
    return [row(f"one step held to 8 GiB ({said})", [ours], unit="GB", reach=Reach("ours", "at most", 8))]


def _versions() -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")}


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "t5": lambda a: t5(a.questions or 32, a.rounds),
    "smollm-2": lambda a: smollm(a.questions or 8, 2, a.rounds),
    "share": lambda a: share(a.rounds),
    "choose": lambda a: choose(a.questions or 96, a.rounds),
    "smollm-4": lambda a: smollm(a.questions or 8, 4, a.rounds),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run benchmarks and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all"], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=2, help="rounds that count")
    parser.add_argument("--questions", type=int, help="questions to train on")
    parser.add_argument("--note", help="the reason where something falls short; without it, the one before stays")
    options = parser.parse_args(arguments)
    if not material.DATA.is_dir():
        raise SystemExit(f"The real data are not at {material.DATA}; these benchmarks need them.")
    for name in BENCHMARKS if "all" in options.names else options.names:
        result = BENCHMARKS[name](options)
        made = {line.name for line in result.rows} if name == "choose" else None  # opinions stand in the same file
        file = common.write(result, options.out, options.note, replaces=made)
        for line in result.rows:
            met = {True: "met", False: "NOT met", None: ""}[line.met]
            say(f"{result.name}: {line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
        say(f"wrote {file}")


if __name__ == "__main__":
    main()
