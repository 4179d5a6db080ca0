"""One run of an experiment: train the student, ask all questions, keep the answers, remove the rest."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.comparison.answers import Answer, Answers, Scorer, Split
from tinyllm.comparison.records import LOG_FILE, Record, cells
from tinyllm.config import Config, EvaluateSection, build_config, compares_by_token
from tinyllm.errors import DataError, TeacherError
from tinyllm.experiments._shared import asked_key, learnt_fingerprint, questions_fingerprint, shared_folder, with_store
from tinyllm.experiments._views import unrotated, viewed
from tinyllm.questions import SPLITS
from tinyllm.questions.types import Question, Splits
from tinyllm.scoring.calibration import fit_temperature, probabilities
from tinyllm.scoring.predictions import View
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import student_card
from tinyllm.stages.train import train_run
from tinyllm.system.files import replacing, write_text
from tinyllm.system.machine import environment
from tinyllm.system.news import News, Task

if TYPE_CHECKING:
    from tinyllm.student.model import Student

_WAIT_S = 60.0  # for the process of a killed experiment, which still writes its checkpoint
KEPT = "kept"
"""A file in the folder of a run whose student is kept."""
_SHARED_FILES = ("rationales.parquet", "yields.json", "opinions.parquet", "opinions.json")


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as a worker process needs it. It is sent as JSON.

    Attributes:
        folder: the folder of the experiment.
        rationales: the folder of shared rationales and opinions; None for a run without any.
        rationales_hash: hash of the rationales and opinions that the run uses.
        questions: hash of the test questions when the experiment started.
        learnt: hash of the training and validation questions when the experiment started.
        views: how the test questions are asked.
        scorer: the scorer that chooses settings. Answers to validation questions are written only for `generation`.
        asks: the teacher that answers in place of a student.
    """

    folder: str
    key: str
    dataset: str
    student: str
    method: str
    settings: Mapping[str, Any]
    seed: int
    config: Mapping[str, Any]
    rationales: str | None
    rationales_hash: str
    questions: str
    learnt: str
    views: Sequence[View]
    scorer: Scorer
    trains: bool
    asks: str | None = None
    keep_student: bool = False


def run_job(job: Job, news: News) -> None:
    """Do one run and write its record. An interrupted run continues from its checkpoint.

    Raises:
        TinyLLMError: this run cannot be done.
        KeyboardInterrupt: it was interrupted, and a checkpoint is written.
    """
    started = time.monotonic()
    config = build_config(job.config, source=job.key)
    splits, _ = checked_questions(config, news, SPLITS)
    for what, now, then in (
        ("test", questions_fingerprint(splits), job.questions),
        ("training or validation", learnt_fingerprint(splits), job.learnt),
    ):
        if now != then and (what == "test" or job.trains):
            raise DataError(
                f"The {what} questions of {job.dataset} are not those with which the experiment started: the file has "
                "changed, or this method drops other questions. Start the experiment again; it lists the affected "
                "runs."
            )
    work = RunFolder(Path(job.folder) / "work" / job.key)
    with work.claimed(config, wait_s=_WAIT_S):
        if job.rationales is not None:
            shared = Path(job.rationales)
            likelihoods = shared / f"likelihoods-{job.student}.json"
            _share(shared, work, likelihoods)
            trained = train_run(config, work, news, splits)
            measured = work.likelihoods  # other runs can use them
            if measured.is_file() and not (likelihoods.is_file() and filecmp.cmp(measured, likelihoods, shallow=False)):
                with replacing(likelihoods) as draft:
                    shutil.copyfile(measured, draft)
        else:
            trained = train_run(config, work, news, splits) if job.trains else {}
        asked = time.monotonic()
        if job.asks is None:
            from tinyllm.student.model import load_student, read_student

            student = read_student(work.student) if job.trains else load_student(config.student, student_card(config))
            found = list(_answers(student, splits, config.evaluate, job, news))
        else:
            found = list(_teachers_answers(job, config, splits.test, news))
        temperature = float(trained.get("temperature") or _temperature(found, config))
        answers = Answers.of(
            replace(a, probabilities=probabilities(ranked, temperature) if (ranked := _ranking(a, config)) else None)
            for a in found
        )
        figures = {
            "accuracy": answers.accuracies(),
            "temperature": temperature,
            "train": trained,
            "evaluate_seconds": time.monotonic() - asked,
            "seconds": _seconds(started, asked, trained),
            "environment": environment(),
        }
        _record(job, config, figures, splits, answers, work)
        if job.keep_student:
            write_text(
                work.path / KEPT,
                "Kept because of `keep_students`. Later starts without that setting do not remove it.\n",
            )
        else:
            shutil.rmtree(work.path, ignore_errors=True)


def _ranking(answer: Answer, config: Config) -> tuple[float, ...]:
    """Return what an answer's choices are ranked by; none where they were not scored. See `OptionScores.ranking`."""
    return (answer.mean if compares_by_token(config.student.layout) else answer.total) or ()


def _temperature(answers: Sequence[Answer], config: Config) -> float:
    """Return the temperature of an untrained student's probabilities; a trained one has it from its training."""
    scored = [(ranked, a.answer) for a in answers if a.split == "valid" and (ranked := _ranking(a, config))]
    return fit_temperature([ranked for ranked, _ in scored], [answer for _, answer in scored])


def _seconds(started: float, asked: float, trained: Mapping[str, Any]) -> float:
    """Return the time of a run. For a continued run, training reports the time before the interruption, too."""
    now = time.monotonic()
    return max(now - started, float(trained.get("seconds") or 0.0) + now - asked)


def _share(shared: Path, work: RunFolder, likelihoods: Path) -> None:
    """Put shared files into the folder of a run, as hard links where possible."""
    wanted = {shared / name: work.path / name for name in _SHARED_FILES} | {likelihoods: work.likelihoods}
    for source, place in wanted.items():
        if source.is_file():
            place.unlink(missing_ok=True)  # of an earlier start; the shared file can be newer
            try:
                os.link(source, place)
            except OSError:  # another file system
                shutil.copyfile(source, place)


def _record(
    job: Job, config: Config, figures: Mapping[str, Any], splits: Splits, answers: Answers, work: RunFolder
) -> None:
    folder = cells(Path(job.folder)) / job.key
    answers.write(folder)
    log = work.path / LOG_FILE
    if log.is_file():
        shutil.copyfile(log, folder / LOG_FILE)
    record = Record(
        folder=folder,
        key=job.key,
        dataset=job.dataset,
        student=job.student,
        method=job.method,
        settings=job.settings,
        seed=job.seed,
        questions=questions_fingerprint(splits),
        learnt=learnt_fingerprint(splits),
        rationales=job.rationales_hash,
        config=config.model_dump(mode="json"),
        figures=figures,
    )
    record.write()


def _teachers_answers(job: Job, config: Config, questions: Sequence[Question], news: News) -> Iterator[Answer]:
    """Yield a teacher's written answers to the test questions. Its prompt does not hold the right answer."""
    from tinyllm.rationales.checks import stated_choice
    from tinyllm.rationales.types import Rationale
    from tinyllm.stages.asking import opened_asking

    run = shared_folder(Path(job.folder), asked_key(job.dataset, str(job.asks)))
    with opened_asking(with_store(config, Path(job.folder)), run, questions) as asking:
        asking.ask(news, f"Asking {job.asks} the test questions")
        replies = {r.question_id: r.text for r in asking.collection() if isinstance(r, Rationale)}
    if lacking := len(questions) - len(replies):
        raise TeacherError(
            f"{job.asks} did not answer {lacking} of {len(questions)} test questions. Its other answers are kept. Run "
            "the same command again to ask the rest."
        )
    for question in questions:
        text = replies[question.id]
        yield Answer(
            "test", "asked", question.id, question.known_answer, text=text, written=stated_choice(text, question)
        )


# --- asking -------------------------------------------------------------------------------------------------------


def _answers(student: Student, splits: Splits, section: EvaluateSection, job: Job, news: News) -> Iterator[Answer]:
    """Yield the student's answers to the validation questions, and to the test questions in each view.

    Writing answers is slow. It is done for test questions in the view `asked`, and for validation questions if the
    scorer needs it.
    """
    from tinyllm.scoring.score import arithmetic

    asked: list[tuple[Split, View, Sequence[Question]]] = [("valid", "asked", splits.valid)]
    asked += [("test", view, splits.test) for view in job.views]
    learner = student.learner(learns=False)
    for split, view, questions in asked:
        if len(questions):
            writes = view == "asked" and "generation" in section.scorers
            writes = writes and (split == "test" or job.scorer == "generation")
            with news.task(f"Asking: {split}, {view}") as task, arithmetic(learner, section.precision):
                yield from _asked(student, learner, split, view, questions, section, writes, task)


def _asked(
    student: Student,
    learner: Any,
    split: Split,
    view: View,
    questions: Sequence[Question],
    section: EvaluateSection,
    writes: bool,
    task: Task,
) -> Iterator[Answer]:
    from tinyllm.scoring.score import generate_answers, score_options

    seen = [viewed(q, view) for q in questions]
    scores = (
        score_options(student, learner, seen, batch_tokens=section.batch_tokens, progress=task.update)
        if "likelihood" in section.scorers
        else [None] * len(seen)
    )
    written = (
        generate_answers(
            student, seen, max_new_tokens=section.max_new_tokens, batch_tokens=section.batch_tokens,
            progress=task.update,
        )
        if writes
        else [None] * len(seen)
    )  # fmt: skip
    for question, score, answer in zip(questions, scores, written, strict=True):
        yield Answer(
            split,
            view,
            question.id,
            question.known_answer,
            None if score is None else unrotated(score.total, view),
            None if score is None else unrotated(score.mean, view),
            None if answer is None else answer.text,
            None if answer is None else answer.choice,
        )
