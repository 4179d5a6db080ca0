"""Evaluate: the student is scored on the test questions, before and after training."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tinyllm.config import Config, teachers_in_use
from tinyllm.errors import RunFolderError
from tinyllm.questions.types import Splits
from tinyllm.stages._scored import scored_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import student_card
from tinyllm.system.files import read_json, write_json, write_jsonl
from tinyllm.system.news import News, Task

if TYPE_CHECKING:
    from tinyllm.scoring.predictions import Prediction
    from tinyllm.student.model import Student


def evaluate_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, Any]:
    """Score the student before and after training on the test split.

    Writes `predictions.jsonl`, `metrics.json`.
    """
    from tinyllm.comparison.metrics import metrics
    from tinyllm.rationales.files import read_yields
    from tinyllm.scoring.score import predict
    from tinyllm.student.model import load_student, read_student

    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student; run `tinyllm train` first.")
    splits = splits or scored_questions(config, news)
    splits = _with_learnt(splits, run, news)
    yields = read_yields(run.path) if teachers_in_use(config) else {}
    train = read_json(run.train_result)
    predictions: list[Prediction] = []
    for stage in ("before", "after") if config.evaluate.before and splits.test else ("after",):
        who = "the untrained student" if stage == "before" else "the student"
        on = f"{len(splits.test)} test questions" if splits.test else "no test question"
        # The report shows these questions, with the teachers' opinions.
        may_be_shown = (q for q in splits.train if q.answer is not None or config.opinions.teachers)
        taught = tuple(islice(may_be_shown, config.evaluate.train_questions)) if stage == "after" else ()
        on += f" and {len(taught)} training questions" if taught else ""
        with news.task(f"Evaluating {who}") as task:
            task.note = "loading"
            # One that has not learnt to write rationales answers at once.
            untrained = replace(student_card(config), reasons_as="")
            student: Student = (
                load_student(config.student, untrained) if stage == "before" else read_student(run.student)
            )

            def seen(done: int, total: int, what: str, task: Task = task, who: str = who) -> None:
                task.label = f"{who.capitalize()}: {what}"  # each part counts other things
                task.update(done, total)

            predictions += predict(stage, student, splits.test, taught, config.evaluate, seen)
            task.note = on
    figures = metrics(config, splits, predictions, yields, train)
    write_jsonl(run.predictions, [p.as_json() for p in predictions])
    write_json(run.metrics, figures)
    return figures


def _with_learnt(splits: Splits, run: RunFolder, news: News) -> Splits:
    """Return the splits with a warning where the student was trained or tuned on test questions."""
    is_learnt = Splits.read_learnt(run.path)
    number = 0 if is_learnt is None else sum(map(is_learnt, splits.test))
    if not number:
        return splits
    text = "test question that is also a training or validation question"
    news.say(f"  warning: {number} × {text}. The accuracy on the test questions is too high")
    return replace(splits, warnings={**splits.warnings, text: number})
