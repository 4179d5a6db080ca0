"""The questions of a run that are scored, and those that are not."""

from __future__ import annotations

from dataclasses import replace

from tinyllm.config import Config
from tinyllm.questions import with_answers
from tinyllm.questions.types import Splits
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News


def scored_questions(config: Config, news: News, run: RunFolder | None = None) -> Splits:
    """Return the questions of a run, as `checked_questions` does. None is a test question if no answer of one is known.

    This may be so where opinions stand in for answers, or where there is no test question. The student then answers
    training questions for the report.
    """
    needed = ("train", "test") if config.train.soft is None else ("train",)
    splits, _ = checked_questions(config, news, needed, run=run)
    if any(q.answer is not None for q in splits.test):
        return with_answers(splits, ("test",), drop=config.data.on_invalid == "drop")
    news.say("  note: no test question has an answer, so the student is not scored")
    return replace(splits, test=())
