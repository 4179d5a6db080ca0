"""One run of an experiment: train as any run does, ask all questions, keep every answer, remove the rest."""

from __future__ import annotations

import filecmp
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.comparison.answers import Answer, Answers, Scorer, Split, as_answers, write_answers
from tinyllm.comparison.records import LOG_FILE, RUN_FILE, Record, cells
from tinyllm.config import Config, EvaluateSection, build_config, compares_by_token
from tinyllm.errors import DataError, TeacherError
from tinyllm.experiments._shared import asked_key, learnt_fingerprint, questions_fingerprint, shared_folder
from tinyllm.questions import SPLITS
from tinyllm.questions.types import Question, Splits
from tinyllm.scoring.views import View, unrotated, viewed
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import LIKELIHOODS, student_card
from tinyllm.stages.train import train_run
from tinyllm.system.files import replacing, write_json, write_text
from tinyllm.system.machine import environment
from tinyllm.system.news import News, Task

if TYPE_CHECKING:
    from tinyllm.student.model import Student

_WAIT_S = 60.0  # for the process of an experiment that was killed to write its checkpoint and go
KEPT = "kept"
"""Says in a run's folder that its student is to stay."""
_SHARED_FILES = ("rationales.parquet", "yields.json", "opinions.parquet", "opinions.json")


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process has to know to do one run; it travels as JSON.

    Attributes:
        folder: of the experiment.
        rationales: folder of the rationales and opinions that runs share; None where nothing is learnt from any.
        rationales_hash: of those that it learns from.
        questions: hash of the test questions, as the experiment read them.
        learnt: hash of the training and validation questions, as the experiment read them.
        views: how the test questions are asked.
        scorer: by which settings are chosen; validation questions are answered in writing only for that.
        asks: the teacher that is asked itself, in place of a student.
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
    """Do one run and leave its record; a run that was interrupted goes on from its checkpoint.

    Raises:
        TinyLLMError: it cannot be done; the others may.
        KeyboardInterrupt: it was interrupted, after a checkpoint.
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
                f"The {what} questions of {job.dataset} are not the ones that the experiment began with: their file "
                "has changed since, or this method leaves others out. Started again, the experiment says what that "
                "concerns."
            )
    work = RunFolder(Path(job.folder) / "work" / job.key)
    with work.claimed(config, wait_s=_WAIT_S):
        if job.rationales is not None:
            shared = Path(job.rationales)
            likelihoods = shared / f"likelihoods-{job.student}.json"
            _share(shared, work.path, likelihoods)
            trained = train_run(config, work, news, splits)
            _give_back(work.path, likelihoods)
        else:
            trained = train_run(config, work, news, splits) if job.trains else {}
        asked = time.monotonic()
        if job.asks is None:
            found = list(_answers(_student(job, config, work), splits, config.evaluate, job, news))
        else:
            found = list(_teachers_answers(job, config, splits.test, news))
        temperature = float(trained.get("temperature") or _temperature(found, config))
        answers = as_answers(_calibrated(found, config, temperature))
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
            write_text(work.path / KEPT, "As `keep_students` asked; a later start without it leaves it here.\n")
        else:
            shutil.rmtree(work.path, ignore_errors=True)


def _ranking(answer: Answer, config: Config) -> tuple[float, ...]:
    """Return what an answer's choices are ranked by; none where they were not scored. See `OptionScores.ranking`."""
    return (answer.mean if compares_by_token(config.student.layout) else answer.total) or ()


def _temperature(answers: Sequence[Answer], config: Config) -> float:
    """Return the temperature of an untrained student's probabilities; a trained one has it from its training."""
    from tinyllm.scoring.calibration import fit_temperature

    scored = [(ranked, a.answer) for a in answers if a.split == "valid" and (ranked := _ranking(a, config))]
    return fit_temperature([ranked for ranked, _ in scored], [answer for _, answer in scored])


def _calibrated(answers: Sequence[Answer], config: Config, temperature: float) -> Iterator[Answer]:
    """Yield answers with the probabilities of their choices at a temperature."""
    from tinyllm.scoring.calibration import probabilities

    for answer in answers:
        ranked = _ranking(answer, config)
        yield replace(answer, probabilities=probabilities(ranked, temperature) if ranked else None)


def _seconds(started: float, asked: float, trained: Mapping[str, Any]) -> float:
    """Return what a run took in all: of one that was interrupted, training knows the time before."""
    now = time.monotonic()
    return max(now - started, float(trained.get("seconds") or 0.0) + now - asked)


def _student(job: Job, config: Config, work: RunFolder) -> Student:
    from tinyllm.student.model import load_student, read_student

    return read_student(work.student) if job.trains else load_student(config.student, student_card(config))


def _share(shared: Path, work: Path, likelihoods: Path) -> None:
    """Bring what runs have in common to where a run looks for it, without copying where that can be."""
    wanted = {shared / name: work / name for name in _SHARED_FILES} | {likelihoods: work / LIKELIHOODS}
    for source, place in wanted.items():
        if source.is_file():
            place.unlink(missing_ok=True)  # of an earlier start; what is shared may have been renewed since
            try:
                os.link(source, place)
            except OSError:  # another file system
                shutil.copyfile(source, place)


def _give_back(work: Path, likelihoods: Path) -> None:
    """Keep for the others what this run was the first to measure."""
    measured = work / LIKELIHOODS
    if measured.is_file() and not (likelihoods.is_file() and filecmp.cmp(measured, likelihoods, shallow=False)):
        with replacing(likelihoods) as draft:
            shutil.copyfile(measured, draft)


def _record(
    job: Job, config: Config, figures: Mapping[str, Any], splits: Splits, answers: Answers, work: RunFolder
) -> None:
    folder = cells(Path(job.folder)) / job.key
    write_answers(folder, answers)
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
    write_json(folder / RUN_FILE, record.as_json())


def _teachers_answers(job: Job, config: Config, questions: Sequence[Question], news: News) -> Iterator[Answer]:
    """Yield what a teacher answers in writing to the test questions, with the answer kept from it."""
    from tinyllm.rationales.checks import stated_choice
    from tinyllm.rationales.types import Rationale
    from tinyllm.stages.asking import opened_asking

    run = shared_folder(Path(job.folder), asked_key(job.dataset, str(job.asks)))
    with opened_asking(config, run, questions) as asking:
        asking.ask(news, f"Asking {job.asks} the test questions")
        replies = {r.question_id: r.text for r in asking.collection() if isinstance(r, Rationale)}
    if lacking := len(questions) - len(replies):
        raise TeacherError(
            f"{job.asks} did not answer {lacking} of {len(questions)} test questions; those that it answered are kept, "
            "and the same command asks for the others."
        )
    for question in questions:
        text = replies[question.id]
        yield Answer(
            "test", "asked", question.id, question.known_answer, text=text, written=stated_choice(text, question)
        )


# --- asking -------------------------------------------------------------------------------------------------------


def _answers(student: Student, splits: Splits, section: EvaluateSection, job: Job, news: News) -> Iterator[Answer]:
    """Yield the student's answers: to the validation questions, and to the test questions in every view.

    Writing is the slower half: it is done for test questions as they stand, and for the validation questions where
    settings are chosen by it.
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
