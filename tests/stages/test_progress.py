"""What is seen of asking, and that it leaves the garbage collector as it was."""

from __future__ import annotations

import gc

import pytest

from tinyllm.config import BudgetSection
from tinyllm.rationales.generate import Ended, Standing
from tinyllm.spending.budget import Budget
from tinyllm.stages import _progress
from tinyllm.stages._progress import GenerationNews, run_asking
from tinyllm.system.news import News, Task


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_caller_has_frozen_stays_frozen(frozen):
    seen = []

    async def asking(stop):
        seen.append(gc.get_freeze_count())
        return Ended(None, ())

    try:
        gc.unfreeze()
        if frozen:
            gc.freeze()
        usual = gc.get_threshold()
        run_asking(asking, News(quiet=True))
        assert seen[0] > 0
        assert (gc.get_freeze_count() > 0) == frozen
        assert gc.get_threshold() == usual
    finally:
        gc.freeze()  # as tests/conftest.py has it


def test_the_time_to_go_counts_a_teacher_whose_turn_has_not_come(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: clock[0])
    news = GenerationNews(News(quiet=True), Budget(BudgetSection(), {}), {}, in_turn=frozenset({"ada", "bob"}))
    ada, task = Standing("ada", 50, done=10, stored=10, kept=10), Task("Rationales", 90)
    news.advance(ada)
    news.look(task)
    assert task.to_go_s is None
    clock[0], ada.done, ada.kept = 6.0, 12, 12  # a model that loads is not slow
    news.look(task)
    assert task.to_go_s is None
    clock[0], ada.done, ada.kept = 15.0, 30, 30
    news.look(task)
    assert task.to_go_s == pytest.approx(10 + 20)  # two a second: 20 of ada, and 40 of bob
    assert task.note.startswith("ada 30 kept (10 earlier) · 2.0/s")
    ada.resampled = 7
    news.look(task)
    assert task.note.startswith("ada 30 kept 7 asked anew (10 earlier)")
    clock[0], ada.done, ada.kept = 20.0, 50, 50
    news.look(task)
    assert "/s" not in task.note  # of a teacher that has finished


def test_the_rate_of_a_slow_teacher_is_that_of_its_last_twenty_replies(monkeypatch):
    clock, rate = [0.0], _progress._Rate()
    monkeypatch.setattr(_progress.time, "monotonic", lambda: clock[0])
    for second, count in [(0, 1), *((10 * n, 1 + n) for n in range(1, 31))]:  # one in ten seconds
        clock[0] = float(second)
        rate.see(count)
    clock[0] += 9  # and the next one is due: a window of half a minute would now say less
    rate.see(31)
    assert rate.per_s() == pytest.approx(0.1, rel=0.1)


def test_after_ctrl_c_the_bar_says_what_is_in_flight_and_not_when_all_would_be_done(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: clock[0])
    news = GenerationNews(News(quiet=True), Budget(BudgetSection(), {}), {})
    ada, task = Standing("ada", 50, in_flight=4), Task("Rationales", 50)
    news.advance(ada)
    clock[0], ada.done, ada.kept = 1.0, 2, 2
    news.look(task)
    clock[0], ada.done, ada.kept = 10.0, 20, 20
    news.look(task)
    assert (task.to_go(), "in flight" in task.note) == ("about 15 s to go", False)
    news.stop.wish("interrupted")
    news.look(task)
    assert (task.to_go(), task.note) == ("", "4 in flight · ada 20 kept · 2.0/s")


def test_evaluation_names_what_it_counts(cli, project, monkeypatch):
    seen, update = [], Task.update

    def remembered(self: Task, done: int, total: int | None = None, note: str = "") -> None:
        seen.append((self.label, total))
        update(self, done, total, note)

    monkeypatch.setattr(Task, "update", remembered)
    said = cli("run", project.config)
    assert said.code == 0, said.err
    counted = dict(seen)
    shown = counted["The student: writing as ada"]
    assert 0 < shown == counted["The student: writing as bob"]
    assert counted["The student: ranking choices"] > counted["The student: writing answers"] == 6
    assert counted["The untrained student: ranking choices"] == 6
    assert "✓ Evaluating the student · " in said.err
    assert "6 test questions and " in said.err
