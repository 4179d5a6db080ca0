"""Opinions: asks the teachers for their own answers. This is a part of generate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from tinyllm.config import Config, TeacherConfig, Way, ways_of
from tinyllm.errors import TeacherError, did_you_mean
from tinyllm.questions import gather, leave_out
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._asking import Asking, ways_of_asking
from tinyllm.stages._soft import pools_by
from tinyllm.stages.asking import forecast_lines
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import write_json
from tinyllm.system.news import News
from tinyllm.teachers import Teacher

if TYPE_CHECKING:
    from tinyllm.rationales.requests import Requests
    from tinyllm.replies import Store

FIGURES = "opinions.json"


def ask_opinions(config: Config, run: RunFolder, splits: Splits, news: News) -> dict[str, Any]:
    """Ask the teachers in `opinions`, and write `opinions.parquet` and `opinions.json`. Return the figures.

    Replies without an opinion and requests without a reply are listed in `rejected.jsonl`. A request whose reply is in
    the store is not sent again.

    Raises:
        TeacherError: a teacher cannot be asked any more. The other teachers finish first.
        KeyboardInterrupt: the user interrupted it. All replies that arrived are stored.
    """
    from tinyllm.comparison.opinions import OpinionFigures
    from tinyllm.opinions.files import writing_opinions
    from tinyllm.rationales.files import writing_rejections

    asked = questions_asked(config, splits, news)
    given = given_keys(config, asked)
    together = joined(asked)
    with opened_opinions(config, run, together) as asking:
        if asking.is_priced:
            for line in forecast_lines(asking.forecasts(news)):
                news.say(line)
        asking.ask(news, "Opinions")
        collection = asking.opinions(given)
        tally = OpinionFigures(collection.usage)
        names = (name for name, questions in asked.items() for _ in range(len(questions)))
        with (
            news.task("Reading the opinions"),
            writing_opinions(run.path) as add,
            writing_rejections(run.path, "opinion") as reject,
        ):
            for split, (question, opinions) in zip(names, collection.over(together, reject), strict=True):
                add(split, opinions)
                tally.add(question, opinions)
        figures = tally.figures(collection.usage, asking.costs(collection))
    write_json(run.path / FIGURES, figures)
    for name, found in figures["teachers"].items():
        news.say(_opinion_text(name, found))
    return figures


@contextlib.contextmanager
def opened_opinions(
    config: Config,
    run: RunFolder,
    questions: Sequence[Question],
    *,
    may_write: bool = True,
    will_ask: bool = True,
    needs_keys: bool = True,
) -> Iterator[Asking]:
    """Load the teachers that are asked for opinions and open the store, until the block ends; see `opened_asking`."""
    from tinyllm.opinions.requests import OpinionRequests
    from tinyllm.replies import open_store, store_of

    ways = _ways(config)
    specs = [t for t in config.teachers if ways.get(t.name, "given") != "given"]
    path = store_of(run.path, config.rationales.store)

    def make(teacher: Teacher, spec: TeacherConfig, store: Store | None) -> Requests:
        return OpinionRequests(
            teacher, questions, config.opinions, ways[teacher.name], **ways_of_asking(teacher, spec, store)
        )

    with open_store(path) if specs and (may_write or path.is_file()) else contextlib.nullcontext() as store:
        yield Asking(config, specs, questions, store, run, make, will_ask=will_ask, needs_keys=needs_keys)


def _ways(config: Config) -> dict[str, Way]:
    """Return the way of asking for each teacher in `opinions`."""
    named = config.opinions.teachers
    return {
        t.name: way if (way := named[t.name]) != "auto" else ways_of(t.kind)[0]
        for t in config.teachers
        if t.name in named
    }


def questions_asked(config: Config, splits: Splits, news: News) -> dict[str, Sequence[Question]]:
    """Return the questions that are asked, by split, without those that have too many choices for one of the ways."""
    from tinyllm.opinions.requests import most_choices

    ways = _ways(config).values()
    if config.train.soft is None and set(ways) - {"given"}:
        news.say(
            "  note: train.soft is not set, so the student does not learn from opinions, and they are asked for the "
            "report only. To ask for none, add --set opinions=null"
        )
    limits = [most for way in ways if (most := most_choices(way)) is not None]
    most = min(limits, default=None)
    found: dict[str, Sequence[Question]] = {}
    for name in _asked_splits(config, splits):
        questions = getattr(splits, name)
        many = [] if most is None else [i for i, q in enumerate(questions) if len(q.choices) > most]
        if many:
            news.say(
                f"  note: {len(many)} {name} questions have more than {most} choices. They are not asked: a teacher "
                "cannot answer them by letter."
            )
        found[name] = leave_out(questions, many)
    return found


def _asked_splits(config: Config, splits: Splits) -> Iterable[str]:
    """Return the names of the splits that are asked: those in `opinions.splits`, and those that `train.soft` needs."""
    soft = config.train.soft
    needed: list[str] = [*config.opinions.splits]
    if soft is not None and len(splits.more):
        needed.append("more")
    if pools_by(config) and any(q.answer is not None for q in splits.valid):
        needed.append("valid")
    return dict.fromkeys(needed)


def joined(asked: dict[str, Sequence[Question]]) -> Sequence[Question]:
    return next(iter(asked.values())) if len(asked) == 1 else gather(chain.from_iterable(asked.values()))


def given_keys(config: Config, asked: dict[str, Sequence[Question]]) -> dict[str, str]:
    """Return the keys under which the questions carry opinions, by teacher."""
    ways = _ways(config)
    given = {t.name: t.source or t.name for t in config.teachers if t.kind == "given" and t.name in ways}
    for name, source in given.items():
        if not any(source in q.opinions for q in chain.from_iterable(asked.values())):
            known = sorted({key for q in chain.from_iterable(asked.values()) for key in q.opinions})
            raise TeacherError(
                f"Teacher '{name}': no question has an opinion with the key '{source}'.{did_you_mean(source, known)} "
                f"Keys in the questions' `opinions`: {', '.join(known) or 'none'}. Correct the teacher's `source` or "
                "the data, or remove the teacher from `opinions.teachers`.",
                page="questions.md#your-own-rationales-and-opinions",
            )
    return given


def _opinion_text(name: str, found: dict[str, Any]) -> str:
    missing = found["questions"] - found["opinions"]
    number = sum(found["rejected"].values())
    gave = f"{number:,} request{'' if number == 1 else 's'} gave none"
    why = ", ".join(
        f"{n} {reason.replace('_', ' ')}" for reason, n in sorted(found["rejected"].items(), key=lambda i: -i[1])
    )
    worth = ""
    if found["accuracy"]:
        low, high = found["accuracy"]["ci95"]
        some = f" of {found['accuracy']['n']:,} with an answer" if found["accuracy"]["n"] < found["opinions"] else ""
        worth = f", right on {100 * found['accuracy']['value']:.1f} %{some} ({100 * low:.1f}–{100 * high:.1f})"
        worth += f", calibration error (ECE) {found['ece']:.3f}"
    way = "in the data" if found["way"] == "given" else f"by {found['way']}"
    return (
        f"  {name}: {found['opinions']:,} opinions {way}{worth}"
        + (f", {missing:,} questions without an opinion" if missing else "")
        + (f"; {gave} ({why}), see rejected.jsonl" if number else "")
    )
