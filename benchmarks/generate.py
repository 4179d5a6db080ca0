"""The benchmarks of generating rationales: `python -m benchmarks.generate NAME … | all`, alone on the machine.

Each writes its results to `benchmarks/results/NAME.json`, of which `python -m benchmarks.table` makes
docs/benchmarks.md. The defaults are the sizes of the published figures; smaller ones are for trying a benchmark out
(give `--out`, too).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.llamacpp import Load, prefix, real
from benchmarks.memory import memory
from benchmarks.peers import peers
from benchmarks.startup import startup
from benchmarks.throughput import throughput


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all"], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=None, help="rounds that count; by default what suits each")
    parser.add_argument(
        "--note", help="the reason where something falls short; without it, the one written before stays"
    )
    parser.add_argument("--in-flight", type=int, nargs="+", help="throughput, peers: requests in flight")
    parser.add_argument("--latency", type=float, default=0.2, help="throughput, peers: the server's, in seconds")
    parser.add_argument("--each", type=int, default=40, help="throughput: requests for each one in flight")
    parser.add_argument("--questions", type=int, help="peers, real, prefix: questions")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="memory: questions")
    parser.add_argument("--teacher", choices=["scripted", "openai"], default="scripted", help="memory: who is asked")
    parser.add_argument("--replies", type=int, default=1_000_000, help="startup: replies in the store")
    parser.add_argument("--slots", type=int, help="real, prefix: requests at once; by default what TinyLLM finds")
    parser.add_argument("--max-tokens", type=int, default=64, help="real, prefix: longest reply")
    parser.add_argument("--examples", type=int, help="real, prefix: examples in a prompt")
    return parser


BENCHMARKS: dict[str, Callable[[argparse.Namespace], common.Result]] = {
    "throughput": lambda a: throughput(a.in_flight or [1, 16, 128, 512], a.latency, a.rounds or 5, each=a.each),
    "peers": lambda a: peers(a.questions or 2000, a.in_flight or [128, 512, 1024], a.latency, a.rounds or 3),
    "memory": lambda a: memory(a.sizes, a.teacher, a.rounds or 3),
    "startup": lambda a: startup(a.replies, a.rounds or 5),
    "real": lambda a: real(_load(a, examples=2), a.rounds or 3),
    "prefix": lambda a: prefix(_load(a, examples=4), a.rounds or 3),
}


def _load(options: argparse.Namespace, *, examples: int) -> Load:
    return Load(
        model="smollm2-135m-instruct",
        questions=options.questions or 64,
        slots=options.slots,
        max_tokens=options.max_tokens,
        examples=options.examples or examples,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run benchmarks and write their results."""
    options = _parser().parse_args(arguments)
    for name in BENCHMARKS if "all" in options.names else options.names:
        result = BENCHMARKS[name](options)
        file = common.write(result, options.out, options.note)
        for line in result.rows:
            met = {True: "met", False: "NOT met", None: ""}[line.met]
            common.say(f"{result.name}: {line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
        common.say(f"wrote {file}")


if __name__ == "__main__":
    main()
