"""Exports of a real student: how many choices another program makes as the student does, and what a precision costs.

python -m benchmarks.export
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.common import Reach, Result, Row, row, say
from benchmarks.training.material import DATA
from tinyllm.config import DataSection, StudentSection
from tinyllm.export import FORMATS, compare, open_export, write_export
from tinyllm.questions import Question, load_splits
from tinyllm.scoring.runtime import TorchRuntime
from tinyllm.student.model import StudentCard, load_student

_ABOUT = """\
SmolLM2-135M-Instruct as it comes, asked {count} test questions of ARC by torch and by the program of each export. The
choices are not in its prompt (`cloze`). Accuracy: ours is the export's, the peer is the student's own, and p is of
the paired test. What a precision costs is the point of the rows below f16; only fp32, f32 and f16 have a goal."""
_EXACT = {"fp32", "f32", "f16"}


def export(count: int) -> Result:
    """Write each format in each precision, and compare."""
    asked = load_splits(DataSection(folder=DATA / "arc", on_invalid="drop")).test[:count]
    rows: list[Row] = []
    for kind, precisions in FORMATS.items():
        if kind == "ctranslate2":
            continue  # for encoder-decoders
        for precision in precisions:
            rows += _rows(kind, precision, asked)
    return Result(
        name="export",
        title="Exports",
        about=_ABOUT.format(count=len(asked)),
        command="python -m benchmarks.export",
        rows=rows,
        settings={"questions": len(asked)},
    )


def _rows(kind: str, precision: str, asked: Sequence[Question]) -> list[Row]:
    card = StudentCard(prefixes={"answer": "Answer:"}, layout="cloze")
    section = StudentSection(model="smollm2-135m-instruct", layout="cloze")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "export"
        write_export(load_student(section, card), folder, kind, precision, "smollm2", asked[0])
        began = time.monotonic()
        found = compare(TorchRuntime(load_student(section, card)), open_export(folder), asked, precision)
        megabytes = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
    say(f"{kind} {precision}: {found} {time.monotonic() - began:.0f} s, {megabytes:.0f} MB")
    assert found.before is not None
    assert found.after is not None
    assert found.change is not None
    same = 100 * (1 - found.differing / found.questions)
    goal = Reach("ours", "at least", 99.5) if precision in _EXACT else None
    name = f"{kind} {precision} ({megabytes:.0f} MB)"
    return [
        row(f"{name}: same choices; probabilities within {found.largest_difference:.4f}", [same], unit="%", reach=goal),
        row(
            f"{name}: accuracy, p = {found.change.p:.2g}", [100 * found.after.value], [100 * found.before.value],
            unit="%", peer_name="torch fp32",
        ),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--questions", type=int, default=200, help="at most so many questions")
    options = parser.parse_args(arguments)
    if not DATA.is_dir():
        raise SystemExit(f"The real data are not at {DATA}; this benchmark needs them.")
    say(f"wrote {common.write(export(options.questions), options.out, None)}")


if __name__ == "__main__":
    main()
