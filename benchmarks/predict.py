"""The benchmarks of predicting: `python -m benchmarks.predict [memory]`; the speed alone on the machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Reach, Result, child, row, say
from benchmarks.evaluate import LM_EVAL, accuracy, arc_job, harness
from benchmarks.material import fresh_folder
from benchmarks.memory import predict_memory
from benchmarks.train import smollm_folder
from benchmarks.training.material import DATA
from tinyllm.config import StudentSection, compares_by_token
from tinyllm.export import write_export
from tinyllm.questions.types import Question
from tinyllm.student.model import Student, StudentCard, load_student, save_student

_TRIED = 64  # questions on which a peer's batch size is chosen
_HARNESS_BATCHES = (1, 8, 32)
_PADDED_TOKENS = (512, 1024, 2048, 4096, 8192)
_QUANTISED = (("onnx", "int8"), ("gguf", "q8_0"))
_EQUAL = 0.2  # points: where two choices are all but equally likely, rounding decides
_ABOUT = """\
{count:,} questions of ARC's test split, SmolLM2-135M untrained, layout `{layout}`. *Ours* is `tinyllm predict`, from
the file of questions to the file of answers. Peers are given the same texts, score each choice with the end of text
after it, and write nothing: lm-evaluation-harness's `hf` model ({harness} rows at once, the fastest of {tried}); plain
transformers, a question at a time; plain transformers with the best padded batches that we can write (rows sorted by
length, {padded:,} tokens at once, the last layer only where it is needed); and llama.cpp's server, which is asked for
each token of each choice, with the prompt in its cache. All but the last are float32. The last computes a GGUF file in
q8_0, and is compared with our quantised exports. Loading and importing count for none. Accuracies: {accuracies}."""


def predict(count: int | None, layout: str, rounds: int) -> Result:
    """ARC's test questions by ours and by four others."""
    LM_EVAL.install()
    asked = arc_job(count, layout) | {"by_token": compares_by_token(layout)}  # type: ignore[arg-type]
    with fresh_folder() as folder:
        file, some = folder / "job.json", folder / "some.json"
        file.write_text(json.dumps(asked), "utf-8")
        some.write_text(json.dumps(asked | {"docs": asked["docs"][:_TRIED]}), "utf-8")
        lines = [{k: d[k] for k in ("id", "question", "choices")} for d in asked["docs"]]
        questions = folder / "questions.jsonl"
        questions.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        _write_students(folder, layout, asked)
        batch = _fastest("lm-eval", _HARNESS_BATCHES, lambda size: harness(some, size))
        padded = _fastest("padded", _PADDED_TOKENS, lambda size: _plain(some, size))
        sides: dict[str, Callable[[], dict[str, Any]]] = {
            "ours": lambda: _ours(folder / "student", questions),
            "lm-eval": lambda: harness(file, batch),
            "a question at a time": lambda: _plain(file, 0),
            "padded batches": lambda: _plain(file, padded),
            "llama.cpp": lambda: child("-m", "benchmarks.predicting.llamacpp", folder / "gguf-q8_0", file),
        }
        for kind, precision in _QUANTISED:
            sides[f"{kind} {precision}"] = lambda at=folder / f"{kind}-{precision}": _ours(at, questions)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for number in range(rounds):  # each in a fresh process that warms up by itself
            for name in list(sides) if number % 2 else reversed(list(sides)):
                found[name].append(sides[name]())
                say(f"  round {number}: {name}: {found[name][-1]['seconds']:.1f} s")
    return _result(found, asked, layout, batch, padded)


def _write_students(folder: Path, layout: str, asked: Mapping[str, Any]) -> None:
    card = StudentCard(prefixes={"answer": asked["prefix"]}, layout=layout)  # type: ignore[arg-type]
    first = asked["docs"][0]
    example = Question(first["id"], first["question"], tuple(first["choices"]), None)

    def student() -> Student:
        return load_student(StudentSection(model=smollm_folder()), card)

    save_student(student(), folder / "student", "")
    for kind, precision in _QUANTISED:
        write_export(student(), folder / f"{kind}-{precision}", kind, precision, "smollm2", example)


def _fastest(name: str, sizes: Sequence[int], seconds: Callable[[int], dict[str, Any]]) -> int:
    tried = {size: float(seconds(size)["seconds"]) for size in sizes}
    say(f"{name}: " + ", ".join(f"{size}: {s:.1f} s" for size, s in tried.items()))
    return min(tried, key=lambda size: tried[size])


def _ours(folder: Path, questions: Path) -> dict[str, Any]:
    found: dict[str, Any] = child("-m", "benchmarks.predicting.ours", folder, questions)
    return found


def _plain(file: Path, tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = child(
        "-m", "benchmarks.predicting.plain", file, tokens, env={"BENCH_SMOLLM": smollm_folder()}
    )
    return found


def _result(
    found: Mapping[str, Sequence[Mapping[str, Any]]], asked: Mapping[str, Any], layout: str, batch: int, padded: int
) -> Result:
    docs = asked["docs"]
    rates = {name: [len(docs) / float(r["seconds"]) for r in some] for name, some in found.items()}
    accuracies = {name: accuracy(some[0]["chosen"], asked) for name, some in found.items() if name != "lm-eval"}
    exact = [accuracies[name] for name in ("ours", "a question at a time", "padded batches")]
    if max(exact) - min(exact) > _EQUAL + 100 / len(docs):
        raise SystemExit(f"The accuracies differ: {accuracies}")

    def line(name: str, peer: str, bound: float) -> common.Row:
        reach = Reach("ratio", "at least", bound)
        title = f"{'float32' if name == 'ours' else name} against {peer}"
        return row(title, rates[name], rates[peer], unit="questions/s", peer_name=peer, reach=reach)

    return Result(
        name="predict",
        title="Predicting",
        about=_ABOUT.format(
            count=len(docs),
            layout=layout,
            harness=batch,
            tried=", ".join(map(str, _HARNESS_BATCHES)),
            padded=padded,
            accuracies=", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items()),
        ),
        command="python -m benchmarks.predict",
        rows=[
            line("ours", "lm-eval", 3),
            line("ours", "a question at a time", 6),
            line("ours", "padded batches", 1.5),
            *(line(f"{kind} {precision}", "llama.cpp", 1) for kind, precision in _QUANTISED),
            row(
                "peak memory",
                *([r["peak_bytes"] / 1e9 for r in found[name]] for name in ("ours", "padded batches")),
                unit="GB",
                peer_name="padded batches",
            ),
        ],
        settings={"questions": len(docs), "layout": layout},
        versions=LM_EVAL.versions(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["speed", "memory"], default="speed", help="what is measured")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000], help="memory: questions")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--rounds", type=int, default=2, help="rounds")
    parser.add_argument("--questions", type=int, help="at most so many questions; by default all")
    parser.add_argument(
        "--layout", default="cloze", choices=["cloze", "labelled"], help="how a question is written out"
    )
    parser.add_argument("--note", help="the reason where something falls short; without it, the one before stays")
    options = parser.parse_args(arguments)
    if options.what == "memory":
        result = predict_memory(options.sizes, options.rounds)
    elif DATA.is_dir():
        result = predict(options.questions, options.layout, options.rounds)
    else:
        raise SystemExit(f"The real data are not at {DATA}; this benchmark needs them.")
    file = common.write(result, options.out, options.note)
    for line in result.rows:
        met = {True: "met", False: "NOT met", None: ""}[line.met]
        say(f"{result.name}: {line.name}: {line.ours:g} {line.unit}, ratio {line.ratio} {line.reach} {met}")
    say(f"wrote {file}")


if __name__ == "__main__":
    main()
