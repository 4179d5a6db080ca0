"""Export: writes the trained student in the format of another program, and checks that both give the same answers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.comparison import Accuracy, paired
from tinyllm.config import Config, compares_by_token
from tinyllm.errors import DataError, RunFolderError, StudentError
from tinyllm.export import FORMATS
from tinyllm.questions.types import Question, Splits
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_jsonl, write_json
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.export import Parity

_COMPARED = 200  # questions
_FEW = 100
_SLOW = {
    ("onnx", "fp32"): "tracing the student",
    ("onnx", "int8"): "tracing and rounding, 1–3 min at 135M",  # of parameters, on two cores
}


@dataclass(frozen=True, slots=True)
class _Exported:
    """A folder that was written, and the comparison of its answers with those of the student."""

    folder: Path
    parity: Parity


def export_run(
    config: Config, run: RunFolder, news: News, kind: str, precision: str | None, out: Path | None
) -> _Exported:
    """Write the student of a run in another format, and compare its answers with those of the student.

    The comparison uses test questions, and validation and training questions if there are fewer than 100. It is written
    to `parity.json` in the folder. If the answers differ by more than the tolerance of the precision, this is an error.
    The folder is then kept with the ending `.refused`, so that the report can be read.

    Args:
        kind: a format in `export.FORMATS`.
        precision: a precision of the format; None for the first one.
        out: the folder to write; None for `export/KIND-PRECISION` in the run folder.

    Raises:
        StudentError: the format or precision is not known, the student cannot be written in it, or the answers differ
            by more than the tolerance.
        RunFolderError: the folder exists already, or there is no trained student.
    """
    known = FORMATS.get(kind)
    if known is None or (precision is not None and precision not in known):
        listed = "; ".join(f"{name}: {', '.join(of)}" for name, of in FORMATS.items())
        got = f"format '{kind}'" if known is None else f"precision '{precision}' of format '{kind}'"
        raise StudentError(
            f"Unknown {got}. Formats and their precisions: {listed}. Choose with --to and --quantize.",
            page="using.md#export",
        )
    precision = precision or known[0]
    out = out or run.path / "export" / f"{kind}-{precision}"
    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student. Run `tinyllm train` first.")
    if out.exists():
        raise RunFolderError(f"{out} exists already. Give another folder with --out, or remove this one.")
    is_learnt = Splits.read_learnt(run.path)
    asked = _asked(config, news)
    from tinyllm.export import compare, open_export, write_export  # PyTorch is imported by now, in a task that says so
    from tinyllm.scoring.runtime import TorchRuntime
    from tinyllm.student.model import read_student

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        made = Path(scratch) / out.name
        with news.task(f"Writing {kind} ({precision})") as task:
            task.note = _SLOW.get((kind, precision), "")
            write_export(read_student(run.student), made, kind, precision, config.name, asked[0])
            task.note = ""
        with news.task(f"Comparing {len(asked)} questions") as task:
            own = TorchRuntime(read_student(run.student))
            found = compare(own, open_export(made), asked, precision, task.update)
            task.note = ""
        if is_learnt is not None:
            found = replace(found, learnt=sum(q.answer is not None and is_learnt(q) for q in asked))
        write_json(made / "parity.json", asdict(found))
        place = out if found.holds else out.with_name(f"{out.name}.refused")
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)
    if not found.holds:
        raise StudentError(
            f"The export gives other answers than the student. {found.differing} of {found.questions} choices differ "
            f"(allowed: one, or {100 * found.allowed_share:g} %). Probabilities differ by up to "
            f"{found.largest_difference:.3f} (allowed: {found.allowed_difference:g})."
            + ("" if found.same_tokens is not False else " The exported tokenizer gives other tokens.")
            + f" The export and parity.json are in {place}. Choose a higher precision "
            "(--quantize f32 with gguf, fp32 with the others) or another format (--to).",
            page="using.md#export",
        )
    return _Exported(place, found)


def evaluate_export(folder: Path, run: RunFolder | None, news: News) -> dict[str, Any]:
    """Score an export on the test questions of its run, and compare it with the run's own student.

    The figures are written to `metrics.json` in the folder.

    Args:
        folder: the folder of an export or of a student.
        run: the run that it was made from; None for the run in whose folder it is.

    Returns:
        `accuracy` on all test questions. `run` and `change` (paired) on the questions that the run's evaluation has
        answered, too; None if there are none.

    Raises:
        RunFolderError: the run is not known.
        DataError: no test question has a known answer.
        StudentError: the folder holds no student, or a file is damaged.
    """
    from tinyllm.export import open_export
    from tinyllm.scoring.predictions import Prediction, credit

    if run is None:
        around = (p for p in folder.resolve().parents[:2] if (p / "config.yaml").is_file())
        if (home := next(around, None)) is None:
            raise RunFolderError(f"{folder} is not inside a run folder. Give the run of this export: --run-dir RUN.")
        run = RunFolder(home)
    config = run.config()
    test = [q for q in checked_questions(config, news, ("test",))[0].test if q.answer is not None]
    if not test:
        raise DataError(
            "There are no test questions with an answer, so nothing can be scored. Set data.test, or a test share in "
            "data.cut."
        )
    runtime = open_export(folder)
    layout = runtime.card.layout
    with news.task(f"Evaluating {folder.name}", len(test)) as task:
        scores = runtime.scores(test, task.update)
        task.note = ""
    marks = [credit(s.ranking(layout), q.known_answer) for q, s in zip(test, scores, strict=True)]
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
        "run_precision": config.evaluate.precision,
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
