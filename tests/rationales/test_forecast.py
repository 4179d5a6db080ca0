"""The forecast agrees with the run that follows."""

import sqlite3
from contextlib import closing

import pytest

from generation import REASON, Counting, questions, requests_of, run
from tinyllm.config import ExamplesSection, PriceSection, RationalesSection
from tinyllm.rationales.forecast import forecast
from tinyllm.replies._store import Store
from tinyllm.stages.asking import forecast_lines
from tinyllm.teachers.base import Reply

SECTION = RationalesSection(examples=ExamplesSection(strategy="none"), max_tokens=100)
PRICE = PriceSection(prompt=1.0, completion=2.0)


def script(question, request):
    return Reply(REASON, "stop", len(request.prompt.text) // 5, 20, latency_s=0.5)


def test_a_forecast_without_data_uses_a_rule_of_thumb():
    asked = questions(50)
    found = forecast(requests_of([Counting("ada", asked)], asked, SECTION)[0], None, price=PRICE)
    assert (found.stored, found.requests, found.completion_tokens, found.hours) == (0, 50, 5000, None)
    assert "rule of thumb" in found.basis
    assert "longest" in found.basis
    assert found.usd == pytest.approx((found.prompt_tokens + 2 * 5000) / 1e6)


def test_stored_replies_are_not_counted_and_improve_the_forecast(tmp_path):
    asked = questions(300)
    ada = Counting("ada", asked, script, concurrency=10)
    run(tmp_path / "s", asked[:100], [ada], SECTION)
    with Store(tmp_path / "s") as store:
        requests = requests_of([ada], asked, SECTION)[0]
        found = forecast(requests, store, price=PRICE)
        minutes = forecast(requests, store, requests_per_minute=1)
        tokens = forecast(requests, store, tokens_per_minute=100)
    made = run(tmp_path / "s", asked, [ada], SECTION).yields["ada"]
    assert (found.stored, found.requests) == (100, 200)
    assert found.basis == "its last 100 replies"
    assert found.prompt_tokens == pytest.approx(made.prompt_tokens * 2 / 3, rel=0.1)
    assert found.completion_tokens == 200 * 20
    assert found.hours == pytest.approx(200 * 0.5 / 10 / 3600)
    assert minutes.hours == pytest.approx(200 / 60)
    assert tokens.hours == pytest.approx((found.prompt_tokens + found.completion_tokens) / 100 / 60)


def test_short_replies_of_the_same_model_say_nothing_of_long_ones(tmp_path):
    asked = questions(60)
    votes = SECTION.model_copy(update={"max_tokens": 16})
    run(tmp_path / "s", asked[:30], [Counting("ada", asked, script)], votes)
    with Store(tmp_path / "s") as store:
        found = forecast(requests_of([Counting("ada", asked, script)], asked, SECTION)[0], store)
        again = forecast(requests_of([Counting("ada", asked, script)], asked, votes)[0], store)
    assert (found.completion_tokens, found.hours) == (60 * 100, None)
    assert again.completion_tokens == 30 * 16


def test_the_pace_of_the_last_replies_limits_the_speed(tmp_path):
    """A service that makes clients wait answers each request as fast as any other."""
    asked = questions(100)
    ada = Counting("ada", asked, script, concurrency=10)
    run(tmp_path / "s", asked[:40], [ada], SECTION)
    with closing(
        sqlite3.connect(tmp_path / "s", isolation_level=None)
    ) as db:  # one in two seconds, and a break of a day between two commands
        db.execute("UPDATE replies SET created = 2 * id + 86400 * (id > 20)")
    with Store(tmp_path / "s") as store:
        found = forecast(requests_of([ada], asked, SECTION)[0], store)
    assert found.hours == pytest.approx(60 * 2 / 3600)


def test_a_tokenizer_counts_what_it_is_given(tmp_path):
    asked = questions(1000)
    requests = requests_of([Counting("ada", asked)], asked, SECTION)[0]
    found = forecast(requests, None, count=lambda texts: [7] * len(texts))
    assert found.prompt_tokens == 7000
    assert found.basis.startswith("the teacher's tokenizer")


def test_replies_that_fail_the_checks_are_forecast_too(tmp_path):
    asked = questions(200)

    def often_empty(question, request):
        return Reply("" if int(question.id[1:]) % 2 and not request.sample else REASON, "stop", 30, 10)

    ada = Counting("ada", asked, often_empty)
    run(tmp_path / "few", asked[:8], [ada], SECTION)
    run(tmp_path / "many", asked[:100], [ada], SECTION)
    with Store(tmp_path / "few") as few, Store(tmp_path / "many") as many:
        found = [forecast(requests_of([ada], asked, SECTION)[0], store).requests for store in (few, many)]
    assert found == [256, 148]  # a half is asked again; so say 8 questions and 4 of the prior, and 100 and 4


def test_questions_whose_replies_all_failed_so_far_are_forecast_with_all_their_samples(tmp_path):
    asked = questions(200)
    ada = Counting("ada", asked, lambda question, request: Reply("", "stop", 30, 10))
    run(tmp_path / "s", asked[:8], [ada], SECTION.model_copy(update={"samples": 1}))  # interrupted after one each
    with Store(tmp_path / "s") as store:
        found = forecast(requests_of([ada], asked, SECTION)[0], store)
    assert (found.stored, found.requests) == (0, 200 * SECTION.samples - 8)


def test_what_a_teacher_may_cost_at_most_has_room_for_thoughts_until_it_was_asked(tmp_path):
    asked = questions(20)
    ada = Counting("ada", asked)
    requests = requests_of([ada], asked, SECTION)[0]
    found = forecast(requests, None, price=PRICE)
    assert found.may_think
    assert "in case they think: ada. --pilot 8" in "\n".join(forecast_lines([found]))
    requests.saw(requests.verdict(asked[0], Reply(REASON, "stop")))
    known = forecast(requests, None, price=PRICE)
    assert (known.may_think, known.usd_most < found.usd_most / 10) == (False, True)
    assert "think" not in "\n".join(forecast_lines([known]))


def test_if_everything_is_stored_the_forecast_is_zero(tmp_path):
    asked = questions(30)
    ada = Counting("ada", asked)
    run(tmp_path / "s", asked, [ada], SECTION)
    with Store(tmp_path / "s") as store:
        found = forecast(requests_of([ada], asked, SECTION)[0], store, price=PRICE)
    assert (found.stored, found.requests, found.prompt_tokens, found.usd, found.hours) == (30, 0, 0, 0.0, 0.0)


def test_the_replies_of_another_model_under_the_same_name_say_nothing(tmp_path):
    asked = questions(30)
    run(tmp_path / "s", asked, [Counting("ada", asked, "Because it is {answer}.")], SECTION)
    other = requests_of([Counting("ada", asked, "In all likelihood it is {answer}.")], asked, SECTION)[0]
    with Store(tmp_path / "s") as store:
        found = forecast(other, store)
    assert (found.requests, found.hours) == (30, None)
    assert found.basis == "a rule of thumb; replies of the longest length"
