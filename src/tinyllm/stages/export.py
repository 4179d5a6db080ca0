"""Export: the trained student in the format of another program, and the proof that it answers the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.comparison import Accuracy, paired
from tinyllm.config import Config, compares_by_token
from tinyllm.errors import DataError, RunFolderError, StudentError
from tinyllm.export import FORMATS
from tinyllm.questions.types import Question
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_jsonl, write_json
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.export import Parity

_COMPARED = 200  # questions
_FEW = 100


def export_run(
    config: Config, run: RunFolder, news: News, kind: str, precision: str | None, out: Path | None
) -> Parity:
    """Write the student of a run in another format, and put test questions through both.

    Where the test set has fewer than 100 questions, validation and then training questions fill it up: parity is no
    accuracy. The folder has `parity.json`. An export beyond the tolerance of its precision is an error. Its folder
    stays, with `.refused` at the end of its name, so that the report can be read.

    Args:
        kind, precision: of `export.FORMATS`; None: the format's first.
        out: the folder; None: `export/KIND-PRECISION` in the run's.

    Raises:
        StudentError: the export is not within the tolerance, or cannot be written.
        RunFolderError: there is a folder already, or no trained student.
    """
    from tinyllm.export import compare, open_export, write_export
    from tinyllm.scoring.runtime import TorchRuntime
    from tinyllm.student.model import read_student

    known = FORMATS.get(kind)
    if known is None or (precision is not None and precision not in known):
        told = "; ".join(f"{name}: {', '.join(of)}" for name, of in FORMATS.items())
        raise StudentError(
            f"No export to '{kind}' as '{precision or 'default'}'. Formats and precisions: {told}.",
            page="using.md#export",
        )
    precision = precision or known[0]
    out = out or run.path / "export" / f"{kind}-{precision}"
    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student; run `tinyllm train` first.")
    if out.exists():
        raise RunFolderError(f"{out} is there already. Give another folder with --out, or remove it.")
    asked = _asked(config, news)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = Path(scratch) / out.name
        with news.task(f"Writing {kind} ({precision})"):
            write_export(read_student(run.student), made, kind, precision, config.name, asked[0])
        with news.task(f"Comparing {len(asked)} questions"):
            found = compare(TorchRuntime(read_student(run.student)), open_export(made), asked, precision)
        write_json(made / "parity.json", asdict(found))
        place = out if found.holds else out.with_name(f"{out.name}.refused")
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    if not found.holds:
        raise StudentError(
            f"The export does not answer as the student does: {found.differing} of {found.questions} choices differ "
            f"(allowed {100 * found.allowed_share:g} %), probabilities by up to {found.largest_difference:.3f} "
            f"(allowed {found.allowed_difference:g})"
            + ("" if found.same_tokens is not False else ", and its tokens are others")
            + f". It is kept at {place}, with parity.json; choose another precision or format.",
            page="using.md#export",
        )
    return found


def evaluate_export(folder: Path, run: RunFolder | None, news: News) -> dict[str, Any]:
    """Score an export, or a student's folder, on the test questions of its run, beside what that run's student chose.

    Writes `metrics.json` to the folder.

    Args:
        run: that it is of; None: the one that it lies in.

    Returns:
        `accuracy`; `run` and `change` (paired) on the questions that the run answered too, None if there are none.

    Raises:
        RunFolderError: the run is not known.
        DataError: there are no test questions whose answers are known.
        StudentError: the folder holds no student, or a file is damaged.
    """
    from tinyllm.export import open_export
    from tinyllm.scoring.predictions import Prediction, credit

    if run is None:
        around = (p for p in folder.resolve().parents[:2] if (p / "config.yaml").is_file())
        if (home := next(around, None)) is None:
            raise RunFolderError(f"{folder} does not lie in a run. Say with --run-dir of which run it is.")
        run = RunFolder(home)
    config = run.config()
    test = [q for q in checked_questions(config, news, ("test",))[0].test if q.answer is not None]
    if not test:
        raise DataError("There are no test questions to evaluate on: give data.test, or data.cut with a test share.")
    runtime = open_export(folder)
    layout = runtime.card.layout
    with news.task(f"Evaluating {folder.name}"):
        marks = [credit(s.ranking(layout), q.known_answer) for q, s in zip(test, runtime.scores(test), strict=True)]
    stored = map(Prediction.from_json, read_jsonl(run.predictions) if run.predictions.is_file() else ())
    own = {(p.question.id, p.question.choices): p for p in stored if (p.stage, p.split) == ("after", "test")}
    scorer = "likelihood_normalised" if compares_by_token(layout) else "likelihood"
    both = [(own[key].mark(scorer), m) for q, m in zip(test, marks, strict=True) if (key := (q.id, q.choices)) in own]
    before, after = [m for m, _ in both], [m for _, m in both]
    figures = {
        "name": config.name,
        "runtime": runtime.name,
        "accuracy": asdict(Accuracy.of(sum(marks), len(marks))),
        "run": asdict(Accuracy.of(sum(before), len(before))) if both else None,
        "change": asdict(paired(before, after)) if both else None,
    }
    write_json(folder / "metrics.json", figures)
    return figures


def _asked(config: Config, news: News) -> Sequence[Question]:
    splits = checked_questions(config, news)[0]
    asked = list(splits.test[:_COMPARED])
    for more in (splits.valid, splits.train):
        asked += more[: max(0, _FEW - len(asked))]
    return asked
