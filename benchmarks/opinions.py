"""The benchmarks of opinions: `python -m benchmarks.opinions [speed] [memory]`, alone on the machine.

Their rows stand in `benchmarks/results/choose.json`, beside those of `python -m benchmarks.train choose`. The defaults
are the sizes of the published figures; smaller ones are for trying them out (give `--out`, too).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Reach, Result, Row, child, paired, row, say
from benchmarks.material import (
    configuration,
    endpoint,
    fresh_folder,
    generate,
    made_up,
    record,
    run_command,
    write_configuration,
)
from benchmarks.server import running
from benchmarks.train import CHOOSE_ABOUT
from tinyllm.config import LlamaCppTeacher

_PREFIX = "opinions"


def speed(questions: int, model: str, rounds: int) -> list[Row]:
    """Measure opinions by letter with llama.cpp against a bare loop that posts the same bodies to the same server."""
    say(f"opinions of {model} on {questions} questions (ours, bare loop: prompts per second)")
    teacher = {"kind": "llamacpp", "model": model}
    tree = _asking({"dataset": "starter", "limit": questions}, teacher, orders=2)
    tree["student"] = {"model": "smollm2-135m-instruct"}  # the tiny student's tokenizer knows only made-up questions
    with fresh_folder() as folder:
        form = LlamaCppTeacher.model_fields["form"].default
        recorded = {**tree, "teachers": [{"name": "teacher", **endpoint("http://127.0.0.1/v1", 1, form=form)}]}
        bodies = record(recorded, folder / "bodies.jsonl")
        config = write_configuration(tree, folder)
        figures = paired(
            rounds, partial(_ours_per_second, tree, 2 * questions), partial(_bare_per_second, config, bodies), say=say
        )
    reach = Reach("ratio", "at least", 0.95)
    return [
        row(f"{_PREFIX}: {model}", *figures, unit="prompts/s", peer_name="bare aiohttp loop", reach=reach),
    ]


def memory(sizes: Sequence[int], rounds: int) -> list[Row]:
    """Measure the peak memory of asking for opinions, by the number of questions and where the opinions come from."""
    rows = []
    for way in ("given", "letters"):
        smallest, *others = sorted(sizes)
        base = [_peak_mb(smallest, way) for _ in range(rounds)]
        rows += [  # once: a peak hardly differs from run to run, and the largest takes its time
            row(
                f"{_PREFIX}: {size:,} questions, {way}", [_peak_mb(size, way)], [statistics.median(base)],
                unit="MB", peer_name=f"{smallest:,} questions", reach=Reach("ratio", "at most", 1.1),
            )
            for size in others
        ]  # fmt: skip
    return rows


def _asking(data: dict[str, Any], teacher: dict[str, Any], orders: int) -> dict[str, Any]:
    opinions = {"teachers": ["teacher"], "orders": orders}
    return {**configuration(data, teacher), "train": {"method": "fine-tuning"}, "opinions": opinions}


def _ours_per_second(tree: dict[str, Any], prompts: int) -> float:
    found = generate(tree)
    if (replies := found["opinions"]["teachers"]["teacher"]["replies"]) != prompts:
        raise SystemExit(f"{replies} of {prompts} prompts were answered")
    began, ended = found["phases"]["Opinions"]
    return float(prompts / (ended - began))


def _bare_per_second(config: Path, bodies: Path) -> float:
    found = child("-m", "benchmarks.llamacpp", config, bodies)
    return float(found["replies"] / (found["stopped"] - found["started"]))


def _peak_mb(size: int, way: str) -> float:
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder())
        data = made_up(folder, size)
        if way == "given":
            teacher: dict[str, Any] = {"kind": "given"}
            _add_opinions(Path(data["train"]))
        else:
            teacher = endpoint(stack.enter_context(running()).url, 128)
        done = run_command(write_configuration(_asking(data, teacher, orders=1), folder), folder)
        kept = json.loads((folder / "run" / "opinions.json").read_text("utf-8"))["teachers"]["teacher"]["opinions"]
    megabytes = done.peak_bytes / 1e6
    say(f"opinions, {way}: {size:,} questions: {megabytes:.0f} MB, {done.seconds:.0f} s, {kept:,} opinions")
    if kept != size:
        raise SystemExit(f"opinions, {way}: {kept} of {size} questions have one")
    return megabytes


def _add_opinions(file: Path) -> None:
    """Give each question scores of its four choices."""
    draft = file.with_suffix(".draft")
    with file.open(encoding="utf-8") as lines, draft.open("w", encoding="utf-8") as out:
        for line in lines:
            question = json.loads(line)
            scores = [3 if choice == question["answer"] else 1 for choice in range(4)]
            out.write(json.dumps(question | {"opinions": {"teacher": scores}}) + "\n")
    draft.replace(file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run benchmarks and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="speed, memory; by default both")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--questions", type=int, default=160, help="speed: questions, each in two orders")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="speed: a packaged model, or a .gguf file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], help="memory: questions")
    parser.add_argument("--note", help="the reason where something falls short; without it, the one before stays")
    options = parser.parse_args(arguments)
    if unknown := {*options.names} - {"speed", "memory"}:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are speed and memory")
    rows: list[Row] = []
    if "speed" in options.names or not options.names:
        rows += speed(options.questions, options.model, options.rounds)
    if "memory" in options.names or not options.names:
        rows += memory(options.sizes, options.rounds)
    result = Result("choose", "Training to choose, and opinions", CHOOSE_ABOUT, "python -m benchmarks.opinions", rows)
    file = common.write(result, options.out, options.note, replaces=tuple(line.name for line in rows))
    for line in rows:
        met = "met" if line.met else "NOT met"
        say(f"{line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
    say(f"wrote {file}")


if __name__ == "__main__":
    main()
