"""Out-of-fold students: they replace a student as teacher for the questions that it was trained on.

A student has learnt the answers of its training questions, so its own opinions on them contain no new information. A
hash of their texts divides the questions into folds. For each fold another student is trained with the same settings,
without the questions of the fold, and scores them. The scores are kept in the run folder, and the student is removed.

    folds/<teacher>-<checksum>-<folds>/<fold>/        the run of a student that is being trained
                                       <fold>.jsonl   its scores; the file is complete or missing
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.config import Config, StudentTeacher
from tinyllm.errors import TeacherError, TinyLLMError
from tinyllm.questions import leave_out
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._prepare import needs_validation, training_fingerprint
from tinyllm.stages._soft import pools_by
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json, read_jsonl, write_jsonl
from tinyllm.system.news import News

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OR_NONE = "or write `folds: 0` if it was trained on none of the questions that it is asked"
_LEARNT_FROM = ("rationales.parquet", "yields.json", "opinions.parquet")


class Folds:
    """The out-of-fold students of a teacher that is a student.

    Args:
        spec: the settings of the teacher. Its `folds` is above 0.
        identity: the checksum of its weights.
        run: the run folder that keeps the scores.
    """

    def __init__(self, spec: StudentTeacher, identity: str, run: RunFolder) -> None:
        self._spec = spec
        self._folder = run.path / "folds" / f"{spec.name}-{identity[:8]}-{spec.folds}"

    def scores(self, question: Question) -> Sequence[float] | None:
        """Return an out-of-fold student's scores of the choices of a question.

        Returns:
            The scores; an empty sequence before the question is scored; None if the teacher was not trained on the
            question and can answer it itself.
        """
        import numpy as np

        code = np.uint64(question.content_hash)  # a plain int would make a copy of the array as floats
        place = self._seen.searchsorted(code)
        if place == len(self._seen) or self._seen[place] != code:
            return None
        return self._kept.get(_exactly(question), ())

    def to_train(self, questions: Iterable[Question]) -> dict[int, list[Question]]:
        """Return the questions that out-of-fold students must still score, by fold."""
        found: dict[int, list[Question]] = {}
        for question in questions:
            if self.scores(question) == ():
                found.setdefault(self._fold(question), []).append(question)
        return found

    def hours(self, folds: int) -> float:
        """Return the expected hours to train this number of students, from the training time of the teacher."""
        found = read_json(self._origin.train_result)
        # Each fold repeats the search. Its time includes the training of the student that it chose.
        seconds = (found.get("chosen") or found).get("seconds") or 0.0
        return folds * float(seconds) * (1 - 1 / self._spec.folds) / 3600

    def score(self, questions: Iterable[Question], news: News) -> None:
        """Train the missing students, one after the other, and keep their scores of the questions.

        Raises:
            TeacherError: without one of the folds, no question is left to train on.
            KeyboardInterrupt: the user interrupted it. A checkpoint and the scores of finished folds are kept.
        """
        wanted = self.to_train(questions)
        if wanted:
            count = sum(map(len, wanted.values()))
            news.say(
                f"  {self._spec.name} was trained on {count:,} of these questions. {len(wanted)} other students answer "
                "them in its place. Each is trained without the questions that it answers."
            )
        for number, (fold, asked) in enumerate(sorted(wanted.items()), 1):
            news.say(f"  {self._spec.name}: training out-of-fold student {number} of {len(wanted)}")
            self._score(fold, asked, news)

    def _score(self, fold: int, asked: Sequence[Question], news: News) -> None:
        from tinyllm.scoring.score import arithmetic, score_options
        from tinyllm.stages.train import train_run
        from tinyllm.student.model import read_student

        work = RunFolder(self._folder / str(fold))
        with work.claimed(self._config):
            for name in _LEARNT_FROM:
                _link(self._origin.path / name, work.path / name)
            train_run(self._config, work, news, self._without(fold))
            section = self._config.evaluate
            with news.task("Asking the out-of-fold student", len(asked)) as task:
                student = read_student(work.student)
                learner = student.learner(learns=False)
                with arithmetic(learner, section.precision):
                    found = score_options(
                        student, learner, asked, batch_tokens=section.batch_tokens, progress=task.update
                    )
        temperature = student.card.temperature  # the probabilities are calibrated, as those of the teacher itself
        rows = read_jsonl(self._file(fold)) + [
            {"id": q.id, "asked": _exactly(q), "scores": [r / temperature for r in s.ranking(student.card.layout)]}
            for q, s in zip(asked, found, strict=True)
        ]
        write_jsonl(self._file(fold), rows)
        self._kept.update(_by_question(rows))
        shutil.rmtree(work.path)

    def _without(self, fold: int) -> Splits:
        """Return the teacher's training and validation questions without those of a fold."""

        def others(questions: Sequence[Question]) -> Sequence[Question]:
            return leave_out(questions, [i for i, q in enumerate(questions) if self._fold(q) == fold])

        known = self._splits
        kept = replace(known, train=others(known.train), more=others(known.more), valid=others(known.valid))
        if not len(kept.train):
            raise self._error(
                f"all {len(self._splits.train)} questions that it was trained on are in the same one of "
                f"{self._spec.folds} folds, so no question is left to train on. Set a higher number in its `folds`."
            )
        return kept

    # --- what the teacher saw -----------------------------------------------------------------------------------------

    @cached_property
    def _origin(self) -> RunFolder:
        """The run that trained the teacher."""
        given = self._spec.run.expanduser()
        run = RunFolder(given if (given / "config.yaml").is_file() else given.parent)
        if run.config_file.is_file() and run.train_result.is_file():
            return run
        raise self._error(
            f"{given} holds a student without the run that trained it, so its training questions are not known. Set "
            f"`run` to the folder of that run, {_OR_NONE}."
        )

    @cached_property
    def _config(self) -> Config:
        from tinyllm.student.model import CARD_FILE, student_folder

        config = self._origin.config()
        if (student_folder(Path(config.student.model).expanduser()) / CARD_FILE).is_file():
            raise self._error(
                f"it started from another student, {config.student.model}, which may have learnt from these questions. "
                f"The out-of-fold students would start from it, too. Name a run that started from a model, {_OR_NONE}."
            )
        return config

    @cached_property
    def _splits(self) -> Splits:
        from tinyllm.stages.check import checked_questions

        try:
            splits = checked_questions(self._config, News(quiet=True), test=False)[0]
        except TinyLLMError as error:
            raise self._error(
                f"its training questions cannot be read: {error}\n  To do: correct `data` in "
                f"{self._origin.config_file}, {_OR_NONE}."
            ) from None
        then = read_json(self._origin.train_result).get("questions")
        if then not in (None, training_fingerprint(splits)):  # None: a run of an older version
            raise self._error(
                "its questions have changed since it was trained, so its training questions are not known. Train "
                f"{self._origin.path} again, {_OR_NONE}."
            )
        return splits

    def _error(self, why: str) -> TeacherError:
        return TeacherError(f"Teacher '{self._spec.name}': {why}")

    @cached_property
    def _seen(self) -> NDArray[np.uint64]:
        """The hashes of all questions that the teacher was trained or tuned on, in ascending order."""
        import numpy as np

        fitted_by = self._splits.valid if needs_validation(self._config) or pools_by(self._config) else ()
        seen = chain(self._splits.train, self._splits.more, fitted_by)
        return np.sort(np.fromiter((q.content_hash for q in seen), np.uint64))

    def _fold(self, question: Question) -> int:
        return question.content_hash % self._spec.folds

    # --- what is kept ---------------------------------------------------------------------------------------------

    @cached_property
    def _kept(self) -> dict[str, tuple[float, ...]]:
        files = (self._file(fold) for fold in range(self._spec.folds))
        return dict(_by_question(row for file in files for row in read_jsonl(file)))

    def _file(self, fold: int) -> Path:
        return self._folder / f"{fold}.jsonl"


def _by_question(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, tuple[float, ...]]]:
    return ((row["asked"], tuple(row["scores"])) for row in rows)


def _exactly(question: Question) -> str:
    """Return a hash of all texts that a student sees."""
    shown = repr((question.context, question.question, question.choices))
    return hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _link(source: Path, place: Path) -> None:
    """Make a file available at a second path. It is copied only if a hard link is not possible."""
    if source.is_file() and not place.is_file():
        try:
            os.link(source, place)
        except OSError:  # another file system
            shutil.copyfile(source, place)
