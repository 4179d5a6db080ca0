"""The scheduler: nothing is lost and nothing is asked twice, also after an interruption."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from forked import Started
from generation import GOOD, REASON, Counting, Made, Recorder, ask, questions, run
from tinyllm.config import BudgetSection, ExamplesSection, PriceSection, RationalesSection
from tinyllm.errors import TeacherError
from tinyllm.questions import Question
from tinyllm.rationales.generate import Ended, Stop
from tinyllm.rationales.types import Rationale, TeacherYield
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.spending.charges import Spent
from tinyllm.teachers import make_teacher
from tinyllm.teachers._scripted import ScriptedTeacher
from tinyllm.teachers.base import UNMETERED, Reply, RequestFailed

ENDED = Ended(None, ())


def test_every_question_gets_a_rationale_of_every_teacher_in_order(tmp_path):
    asked = questions(20)
    ada, bob = Counting("ada", asked), Counting("bob", asked, "Because {answer} is right here.")
    progress = Recorder()
    made = run(tmp_path / "s", asked, [ada, bob], progress=progress)
    assert [(r.question_id, r.teacher) for r in made.rationales] == [(q.id, t) for q in asked for t in ("ada", "bob")]
    assert made.rationales[1].text == "Because one 0 is right here."
    assert made.rejections == ()
    assert made.yields["ada"].rationales == 20
    assert made.yields["ada"].completion_tokens == sum(
        len(r.text.split()) for r in made.rationales if r.teacher == "ada"
    )
    assert made.yields["ada"].prompt_tokens > 20 * 30
    assert [c for c in progress.calls if c[0] == "ada"] == [("ada", n, 20, n, 0) for n in range(1, 21)]


def test_a_teacher_whose_replies_are_stored_is_not_started(tmp_path):
    asked = questions(30)
    first = run(tmp_path / "s", asked[:20], [Counting("ada", asked)], RationalesSection(examples={"count": 0}))
    ada, progress = Counting("ada", asked), Recorder()
    second = run(tmp_path / "s", asked, [ada], RationalesSection(examples={"count": 0}), progress)
    assert sorted(ada.asked) == sorted(q.id for q in asked[20:])
    assert second.rationales[:20] == first.rationales
    assert progress.calls[-1] == ("ada", 30, 30, 30, 0)
    third = Counting("ada", asked)
    assert run(tmp_path / "s", asked, [third], RationalesSection(examples={"count": 0})) == second
    assert (third.asked, third.entered) == ([], 0)


def test_new_checks_reuse_replies_and_new_sampling_asks_again(tmp_path):
    asked = questions(6)
    cut = Counting("ada", asked, lambda q, r: Reply("It is so. And then it", "length"))
    made = run(tmp_path / "s", asked, [cut])
    assert {r.repaired for r in made.rationales} == {("cut_off",)}
    assert made.yields["ada"].repaired == {"cut_off": 6}
    strict = run(tmp_path / "s", asked, [cut], RationalesSection(repair=False, samples=1))
    assert [r.reason for r in strict.rejections] == ["cut_off"] * 6
    assert strict.rejections[0].text == "It is so. And then it"
    assert strict.yields["ada"] == TeacherYield(0, 0, {"cut_off": 6})
    assert len(cut.asked) == 6
    run(tmp_path / "s", asked, [cut], RationalesSection(temperature=0.1))
    assert len(cut.asked) == 12


def test_the_same_prompt_twice_is_asked_once(tmp_path):
    twins = [
        Question("a", "Why?", ("x", "y"), 0),
        Question("b", "Why?", ("x", "y"), 0),
        Question("c", "How?", ("x", "y"), 0),
    ]
    ada = Counting("ada", twins, delay=0.01)
    made = run(tmp_path / "s", twins, [ada], RationalesSection(examples=ExamplesSection(strategy="none")))
    assert len(ada.asked) == 2
    assert [r.question_id for r in made.rationales] == ["a", "b", "c"]
    assert made.yields["ada"].rationales == 3


def test_two_names_of_one_model_share_replies(tmp_path):
    asked = questions(30)
    ada, twin = Counting("ada", asked, delay=0.01), Counting("twin", asked, delay=0.01)
    made = run(tmp_path / "s", asked, [ada, twin])
    assert len(ada.asked) + len(twin.asked) == 30
    assert len(made.rationales) == 60


def test_given_rationales_are_not_stored_and_missing_ones_are_counted(tmp_path):
    from tinyllm import config

    asked = [
        Question("a", "Why?", ("x", "y"), 0, rationales={"ada": "There is a reason for it."}),
        Question("b", "How?", ("x", "y"), 0),
    ]
    teacher = make_teacher(config.GivenTeacher(name="ada", kind="given"), asked)
    made = run(tmp_path / "s", asked, [teacher])
    assert made.rationales == (Rationale("a", "ada", "There is a reason for it."),)
    assert made.yields["ada"] == TeacherYield(rationales=1, missing=1)
    with Store(tmp_path / "s") as store:
        assert len(store) == 0


def test_a_failed_request_is_rejected_and_asked_again_by_the_next_run(tmp_path):
    asked = questions(8)

    def script(question, request):
        if question.id == "q3":
            raise RequestFailed("HTTP 500: odd \ud800")
        return "It is right for a reason."

    made = run(tmp_path / "s", asked, [Counting("ada", asked, script)])
    assert [(r.question_id, r.reason, r.text) for r in made.rejections] == [("q3", "failed", "HTTP 500: odd \ufffd")]
    assert made.yields["ada"].rejected == {"failed": 1}
    again = Counting("ada", asked, lambda q, r: "It is right for a reason.")
    assert run(tmp_path / "s", asked, [again]).rejections == ()
    assert again.asked == ["q3"]


def test_no_questions_and_no_teachers(tmp_path):
    assert run(tmp_path / "s", questions(3), []) == Made((), (), {}, ENDED)
    ada = Counting("ada", [])
    assert run(tmp_path / "s", [], [ada]) == Made((), (), {"ada": TeacherYield()}, ENDED)
    assert ada.entered == 0


def test_requests_in_flight_are_limited(tmp_path):
    asked = questions(1200)
    ada = Counting("ada", asked, delay=0.001, concurrency=7)
    most_tasks = 0

    class Tasks(Recorder):
        def advance(self, standing):
            nonlocal most_tasks
            most_tasks = max(most_tasks, len(asyncio.all_tasks()))

    run(tmp_path / "s", asked, [ada], progress=Tasks())
    assert ada.most == 7
    assert most_tasks < 30  # not one for each question


def test_remote_teachers_run_side_by_side_and_local_ones_one_after_the_other(tmp_path):
    asked = questions(5)
    running: set[str] = set()
    seen: list[frozenset[str]] = []

    class Tracked(Counting):
        async def __aenter__(self):
            running.add(self.name)
            return await super().__aenter__()

        async def __aexit__(self, *about):
            running.discard(self.name)

        async def ask(self, request, meter=UNMETERED):
            seen.append(frozenset(running))
            return await super().ask(request, meter)

    teachers = [
        Tracked("r1", asked, GOOD + " 1", delay=0.1), Tracked("l1", asked, GOOD + " 2", delay=0.02, local=True),
        Tracked("r2", asked, GOOD + " 3", delay=0.1), Tracked("l2", asked, GOOD + " 4", delay=0.02, local=True),
    ]  # fmt: skip
    run(tmp_path / "s", asked, teachers)
    assert any({"r1", "r2"} <= s for s in seen)
    assert not any({"l1", "l2"} <= s for s in seen)
    assert running == set()


def test_a_reply_counts_only_once_it_is_on_the_disk(tmp_path):
    asked = questions(40)
    path = tmp_path / "s"

    class Durable(Recorder):
        def advance(self, standing):
            with Store(path) as other:  # another connection sees committed rows only
                assert len(other) >= standing.done

    run(path, asked, [Counting("ada", asked, concurrency=5)], progress=Durable())


def test_on_a_slow_disk_a_crash_loses_no_more_than_twice_what_may_be_in_flight(tmp_path):
    asked = questions(60)
    unstored: list[int] = []

    class SlowDisk(Store):
        def commit(self, work):
            time.sleep(0.1)
            return super().commit(work)

    class Watched(Counting):
        async def ask(self, request, meter=UNMETERED):
            reply = await super().ask(request, meter)
            unstored.append(len(self.asked) - len(store))
            return reply

    with SlowDisk(tmp_path / "s") as store:
        assert asyncio.run(ask(store, asked, [Watched("ada", asked, concurrency=5)])) == ENDED
        assert len(store) == 60
    assert 5 < max(unstored) <= 10


def test_a_teacher_that_gives_up_is_not_asked_again_and_others_go_on(tmp_path):
    asked = questions(300)

    async def breaks(question, request):
        await asyncio.sleep(0.02)
        if question.id == "q9":
            raise TeacherError("no key")
        return REASON

    ada, bob = Counting("ada", asked, breaks, concurrency=4), Counting("bob", asked, delay=0.001, concurrency=6)
    progress = Recorder()
    with pytest.raises(TeacherError, match="no key"):
        run(tmp_path / "s", asked, [ada, bob], progress=progress)
    assert [(name, str(error)) for name, error in progress.gone] == [("ada", "no key")]
    assert len(ada.asked) < 20
    assert len(bob.asked) == 300
    with Store(tmp_path / "s") as store:  # all that was asked but for the one that failed
        assert len(store) == len(ada.asked) - 1 + len(bob.asked)


def test_a_teacher_that_cannot_start_leaves_the_others_alone(tmp_path):
    class Broken(Counting):
        async def __aenter__(self):
            raise TeacherError("no model")

    asked = questions(50)
    # Another template: of two teachers that would be asked the same, only one is, and which one is a race.
    bob = Counting("bob", asked, f"{GOOD} So says bob.", local=True)
    with pytest.raises(TeacherError, match="no model"):
        run(tmp_path / "s", asked, [Broken("ada", asked), bob])
    assert len(bob.asked) == 50


# --- replies that are not good enough -------------------------------------------------------------------------------


def test_a_reply_that_fails_the_checks_is_sampled_again(tmp_path):
    asked = questions(10)

    def script(question, request):
        bad = {"q2": 1, "q5": 2, "q7": 99}.get(question.id, 0)
        return "" if request.sample < bad else REASON

    ada, progress = Counting("ada", asked, script), Recorder()
    made = run(tmp_path / "s", asked, [ada], RationalesSection(samples=3), progress)
    assert len(made.rationales) == 9
    assert [(r.question_id, r.reason) for r in made.rejections] == [("q7", "empty")]
    assert made.yields["ada"].resampled == {"empty": 5}
    assert sorted(ada.samples) == [0] * 10 + [1] * 3 + [2] * 2
    assert progress.standings["ada"].resampled == 5
    with Store(tmp_path / "s") as store:
        assert len(store) == 15  # the failing ones, too
    again = Counting("ada", asked, script)
    assert run(tmp_path / "s", asked, [again], RationalesSection(samples=3)) == made
    assert again.asked == []
    assert len(run(tmp_path / "s", asked, [again], RationalesSection(samples=4)).rejections) == 1
    assert again.asked == ["q7"]  # one more sample is allowed, and only that is asked


def test_a_greedy_teacher_is_not_asked_twice(tmp_path):
    asked = questions(4)
    ada = Counting("ada", asked, lambda q, r: "")
    made = run(tmp_path / "s", asked, [ada], RationalesSection(temperature=0))
    assert [r.reason for r in made.rejections] == ["empty"] * 4
    assert len(ada.asked) == 4


def test_if_the_second_sample_fails_the_first_rejection_is_reported(tmp_path):
    asked = questions(1)

    def script(question, request):
        if request.sample:
            raise RequestFailed("HTTP 500: odd")
        return ""

    made = run(tmp_path / "s", asked, [Counting("ada", asked, script)])
    assert [(r.reason, r.text) for r in made.rejections] == [("empty", "")]


@pytest.mark.parametrize("reason", ["too_long", "content_filter"])
def test_a_refused_prompt_has_its_own_reason(tmp_path, reason):
    asked = questions(2)

    def script(question, request):
        raise RequestFailed("HTTP 400: no", reason)

    made = run(tmp_path / "s", asked, [Counting("ada", asked, script)])
    assert made.yields["ada"].rejected == {reason: 2}
    assert made.yields["ada"].unanswered == {reason: 2}


# --- stopping -------------------------------------------------------------------------------------------------------


def test_stopping_finishes_requests_in_flight_and_sends_nothing_new(tmp_path):
    asked = questions(400)
    stop = Stop()

    async def script(question, request):
        if len(ada.asked) >= 20:
            stop.wish("interrupted")
        await asyncio.sleep(0.01)
        return REASON

    ada = Counting("ada", asked, script, concurrency=8)
    with Store(tmp_path / "s") as store:
        ended = asyncio.run(ask(store, asked, [ada], stop=stop))
        assert ended == Ended("interrupted", ())
        assert 20 <= len(ada.asked) <= 28
        assert len(store) == len(ada.asked)


def test_stopping_does_not_wait_for_a_resumable_teacher(tmp_path):
    asked = questions(20)
    stop = Stop()

    class Batch(Counting):
        resumable = True

        def note(self):
            return "1 batch at the provider"

    async def script(question, request):
        stop.wish("interrupted")
        await asyncio.sleep(3600)

    with Store(tmp_path / "s") as store:
        ended = asyncio.run(asyncio.wait_for(ask(store, asked, [Batch("ada", asked, script)], stop=stop), 30))
    assert ended.stopped == "interrupted"


# --- the budget -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [1, 200])
def test_a_budget_of_tokens_is_never_exceeded(tmp_path, in_flight):
    asked = questions(2000)

    async def script(question, request):
        await asyncio.sleep(0.002)
        return Reply(REASON, "stop", prompt_tokens=len(request.prompt.text) // 4, completion_tokens=50)

    ada = Counting("ada", asked, script, concurrency=in_flight)
    section = RationalesSection(budget=BudgetSection(tokens=20_000), max_tokens=64)
    made = run(tmp_path / "s", asked, [ada], section)
    spent = made.yields["ada"].prompt_tokens + made.yields["ada"].completion_tokens
    assert 0.9 * 20_000 < spent <= 20_000
    assert made.ended.stopped == "budget"
    assert made.yields["ada"].rejected == {"unasked": 2000 - len(ada.asked)}
    assert made.yields["ada"].unanswered == made.yields["ada"].rejected


def test_a_budget_of_dollars_counts_what_the_run_spent_before(tmp_path):
    asked = questions(200)
    section = RationalesSection(budget=BudgetSection(usd=1.0), max_tokens=100)
    prices = {"ada": PriceSection(prompt=0, completion=100.0)}

    def script(question, request):
        return Reply(REASON, "stop", prompt_tokens=50, completion_tokens=100)  # one cent

    with Store(tmp_path / "s") as store:
        for expected in (100, 0):
            ada = Counting("ada", asked, script, concurrency=50)
            budget = Budget(section.budget, prices, store.spent("mine"), run="mine")
            ended = asyncio.run(ask(store, asked, [ada], section, budget=budget))
            assert ended.stopped == "budget"
            assert len(ada.asked) == expected
            assert store.spent("mine")["ada"].completion_tokens == 10_000
        assert store.spent("another") == {}


def test_a_free_teacher_goes_on_when_the_dollars_are_spent(tmp_path):
    asked = questions(30)
    section = RationalesSection(budget=BudgetSection(usd=0.0))
    budget = Budget(section.budget, {"ada": None})
    ada = Counting("ada", asked)
    assert run(tmp_path / "s", asked, [ada], section, budget=budget).ended.stopped is None


def test_hours_count_from_the_first_run_on():
    now = [1000.0]
    budget = Budget(BudgetSection(hours=2), {}, {"ada": Spent(seconds=3600)}, clock=lambda: now[0])
    assert budget.hours == pytest.approx(1)
    now[0] += 3599
    assert budget.left() == "2.00 of 2 h"


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path / "s", questions(3), [Counting("ada", questions(3), lambda q, r: 1 // 0)])
    assert "test_generate.py" in str(caught.traceback[-1].path)


def test_a_full_disk_is_one_error_and_keeps_stored_replies(tmp_path):
    asked = questions(200)
    with Store(tmp_path / "s") as store:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages + 30}")
        ada = Counting("ada", asked, lambda q, r: " ".join(f"Thing {n} is so." for n in range(200)), concurrency=3)
        with pytest.raises(OSError, match="No space left"):
            asyncio.run(ask(store, asked, [ada]))
        kept = len(store)
    assert 0 < kept < 200
    again = Counting("ada", asked, lambda q, r: "It is short, for a reason.")
    run(tmp_path / "s", asked, [again])
    assert len(again.asked) == 200 - kept


def test_cancellation_keeps_every_reply_that_came(tmp_path):
    asked = questions(500)
    came: list[str] = []

    async def script(question, request):
        await asyncio.sleep(0.002)
        came.append(question.id)
        return "It is right for a reason."

    async def interrupted(store):
        task = asyncio.create_task(ask(store, asked, [ada]))
        while len(came) < 60:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(store) == len(came)  # at once, not when the loop's threads have come to their ends
        return task.cancelled()

    class SlowDisk(Store):
        def commit(self, work):
            time.sleep(0.05)
            return super().commit(work)

    ada = Counting("ada", asked, script, concurrency=8)
    with SlowDisk(tmp_path / "s") as store:
        assert asyncio.run(interrupted(store))
    again = Counting("ada", asked, script)
    assert len(run(tmp_path / "s", asked, [again]).rationales) == 500
    assert len(came) == len(set(came)) == 500


# --- real processes -----------------------------------------------------------------------------------------------


def main(path: str, log: str, count: str) -> None:
    """Generate slowly, writing down each question asked; run in a process of its own."""
    asked = questions(int(count))

    async def script(question, request):
        with Path(log).open("a") as lines:
            lines.write(question.id + "\n")
        await asyncio.sleep(0.01)
        return "It is right for a reason."

    made = run(Path(path), asked, [ScriptedTeacher("ada", asked, script, concurrency=4)])
    print(len(made.rationales), len({r.question_id for r in made.rationales}))


def start(tmp_path: Path, count: int) -> Started:
    return Started(main, str(tmp_path / "s"), str(tmp_path / "log"), str(count))


def asks(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    return log.read_text().split() if log.exists() else []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_asks_only_for_what_is_missing(tmp_path, how):
    count, kills = 300, 0
    for until in (40, 110, 200):
        process = start(tmp_path, count)
        deadline = time.monotonic() + 60
        while len(asks(tmp_path)) < until and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(how)
        process.communicate(timeout=60)
        kills += 1
    process = start(tmp_path, count)
    out, _ = process.communicate(timeout=100)
    assert out.split() == [str(count), str(count)]
    asked = asks(tmp_path)
    assert set(asked) == {f"q{n}" for n in range(count)}
    # What was in flight when it was killed, or on its way to the disk, is asked again, and nothing else.
    again = len(asked) - count
    assert again <= kills * (4 if how == signal.SIGINT else 16)
    with Store(tmp_path / "s") as store:
        assert len(store) == count


def test_two_processes_share_a_store(tmp_path):
    both = [start(tmp_path, 120) for _ in range(2)]
    outs = [process.communicate(timeout=100)[0].split() for process in both]
    assert outs == [["120", "120"]] * 2
    with Store(tmp_path / "s") as store:
        assert len(store) == 120
    assert len(asks(tmp_path)) == 120  # each asked once, by one of them


def test_claims_of_a_killed_process_are_taken_over(tmp_path):
    killed = start(tmp_path, 200)
    while len(asks(tmp_path)) < 20:
        time.sleep(0.005)
    other = start(tmp_path, 200)
    time.sleep(0.3)
    killed.kill()
    killed.communicate(timeout=60)
    assert other.communicate(timeout=100)[0].split() == ["200", "200"]
    assert len(asks(tmp_path)) <= 200 + 16
