"""Run: every stage in order; what is done is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyllm.config import Config
from tinyllm.stages._auto import few_to_choose_by
from tinyllm.stages._scored import scored_questions
from tinyllm.stages.evaluate import evaluate_run
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.generate import generate_run
from tinyllm.stages.opinions import unanswered_opinions
from tinyllm.stages.report import report_run
from tinyllm.stages.train import train_run
from tinyllm.system.files import read_json
from tinyllm.system.news import News


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a whole run gave.

    Attributes:
        metrics: `metrics.json`; without an accuracy where no test question has an answer.
        unanswered: questions for which a teacher gave no reply at all, by teacher and reason.
    """

    metrics: dict[str, Any]
    report: Path
    unanswered: dict[str, dict[str, int]]


def run_all(
    config: Config, run: RunFolder, news: News, after_generate: Callable[[], Iterable[str]] = tuple
) -> _Outcome:
    """Run every stage that is not done yet.

    Args:
        after_generate: gives lines to print when the teachers have answered.
    """
    from tinyllm.comparison.metrics import evaluation_fingerprint

    splits = scored_questions(config, news, run)
    if not run.is_trained and (text := few_to_choose_by(config, splits)):
        news.say(f"  warning: {text}")
    yields = generate_run(config, run, news, splits)
    for line in after_generate():
        news.say(line)
    train_run(config, run, news, splits)
    if run.metrics.is_file() and read_json(run.metrics).get("fingerprint") == evaluation_fingerprint(config, splits):
        news.say(f"✓ The student is already evaluated ({run.metrics})")
        figures = read_json(run.metrics)
    else:
        figures = evaluate_run(config, run, news, splits)
    unanswered = {name: found.unanswered for name, found in yields.items() if found.unanswered}
    unanswered |= unanswered_opinions(run)
    return _Outcome(figures, report_run(run, news), unanswered)
