"""Export: the trained student in the format of another program, and the proof that it answers the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.config import Config
from tinyllm.errors import RunFolderError, StudentError
from tinyllm.export import FORMATS
from tinyllm.questions.types import Question
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import write_json
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
        raise StudentError(f"No export to '{kind}' as '{precision or 'default'}'. Formats and precisions: {told}.")
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
            + f". It is kept at {place}, with parity.json; choose another precision or format."
        )
    return found


def _asked(config: Config, news: News) -> Sequence[Question]:
    splits = checked_questions(config, news)[0]
    asked = list(splits.test[:_COMPARED])
    for more in (splits.valid, splits.train):
        asked += more[: max(0, _FEW - len(asked))]
    return asked
