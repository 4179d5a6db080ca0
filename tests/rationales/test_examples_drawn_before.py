"""Replies to in-context examples of earlier versions (before decision 12) are not asked again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import generation
from tinyllm.config import RationalesSection, build_config
from tinyllm.prompts import ExampleGenerator
from tinyllm.rationales.generate import Stop, generate
from tinyllm.rationales.requests import Requests
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.stages.asking import opened_asking
from tinyllm.stages.folder import RunFolder
from tinyllm.system.news import News

ASKED = generation.questions(40)


class Reads(generation.Counting):
    """A teacher that reads its prompt."""

    form = "chat"
    stop = ()


def fill(store: Path, section: RationalesSection, *, by_place: bool, first: int | None) -> None:
    teacher = Reads("ada", ASKED)
    examples = ExampleGenerator(ASKED, section.examples, by_place=by_place)
    requests = [Requests(teacher, ASKED, examples, section)]
    with Store(store) as opened:
        progress = generation.Recorder()
        asyncio.run(generate(requests, opened, progress, budget=Budget(section.budget, {}), stop=Stop(), first=first))


@pytest.mark.parametrize("strategy", ["random", "fixed", "similar"])
@pytest.mark.parametrize(
    ("filled", "missing"), [("by place", 0), ("by text", 0), ("some by place", 30), ("not at all", 40), ("both", 0)]
)
def test_a_store_keeps_using_the_examples_of_its_replies(tmp_path, monkeypatch, strategy, filled, missing):
    config = build_config(
        {
            "data": {"dataset": "starter"},
            "teachers": [{"name": "ada", "kind": "scripted"}],
            "rationales": {"examples": {"strategy": strategy}},
        }
    )
    store = tmp_path / "runs" / "replies.sqlite"
    if filled != "not at all":
        if "place" in filled or filled == "both":
            fill(store, config.rationales, by_place=True, first=10 if "some" in filled else None)
        if filled in ("by text", "both"):
            fill(store, config.rationales, by_place=False, first=None)
    monkeypatch.setattr("tinyllm.teachers.make_teacher", lambda spec, questions, journal: Reads("ada", questions))
    with opened_asking(config, RunFolder(tmp_path / "runs" / "mine"), ASKED) as asking:
        asking.ask(News(quiet=True), "Rationales")
        (requests,) = asking._requests
        teacher = requests.teacher
        assert isinstance(teacher, Reads)
        assert len(teacher.asked) == missing
        assert sum(1 for _ in asking.collection()) == len(ASKED)
