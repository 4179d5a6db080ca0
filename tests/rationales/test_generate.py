"""The generation loop: nothing lost, nothing asked twice, whatever happens in the middle."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyllm.config import ExamplesSection, RationalesSection
from tinyllm.errors import TeacherError
from tinyllm.questions import Question
from tinyllm.rationales.generate import Generated, generate
from tinyllm.rationales.store import Store
from tinyllm.rationales.types import Rationale, TeacherYield
from tinyllm.teachers import make_teacher
from tinyllm.teachers.base import Reply, RequestFailed
from tinyllm.teachers.scripted import ScriptedTeacher

SECTION = RationalesSection()
GOOD = "It is {answer}, because nothing else fits the question."


def questions(count: int) -> list[Question]:
    return [Question(f"q{n}", f"What is number {n}?", (f"one {n}", f"two {n}"), n % 2) for n in range(count)]


class Recorder:
    """Remembers what progress was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, int, int]] = []

    def advance(self, teacher, done, total, kept, rejected):
        self.calls.append((teacher, done, total, kept, rejected))


class Counting(ScriptedTeacher):
    """A scripted teacher that counts: asks, entries, and how many are in flight."""

    def __init__(self, name, asked, script=GOOD, *, delay=0.0, **other) -> None:
        self.asked: list[str] = []
        self.entered = 0
        self.most = 0
        self.now = 0
        self._delay = delay
        super().__init__(name, asked, script, **other)

    async def __aenter__(self):
        self.entered += 1
        return await super().__aenter__()

    async def ask(self, request):
        self.asked.append(request.question_id)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._delay)
            return await super().ask(request)
        finally:
            self.now -= 1


def run(path: Path, asked, teachers, section=SECTION, progress=None) -> Generated:
    with Store(path) as store:
        return asyncio.run(generate(asked, asked, teachers, section, store, progress or Recorder()))


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


def test_what_is_stored_is_not_asked_again_and_its_teacher_is_not_even_started(tmp_path):
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


def test_other_checks_cost_nothing_and_other_sampling_is_asked_anew(tmp_path):
    asked = questions(6)
    cut = Counting("ada", asked, lambda q, r: Reply("It is so. And then it", "length"))
    mended = run(tmp_path / "s", asked, [cut])
    assert {r.repaired for r in mended.rationales} == {("cut_off",)}
    assert mended.yields["ada"].repaired == {"cut_off": 6}
    strict = run(tmp_path / "s", asked, [cut], RationalesSection(repair=False))
    assert [r.reason for r in strict.rejections] == ["cut_off"] * 6
    assert strict.rejections[0].text == "It is so. And then it"
    assert strict.yields["ada"] == TeacherYield(0, 0, {"cut_off": 6}, {}, 0, 0)
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


def test_a_failed_request_is_rejected_with_its_words_and_asked_again_next_time(tmp_path):
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
    assert run(tmp_path / "s", questions(3), []) == Generated((), (), {})
    ada = Counting("ada", [])
    assert run(tmp_path / "s", [], [ada]) == Generated((), (), {"ada": TeacherYield()})
    assert ada.entered == 0


def test_what_is_in_flight_is_bounded(tmp_path):
    asked = questions(1200)
    ada = Counting("ada", asked, delay=0.001, concurrency=7)
    most_tasks = 0

    class Tasks(Recorder):
        def advance(self, *told):
            nonlocal most_tasks
            most_tasks = max(most_tasks, len(asyncio.all_tasks()))

    run(tmp_path / "s", asked, [ada], progress=Tasks())
    assert ada.most == 7
    assert most_tasks < 400  # not one for each question


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

        async def ask(self, request):
            seen.append(frozenset(running))
            return await super().ask(request)

    teachers = [
        Tracked("r1", asked, delay=0.1), Tracked("l1", asked, delay=0.02, local=True),
        Tracked("r2", asked, delay=0.1), Tracked("l2", asked, delay=0.02, local=True),
    ]  # fmt: skip
    run(tmp_path / "s", asked, teachers)
    assert any({"r1", "r2"} <= s for s in seen)
    assert not any({"l1", "l2"} <= s for s in seen)
    assert running == set()


def test_a_reply_counts_only_once_it_is_on_the_disk(tmp_path):
    asked = questions(40)
    path = tmp_path / "s"

    class Durable(Recorder):
        def advance(self, teacher, done, total, kept, rejected):
            with Store(path) as other:  # another connection sees committed rows only
                assert len(other) >= done

    run(path, asked, [Counting("ada", asked, concurrency=5)], progress=Durable())


def test_a_teacher_that_can_answer_nothing_more_stops_everyone_after_what_is_in_flight(tmp_path):
    asked = questions(2000)

    async def breaks(question, request):
        await asyncio.sleep(0.02)
        if question.id == "q9":
            raise TeacherError("no key")
        return "It is right for a reason."

    async def slow(question, request):
        await asyncio.sleep(0.1)
        return "It is right for a reason."

    ada, bob = Counting("ada", asked, breaks, concurrency=4), Counting("bob", asked, slow, concurrency=6)
    with pytest.raises(TeacherError, match="no key"):
        run(tmp_path / "s", asked, [ada, bob])
    assert len(ada.asked) < 20
    assert len(bob.asked) == 6
    with Store(tmp_path / "s") as store:  # all that was asked but for the one that failed
        assert len(store) == len(ada.asked) - 1 + len(bob.asked)


def test_a_teacher_that_cannot_start_stops_everyone(tmp_path):
    class Broken(Counting):
        async def __aenter__(self):
            raise TeacherError("no model")

    asked = questions(50)
    with pytest.raises(TeacherError, match="no model"):
        run(tmp_path / "s", asked, [Broken("ada", asked), Counting("bob", asked, local=True)])


def test_a_bug_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path / "s", questions(3), [Counting("ada", questions(3), lambda q, r: 1 // 0)])
    assert "test_generate.py" in str(caught.traceback[-1].path)


def test_a_full_disk_comes_through_as_one_error_and_keeps_what_was_stored(tmp_path):
    asked = questions(200)
    with Store(tmp_path / "s") as store:
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages + 30}")
        ada = Counting("ada", asked, lambda q, r: "It is long. " * 200, concurrency=3)
        with pytest.raises(OSError, match="No space left"):
            asyncio.run(generate(asked, asked, [ada], SECTION, store, Recorder()))
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
        task = asyncio.create_task(generate(asked, asked, [ada], SECTION, store, Recorder()))
        while len(came) < 60:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(store) == len(came)  # at once, not when the loop's threads have come to their ends
        return task.cancelled()

    class SlowDisk(Store):
        def put_many(self, entries):
            time.sleep(0.05)
            return super().put_many(entries)

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
    print(len(made.rationales), len({r.question_id for r in made.rationales}))  # noqa: T201


def start(tmp_path: Path, count: int) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    code = f"import test_generate; test_generate.main({str(tmp_path / 's')!r}, {str(tmp_path / 'log')!r}, '{count}')"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
