"""Peak memory of generating and of predicting, by the number of questions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from benchmarks.common import Reach, Result, Row, row, say
from benchmarks.material import (
    configuration,
    endpoint,
    fresh_folder,
    made_up,
    measured,
    run_command,
    student_folder,
    write_configuration,
    write_questions,
)
from benchmarks.server import running
from tinyllm.config import StudentSection
from tinyllm.student.model import Student, StudentCard, load_tokenizer, save_student

_ABOUT = """\
The greatest resident memory of `tinyllm generate`, from reading the questions to writing the run's files, with more
and more questions; each row against the smallest number of them. The teacher is {teacher}.
(The libraries alone take most of it: torch is loaded for the student's tokenizer.)"""
_ABOUT_PREDICT = """\
The greatest resident memory of `tinyllm predict`, from reading the questions to writing the answers as Parquet, with
more and more questions; each row against the smallest number of them. The student is a T5 of two layers with random
weights, so that most of the memory is not the model's."""
_TEACHERS = {"scripted": "scripted, so that nothing but TinyLLM costs anything", "openai": "a server without latency"}


def memory(sizes: Sequence[int], teacher: str, rounds: int) -> Result:
    """Measure with several numbers of questions.

    Args:
        teacher: scripted, or openai (a local server without latency).
    """
    smallest, *others = sorted(sizes)
    base = [_peak_mb(smallest, teacher) for _ in range(rounds)]
    rows = [row(f"{smallest:,} questions", base, unit="MB")]
    rows += [_row(size, smallest, base, _peak_mb(size, teacher)) for size in others]
    return Result(
        name="memory",
        title="Memory",
        about=_ABOUT.format(teacher=_TEACHERS[teacher]),
        command="python -m benchmarks.generate memory",
        rows=rows,
        settings={"questions": sorted(sizes), "teacher": teacher},
    )


def predict_memory(sizes: Sequence[int], rounds: int) -> Result:
    """Measure predicting with several numbers of questions."""
    smallest, *others = sorted(sizes)
    with fresh_folder() as folder:
        student = _tiny_student(folder / "student")
        base = [_predict_mb(student, smallest, folder) for _ in range(rounds)]
        rows = [row(f"{smallest:,} questions", base, unit="MB")]
        rows += [_row(size, smallest, base, _predict_mb(student, size, folder)) for size in others]
    return Result(
        name="predict-memory",
        title="Memory of predicting",
        about=_ABOUT_PREDICT,
        command="python -m benchmarks.predict memory",
        rows=rows,
        settings={"questions": sorted(sizes)},
    )


def _tiny_student(folder: Path) -> Path:
    source = student_folder()
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(source))
    card = StudentCard(prefixes={"answer": "Answer:"}, layout="cloze")
    save_student(Student(model, load_tokenizer(StudentSection(model=str(source)))[0], card), folder, "")
    return folder


def _predict_mb(student: Path, size: int, folder: Path) -> float:
    out = folder / "answers.parquet"
    out.unlink(missing_ok=True)
    questions = write_questions(folder / f"{size}.jsonl", size)
    done = measured("predict", student, questions, "-o", out, folder=folder)
    megabytes = done.peak_bytes / 1e6
    say(f"predict: {size:,} questions: {megabytes:.0f} MB, {done.seconds:.0f} s")
    if done.printed["answered"] != size:
        raise SystemExit(f"predict: {done.printed['answered']} of {size} questions were answered")
    return megabytes


def _row(size: int, smallest: int, base: Sequence[float], peak: float) -> Row:
    # Once: a peak hardly differs from run to run, and the largest takes its time.
    return row(
        f"{size:,} questions", [peak], [statistics.median(base)],
        unit="MB", peer_name=f"{smallest:,} questions", reach=Reach("ratio", "at most", 1.2),
    )  # fmt: skip


def _peak_mb(size: int, teacher: str) -> float:
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder())
        asked = {"kind": "scripted"} if teacher == "scripted" else endpoint(stack.enter_context(running()).url, 128)
        config = write_configuration(configuration(made_up(folder, size), asked), folder)
        done = run_command(config, folder)
    kept, megabytes = done.printed["teacher"]["rationales"], done.peak_bytes / 1e6
    say(f"memory: {size:,} questions: {megabytes:.0f} MB, {done.seconds:.0f} s, {kept:,} kept")
    if kept != size:
        raise SystemExit(f"memory: {kept} of {size} rationales were kept")
    return megabytes
