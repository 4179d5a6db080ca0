"""Generate: teachers write rationales for the training questions, and say what they themselves would answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tinyllm.config import Config
from tinyllm.questions import answered
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._opinions import ask_opinions
from tinyllm.stages._soft import explained, uses_answers
from tinyllm.stages.asking import forecast_lines, opened_asking
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.rationales.types import TeacherYield

_SHOWN = {"empty": "empty or too short"}  # reasons whose names say too little


def generate_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, TeacherYield]:
    """Have the teachers that the method learns from write rationales for the training questions.

    Opinions are asked first, because with `rationales.pooled` some rationales explain the pooled opinion. What the
    store holds is not asked again. Writes `rationales.parquet`, `rejected.jsonl`, and, where `opinions` names
    teachers, `opinions.parquet` and `opinions.json`.

    Raises:
        TeacherError: a teacher can answer nothing more; the others have finished by then.
        KeyboardInterrupt: it was interrupted; every reply that came is stored.
    """
    from tinyllm.rationales.files import write_rationales, writing_rejections

    splits = splits or checked_questions(config, news)[0]
    if config.opinions.teachers:
        ask_opinions(config, run, splits, news)
    else:
        with writing_rejections(run.path, "opinion"):
            pass  # removes the lines of opinions that were asked before
    questions, guessed = explained(config, run, splits)
    examples: Sequence[Question] = questions
    if config.rationales.pooled:  # the examples of a prompt are of known answers, if these may be used
        examples = answered(splits.train) if uses_answers(config) else ()
    with opened_asking(config, run, questions, examples=examples) as asking:
        if asking.is_priced:
            for line in forecast_lines(asking.forecasts(news)):
                news.say(line)
        asking.ask(news, "Rationales")
        collection = asking.collection()
        with news.task("Checking the replies"):
            write_rationales(run.path, collection, guessed)
    for name, found in collection.yields.items():
        news.say(_yield_text(name, found))
    _warn_of_rejected(collection.yields, run, news)
    return collection.yields


def _yield_text(name: str, found: TeacherYield) -> str:
    rejected = ", ".join(
        f"{n} {_SHOWN.get(reason, reason.replace('_', ' '))}"
        for reason, n in sorted(found.rejected.items(), key=lambda i: -i[1])
    )
    return (
        f"  {name}: {found.rationales} rationales"
        + (f" ({sum(found.repaired.values())} repaired)" if found.repaired else "")
        + (f", {sum(found.resampled.values())} needed a second request" if found.resampled else "")
        + (f", {found.missing} missing" if found.missing else "")
        + (f", {found.thinking_tokens:,} tokens of thoughts" if found.thinking_tokens else "")
        + (f", rejected: {rejected}" if rejected else "")
    )


def _warn_of_rejected(yields: Mapping[str, TeacherYield], run: RunFolder, news: News) -> None:
    """Warn of teachers that replied, and none of whose replies passed the checks."""
    for name, found in yields.items():
        if not found.rationales and found.rejected.keys() - found.unanswered.keys():
            news.say(
                f"  warning: {name} gave no rationale: all its replies failed a check. Look at them in "
                f"{run.path / 'rejected.jsonl'}, or with: tinyllm report {shlex.quote(str(run.path))}"
            )
