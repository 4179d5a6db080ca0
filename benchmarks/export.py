"""Exports: how many choices another program makes as the student does, and what a precision costs.

python -m benchmarks.export [STUDENT …]

A student is the folder of a run (`make demo` makes runs/demo), `smollm2` or `t5-small`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common
from benchmarks.common import Reach, Result, Row, row, say
from benchmarks.training.material import DATA
from benchmarks.training.models import build
from tinyllm.config import DataSection, StudentSection
from tinyllm.export import FORMATS, compare, open_export, write_export
from tinyllm.questions import Question, load_splits
from tinyllm.scoring.predictions import OptionScores
from tinyllm.scoring.runtime import TorchRuntime
from tinyllm.stages.folder import RunFolder
from tinyllm.student.model import Student, StudentCard, load_student, load_tokenizer, read_student

_ABOUT = """\
Test questions are asked by torch and by the program of each export. A run's trained student gets the test questions of
its run; `smollm2` (SmolLM2-135M-Instruct as it comes) and `t5-small` (FLAN-T5-small's shape with weights drawn anew and
SmolLM2's tokenizer) get those of ARC. The two are not trained: their probabilities are nearly equal, and more of their
choices differ. Accuracy: ours is the export's, the peer is the student's own, and p is of the paired test. The rows of
lower precisions than f16 show what the precision costs. Only fp32, f32 and f16 have a goal."""
_EXACT = {"fp32", "f32", "f16"}
_PROGRAMS = ("onnxruntime", "openvino", "ctranslate2")
_CARD = StudentCard(prefixes={"answer": "Answer:"}, layout="cloze")
_SMOLLM2 = StudentSection(model="smollm2-135m-instruct", layout="cloze")


@dataclass(frozen=True)
class _Subject:
    name: str
    load: Callable[[], Student]
    asked: Sequence[Question]


class _Remembering(TorchRuntime):
    """The student itself, which is asked once and compared with all exports."""

    def scores(
        self, questions: Sequence[Question], progress: Callable[[int, int, str], None] = lambda *_: None
    ) -> list[OptionScores]:
        if not hasattr(self, "_found"):
            self._found = super().scores(questions, progress)
        return self._found


def _subject(name: str, count: int) -> _Subject:
    if name not in ("smollm2", "t5-small"):
        run = RunFolder(Path(name))
        asked = load_splits(run.config().data).test[:count]
        return _Subject(run.config().name, lambda: read_student(run.student), asked)
    if not DATA.is_dir():
        raise SystemExit(f"The real data are not at {DATA}. Without them, give the folder of a run alone.")
    asked = load_splits(DataSection(folder=DATA / "arc", on_invalid="drop")).test[:count]
    if name == "smollm2":
        return _Subject("SmolLM2, untrained", lambda: load_student(_SMOLLM2, _CARD), asked)
    return _Subject("T5-small's shape, untrained", _t5, asked)


def _t5() -> Student:
    tokenizer, _ = load_tokenizer(_SMOLLM2)
    model = build("t5-small")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return Student(model, tokenizer, _CARD)


def _rows(subject: _Subject, kinds: Collection[str]) -> list[Row]:
    """Write each of these formats that suits a student in each precision, and compare."""
    unsuited = "gguf" if subject.load().is_encoder_decoder else "ctranslate2"
    own = _Remembering(subject.load())
    return [
        found
        for kind, precisions in FORMATS.items() if kind in kinds and kind != unsuited
        for precision in precisions
        for found in _compared(subject, own, kind, precision)
    ]  # fmt: skip


def _compared(subject: _Subject, own: TorchRuntime, kind: str, precision: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "export"
        write_export(subject.load(), folder, kind, precision, subject.name, subject.asked[0])
        began = time.monotonic()
        found = compare(own, open_export(folder), subject.asked, precision)
        megabytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    say(f"{subject.name}: {kind} {precision}: {found} {time.monotonic() - began:.0f} s, {megabytes:.0f} MB")
    assert found.before is not None
    assert found.after is not None
    assert found.change is not None
    same = 100 * (1 - found.differing / found.questions)
    goal = Reach("ours", "at least", 99.5) if precision in _EXACT else None
    name = f"{subject.name}: {kind} {precision} ({megabytes:.0f} MB)"
    return [
        row(f"{name}: same choices; probabilities within {found.largest_difference:.4f}", [same], unit="%", reach=goal),
        row(
            f"{name}: accuracy, p = {found.change.p:.2g}", [100 * found.after.value], [100 * found.before.value],
            unit="%", peer_name="torch fp32",
        ),
    ]  # fmt: skip


def _shown(student: str) -> str:
    return student if student in ("smollm2", "t5-small") else f"runs/{Path(student).name}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark. The result is written after each student."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("students", nargs="*", default=["smollm2", "t5-small"], help="run folders, smollm2, t5-small")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="only measure these anew")
    parser.add_argument("--questions", type=int, default=200, help="at most so many questions")
    options = parser.parse_args(arguments)
    file = options.out / "export.json"
    before = [r["name"] for r in json.loads(file.read_text("utf-8"))["rows"]] if file.is_file() else []
    anew = {name for name in before if name.split(": ")[1].split()[0] in options.formats}
    rows: list[Row] = []
    asked: dict[str, int] = {}
    for subject in [_subject(name, options.questions) for name in options.students]:
        rows += _rows(subject, options.formats)
        asked[f"questions, {subject.name}"] = len(subject.asked)
        command = " ".join(("python -m benchmarks.export", *map(_shown, options.students)))
        result = Result(
            name="export", title="Exports", about=_ABOUT, command=command, rows=rows,
            settings=asked, versions={package: importlib.metadata.version(package) for package in _PROGRAMS},
        )  # fmt: skip
        names = anew | {r.name for r in rows}  # a name has the size of the file and the greatest difference in it
        say(f"wrote {common.write(result, options.out, None, replaces=names)}")


if __name__ == "__main__":
    main()
