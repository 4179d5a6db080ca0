"""Opinions: what asking the teachers for their own answers will take, and what is unanswered. Generate asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllm.config import Config
from tinyllm.errors import TinyLLMError
from tinyllm.questions.types import Splits
from tinyllm.stages._opinions import FIGURES, given_keys, joined, opened_opinions, questions_asked
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.rationales.forecast import Forecast


def unanswered_opinions(run: RunFolder) -> dict[str, dict[str, int]]:
    """Return the number of requests for opinions without a reply, by teacher and reason."""
    from tinyllm.rationales.types import TeacherYield

    if not (run.path / FIGURES).is_file():
        return {}
    teachers = read_json(run.path / FIGURES)["teachers"].items()
    found = {f"{name} (opinions)": TeacherYield(rejected=figures["rejected"]).unanswered for name, figures in teachers}
    return {name: reasons for name, reasons in found.items() if reasons}


def opinion_forecasts(
    config: Config,
    run: RunFolder,
    splits: Splits,
    news: News,
    pilot: int = 0,
    *,
    first: int | None = None,
    will_ask: bool = True,
    missing_keys: list[TinyLLMError] | None = None,
) -> tuple[Forecast, ...]:
    """Return a forecast of the requests for opinions, after asking about `pilot` questions.

    Args:
        first: if given, forecast a pilot about so many questions.
        will_ask: False if only the forecast is wanted. Then nothing that teachers need has to be there.
        missing_keys: if given, missing keys are added to it, and are no problem.
    """
    if not config.opinions.teachers:
        return ()
    asked = questions_asked(config, splits, news)
    given_keys(config, asked)
    needs_keys = missing_keys is None
    with opened_opinions(
        config, run, joined(asked), may_write=pilot > 0, will_ask=will_ask, needs_keys=needs_keys
    ) as asking:
        if missing_keys is not None:
            missing_keys += asking.missing_keys
        if pilot:
            asking.ask(news, "Pilot of opinions", first=pilot)
        return asking.forecasts(news, first=first)
