"""News: a line at least every few seconds where there is no terminal, also while nothing moves."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

import tinyllm.system.news
from tinyllm.system.news import News, Task, _bar, _fitted, duration


def test_lines_come_while_one_waits_and_the_end_is_told(capsys, monkeypatch):
    monkeypatch.setattr(tinyllm.system.news, "_LINE_EVERY_S", 0.05)
    with News().task("Counting", 40) as task:
        task.update(0)
        task.update(1)
        time.sleep(0.1)
        task.update(2, note="two [bold]")
        time.sleep(0.3)
    err = capsys.readouterr().err
    assert err.count("Counting · 2/40 · about") >= 2
    assert "to go" in err
    assert "two [bold]" in err, "a note is text, not markup"
    assert "✓ Counting · 0 s" in err


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_keeps_its_count_and_times_on_a_narrow_terminal(width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    task = Task("Evaluating the student after the training", 120)
    task.update(0)
    task.to_go_s = 75
    with _bar(console, task):
        task.update(43, note="writing [bold] explanations")
        time.sleep(0.5)
    last = [line for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", screen.getvalue()) if "43/120" in line][-1]
    assert len(last.rstrip()) <= width
    assert last.split()[1].startswith("Evaluating")
    assert "0:00:0" in last
    assert "about 1 min to go" in last
    assert ("writing [bold] explanations" in last) == (width == 120), "a note is text, not markup"
    assert ("writing" in last) == (width == 120), "a fact that does not fit is left out, not cut"


def test_a_bar_leaves_out_the_facts_that_do_not_fit():
    task = Task("Opinions", 96)
    task.note = "gemma3 67 kept · smollm2 40 kept (39 earlier) · 2.5/s"
    assert _fitted(80, task, "67/96", "about 45 s to go")[2] == "gemma3 67 kept · 2.5/s"
    assert _fitted(120, task, "67/96", "about 45 s to go")[2] == task.note


def test_the_clock_of_a_full_bar_goes_on():
    screen = io.StringIO()
    task = Task("Training", 6)
    with _bar(Console(file=screen, force_terminal=True, width=80, color_system=None), task):
        task.update(6, note="saving a checkpoint")
        time.sleep(1.3)
    full = [
        line for line in re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", screen.getvalue()) if "saving a checkpoint" in line
    ]
    assert "0:00:01" in full[-1]
    assert full[-1][0] != " ", "the spinner turns"


def test_quiet_says_nothing(capsys):
    news = News(quiet=True)
    news.say("hello")
    with news.task("Counting") as task:
        task.update(1)
    assert capsys.readouterr().err == ""


def test_an_error_inside_a_task_is_not_reported_as_done(capsys):
    with pytest.raises(ZeroDivisionError), News().task("Counting"):
        1 / 0  # noqa: B018
    assert "✓" not in capsys.readouterr().err


def test_foreign_words_cannot_rewrite_the_terminal(capsys) -> None:
    News().say("the server says \x1b[2J\x1b]0;title\x07no \u202emodel")
    assert capsys.readouterr().err == "the server says no model\n"


def test_the_time_to_go_does_not_count_what_was_done_before_an_interruption(monkeypatch):
    clock = iter([0.0, 10.0, 20.0, 20.0, 50.0, 500.0])  # the start, two updates, three looks
    monkeypatch.setattr(tinyllm.system.news.time, "monotonic", lambda: next(clock))
    task = Task("Training", 100)
    task.update(78)
    task.update(80)
    assert task.to_go() == "about 2 min to go"  # two steps in ten seconds, and twenty remain
    assert task.to_go() == "about 1 min to go", "it does not grow while a long step is computed"
    assert task.to_go() == "", "it takes longer than it should, so nobody knows"


def test_an_estimate_begins_anew_where_other_things_are_counted(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 50.0, 52.0, 54.0, 54.0])  # the start, five updates, a look that knows
    monkeypatch.setattr(tinyllm.system.news.time, "monotonic", lambda: next(clock))
    task = Task("Evaluating the student", None)
    task.update(0, 43)
    task.update(43, 43)
    task.update(0, 16)
    task.update(1, 16)
    assert task.to_go() == "", "a first quick result may be mostly the start"
    task.update(2, 16)
    assert task.to_go() == "about 28 s to go"


def test_a_duration_is_rounded_before_it_is_split_into_units():
    assert [duration(s) for s in (0.2, 59.4, 59.7, 119.6, 3599.7, 7500)] == [
        "0 s", "59 s", "1 min 0 s", "2 min 0 s", "1 h 0 min", "2 h 5 min"
    ]  # fmt: skip


def test_a_bar_without_a_total_shows_no_count():
    screen = io.StringIO()
    with _bar(Console(file=screen, force_terminal=True, width=80, color_system=None), Task("Loading", None)):
        time.sleep(0.3)
    assert "Loading" in screen.getvalue()
    assert "/" not in screen.getvalue()
