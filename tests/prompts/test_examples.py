"""The example generator never shows a question to itself, never changes its mind, and costs little."""

import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.config import ExamplesSection
from tinyllm.errors import ConfigError
from tinyllm.prompts import ExampleGenerator
from tinyllm.questions import Question

PICKING = ("random", "similar", "diverse", "fixed")


def question(n: int, worked: bool = False, **other) -> Question:
    fields = {"question": f"What is {n}?", "choices": (f"one {n}", f"two {n}"), "answer": n % 2, **other}
    return Question(id=f"q{n}", rationales={"worked": f"Because of {n}."} if worked else {}, **fields)


def about(name: str, text: str, **other) -> Question:
    return Question(name, text, ("yes", "no"), 0, **other)


def ids(questions: Sequence[Question]) -> list[str]:
    return [q.id for q in questions]


def pick(asked: Question, pool: Sequence[Question], **section) -> list[str]:
    return ids(ExampleGenerator(pool, ExamplesSection(**section)).pick(asked))


POOL = [question(n) for n in range(30)]


# --- for every strategy -------------------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(0, 14), st.integers(0, 5), st.sampled_from(PICKING), st.data())
def test_examples_come_from_the_pool_and_are_none_of_those_who_share_them(size, count, seed, strategy, data):
    texts = data.draw(st.lists(st.sampled_from(["a b", "b c", "c d", "d a"]), min_size=size, max_size=size))
    pool = [about(f"q{n}", text) for n, text in enumerate(texts)]
    block = data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))
    generator = ExampleGenerator(pool, ExamplesSection(strategy=strategy, count=count, seed=seed))
    picked = generator.pick(block[0], block)
    others = [q for q in pool if q.question not in {asked.question for asked in block}]
    different = {q.question for q in others} if strategy in ("similar", "diverse") else others
    assert len(picked) == min(count, len(different))
    assert len(set(ids(picked))) == len(picked)
    assert all(q in others for q in picked)
    assert all(generator.pick(asked, block) == picked for asked in block)


@pytest.mark.parametrize("strategy", PICKING)
def test_a_question_with_the_same_id_or_the_same_text_and_choices_is_left_out(strategy):
    asked = question(1)
    same_id = Question("q1", "Another text?", ("a", "b"), 0)
    same_content = Question("other", " what is  1? ", ("two 1", "One 1"), 0)
    pool = [same_id, same_content, question(2)]
    assert pick(asked, pool, strategy=strategy, count=4) == ["q2"]


@pytest.mark.parametrize("strategy", PICKING)
@pytest.mark.parametrize(("carriers", "expected"), [(3, "worked"), (2, None)])
def test_worked_examples_are_used_when_there_are_more_of_them_than_needed(strategy, carriers, expected):
    pool = [question(n, worked=n > 9 - carriers) for n in range(10)]
    generator = ExampleGenerator(pool, ExamplesSection(strategy=strategy, count=2))
    assert generator.worked == expected
    picked = generator.pick(pool[8])
    assert len(picked) == 2
    if expected:
        assert set(ids(picked)) == {"q7", "q9"}


def test_null_worked_no_examples_and_the_strategy_none():
    pool = [question(n, worked=True) for n in range(10)]
    assert ExampleGenerator(pool, ExamplesSection(worked=None)).worked is None
    assert pick(pool[0], pool, strategy="none") == []
    for strategy in PICKING:
        assert pick(pool[0], pool, strategy=strategy, count=0) == []


@pytest.mark.parametrize("strategy", PICKING)
def test_a_block_that_leaves_too_few_to_show_is_made_smaller_or_does_not_share(strategy):
    section = ExamplesSection(strategy=strategy, count=3, scope="block")
    assert ExampleGenerator([], section).picks(POOL, 0, 2) == [(), ()]
    halves = ExampleGenerator(POOL[:8], section).picks(POOL[:8], 0, 8)
    assert [len(p) for p in halves] == [3] * 8
    assert [set(ids(halves[0])) - {"q4", "q5", "q6", "q7"}, set(ids(halves[7])) - {"q0", "q1", "q2", "q3"}] == [
        set()
    ] * 2
    assert len({tuple(ids(p)) for p in halves}) == 2, "each half shares"
    worked = [question(n, worked=n < 4) for n in range(64)]  # those that can be shown are all in the first block
    first, *_, last = ExampleGenerator(worked, section).picks(worked, 0, 64)
    assert (set(ids(first)), len(last)) == ({"q1", "q2", "q3"}, 3)


@pytest.mark.parametrize("strategy", PICKING)
def test_data_that_ask_the_same_of_every_context_have_examples_too(strategy):
    pool = [Question(f"q{n}", "Is it good?", ("yes", "no"), n % 2, context=f"Tale number {n // 2}.") for n in range(40)]
    picked = ExampleGenerator(pool, ExamplesSection(strategy=strategy, count=3)).pick(pool[6])
    assert len(picked) == 3
    assert pool[6].context not in {q.context for q in picked}
    others = [about("x", "One?"), about("y", "Two?"), about("z", "Three?")]
    assert set(pick(pool[6], [*pool, *others], strategy=strategy, count=3)) == {"x", "y", "z"}


def test_very_many_that_ask_the_same_are_not_read_for_each_question():
    pool = Lazy(100_000, text="Is it good?")
    generator = ExampleGenerator(pool, ExamplesSection(worked=None))
    made = pool.reads
    assert all(len(picked) == 2 for picked in generator.picks(pool, 0, 10))
    assert pool.reads - made < 10_000


# --- scope --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PICKING), st.sampled_from(["question", "block"]), st.integers(2, 7), st.data())
def test_it_does_not_matter_where_a_chunk_begins_and_ends(strategy, scope, size, data):
    questions = POOL[: data.draw(st.integers(1, 20))]
    start = data.draw(st.integers(0, len(questions)))
    stop = data.draw(st.integers(start, len(questions) + 3))
    generator = ExampleGenerator(POOL, ExamplesSection(strategy=strategy, scope=scope, block=size))
    whole = generator.picks(questions, 0, len(questions))
    assert len(whole) == len(questions)
    assert generator.picks(questions, start, stop) == whole[start:stop]
    for first in range(0, len(questions), size):
        if scope == "block":
            assert all(picked == whole[first] for picked in whole[first : first + size])
    if scope == "question":
        assert whole == [generator.pick(q) for q in questions]


def test_a_block_is_picked_once_and_depends_on_its_first_question():
    section = ExamplesSection(scope="block", block=4)
    pool = Lazy(1000)
    generator = ExampleGenerator(pool, ExamplesSection(scope="block", block=4, worked=None))
    made = pool.reads
    generator.picks(POOL, 0, 28)
    assert pool.reads - made < 7 * 4  # seven blocks, two examples each, and what is left out
    far = [question(n) for n in range(500, 600)]
    generator = ExampleGenerator(far, section)
    assert generator.pick(POOL[0], POOL[:4]) == generator.pick(POOL[0], [POOL[0], *POOL[7:15]])
    assert generator.pick(POOL[0], POOL[:4]) != generator.pick(POOL[1], POOL[1:4])


# --- random -------------------------------------------------------------------------------------------------------


def test_every_allowed_question_is_picked_as_often_in_every_place():
    pool = [
        *POOL[:4],
        about(
            "twin",
            "What is 3?",
        ),
        POOL[3],
    ]
    asked = Question("q3", "Something else?", ("a", "b"), 0)  # the same id as one, and nothing else
    seen = Counter(tuple(pick(asked, pool[:5], count=2, seed=s)) for s in range(2400))
    allowed = ["q0", "q1", "q2", "twin"]
    assert set(seen) == {(a, b) for a in allowed for b in allowed if a != b}
    assert all(140 < times < 260 for times in seen.values())  # 200 ± 4 standard deviations, and always the same


def test_a_pick_stays_what_it_is():
    assert pick(POOL[7], POOL, count=4, seed=3) == ["q12", "q21", "q10", "q0"]
    assert pick(POOL[7], POOL, strategy="fixed", count=4, seed=3) == ["q0", "q1", "q14", "q3"]


def test_a_pick_by_place_stays_what_it_was_when_older_stores_were_filled():
    for strategy, expected in (("random", ["q20", "q28", "q14", "q10"]), ("fixed", ["q19", "q1", "q0", "q15"])):
        section = ExamplesSection(strategy=strategy, count=4, seed=3)
        assert ids(ExampleGenerator(POOL, section, by_place=True).pick(POOL[7])) == expected


def test_candidates_are_drawn_about_equally_often():
    pool = [question(n) for n in range(200)]
    generator = ExampleGenerator(pool, ExamplesSection(count=2))
    seen = Counter(name for n in range(8000) for name in ids(generator.pick(question(1000 + n))))
    assert len(seen) == 200
    far = [times for times in seen.values() if not 40 < times < 120]  # 80 on average
    assert len(far) <= 20  # with one point a draw it would be more than half


# --- a pool that changes ------------------------------------------------------------------------------------------


def numbered(count: int, numbers: Sequence[int]) -> list[Question]:
    """A pool as a file without ids gives it: the ids are the places."""
    return [about(f"train-{place}", f"What about {n}, and {n * n}?") for place, n in enumerate(numbers[:count])]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["random", "fixed"]), st.integers(0, 8), st.integers(0, 3), st.permutations(range(26)),
    st.integers(1, 25), st.data(),
)  # fmt: skip
def test_when_one_question_comes_every_pick_stays_or_shows_it(strategy, count, seed, numbers, size, data):
    new, *rest = numbers
    place = data.draw(st.integers(0, size))
    before = rest[:size]
    after = [*before[:place], new, *before[place:]]
    section = ExamplesSection(strategy=strategy, count=count, seed=seed)
    old, grown = (ExampleGenerator(numbered(99, pool), section) for pool in (before, after))
    text = about("", f"What about {new}, and {new * new}?").question
    for asked in numbered(99, before):
        was, now = ([q.question for q in generator.pick(replace(asked, id="asked"))] for generator in (old, grown))
        assert was == now or text in now
        if was == now:
            assert text not in now


@pytest.mark.parametrize("place", [0, 137, 300])
@pytest.mark.parametrize("worked", [False, True])
def test_when_one_question_comes_anywhere_only_the_picks_of_a_few_change(place, worked):
    section = ExamplesSection(count=2)
    before = [question(n, worked=worked) for n in range(300)]
    old = ExampleGenerator(before, section)
    picks = {q.id: ids(old.pick(q)) for q in before}
    changes = 0
    for n in range(900, 910):
        grown = ExampleGenerator([*before[:place], question(n, worked=worked), *before[place:]], section)
        changed = {q.id: now for q in before if (now := ids(grown.pick(q))) != picks[q.id]}
        changes += len(changed)
        assert all(set(now) - set(picks[name]) == {f"q{n}"} for name, now in changed.items()), "it takes one's place"
    assert 5 <= changes <= 50  # 20 expected


@pytest.mark.parametrize("strategy", ["similar", "diverse"])
def test_the_nearest_stay_the_nearest_when_one_question_comes(strategy):
    texts = [" ".join(f"w{(n * k * k + k) % 97}" for k in range(1, 9)) for n in range(200)]
    before = [about(f"q{n}", text) for n, text in enumerate(texts)]
    after = [*before[:50], about("new", "w1 w2 w3 w4"), *before[50:]]
    old, grown = (ExampleGenerator(pool, ExamplesSection(strategy=strategy, count=2)) for pool in (before, after))
    changed = [q for q in before if "new" not in ids(grown.pick(q)) and old.pick(q) != grown.pick(q)]
    assert len(changed) <= 20  # a word that is a little more common weighs a little less


@pytest.mark.parametrize("strategy", ["random", "similar"])
def test_blocks_keep_their_examples_when_a_question_comes_at_the_end(strategy):
    section = ExamplesSection(strategy=strategy, scope="block", block=8, count=2)
    before, after = [question(n) for n in range(100)], [question(n) for n in range(101)]
    old, grown = (ExampleGenerator(pool, section).picks(pool, 0, 100) for pool in (before, after))
    assert sum(was != now for was, now in zip(old, grown, strict=True)) <= 12


def test_ids_and_the_order_of_the_file_do_not_matter():
    section = ExamplesSection(count=3)
    pool = [about(f"q{n}", f"What about {n}?") for n in range(50)]
    other = [about(f"train-{place}", q.question) for place, q in enumerate(pool[::-1])]
    one, two = ExampleGenerator(pool, section), ExampleGenerator(other, section)
    for q, same in zip(pool, other[::-1], strict=True):
        assert [e.question for e in one.pick(q)] == [e.question for e in two.pick(same)]


def test_the_pick_is_the_same_in_another_process_and_differs_by_question_and_seed():
    picks = [[pick(asked, POOL, strategy=s, count=3, seed=5) for asked in POOL[:4]] for s in PICKING]
    code = (
        "from test_examples import PICKING, POOL, pick\n"
        "print([[pick(a, POOL, strategy=s, count=3, seed=5) for a in POOL[:4]] for s in PICKING])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(picks)
    assert len({tuple(p) for p in picks[0]}) > 1
    assert picks[0][0] != pick(POOL[0], POOL, count=3, seed=6)


# --- memory -------------------------------------------------------------------------------------------------------


class Lazy(Sequence[Question]):
    """A pool that is on a disk, as it were: it makes each question when it is asked for, and counts."""

    def __init__(self, size: int, worked: bool = False, text: str | None = None) -> None:
        self.reads = 0
        self._size = size
        self._worked = worked
        self._text = text

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Question:
        if not 0 <= index < self._size:
            raise IndexError(index)
        self.reads += 1
        if self._text is None:
            return question(index, worked=self._worked)
        return about(f"q{index}", self._text, context=f"Tale number {index}.")

    def __iter__(self) -> Iterator[Question]:
        return (self[n] for n in range(self._size))


def test_a_large_pool_is_gone_through_once_and_then_read_only_where_an_example_is_taken():
    size = 200_000
    pool = Lazy(size)
    tracemalloc.start()
    generator = ExampleGenerator(pool, ExamplesSection(worked=None))
    assert pool.reads == size
    kept = tracemalloc.get_traced_memory()[0]
    for start in range(0, 1000, 250):
        assert all(len(picked) == 2 for picked in generator.picks(pool, start, start + 250))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pool.reads - size <= 3 * 1000 + 10  # each question, its two examples, and one that was left out now and then
    assert kept < 12 * size  # bytes: eight for an entry, and what a growing array has in reserve
    assert peak < kept + 2_000_000


@pytest.mark.parametrize("strategy", ["random", "fixed"])
def test_the_search_for_worked_rationales_reads_the_pool_once_and_keeps_places_alone(strategy):
    pool = Lazy(20_000, worked=True)
    tracemalloc.start()
    generator = ExampleGenerator(pool, ExamplesSection(strategy=strategy))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert generator.worked == "worked"
    assert pool.reads == 20_000
    assert kept < 12 * 20_000  # bytes: eight for a place, and what a growing array has in reserve
    assert peak < 24 * 20_000


# --- similar, diverse ---------------------------------------------------------------------------------------------

ICE = about("asked", "What melts the ice on a pond?")
NEARBY = [
    about("moon", "Who walked upon our moon?"),
    about("pond", "What melts the ice of a small pond?"),
    about("lake", "What melts ice?"),
    about("twin", "What  melts the ice of a small POND?"),
    about("sea", "Where is the sea?"),
]


def test_the_nearest_question_stands_last_and_none_twice():
    assert pick(ICE, NEARBY, strategy="similar", count=2) == ["lake", "pond"]
    assert pick(ICE, NEARBY, strategy="similar", count=3) == ["sea", "lake", "pond"]


def test_choices_and_the_beginning_of_the_context_count_too():
    pool = [
        about("plain", "Where?"),
        Question("choices", "Where?", ("at the pond", "at home"), 0),
        about("context", "Where?", context="A pond. " + "Much more is said. " * 50),
        about("late", "Where?", context="Much more is said. " * 50 + "A pond."),
    ]
    asked = Question("asked", "Pond?", ("wet", "dry"), 0)
    first, *near = pick(asked, pool, strategy="similar", count=3)
    assert set(near) == {"choices", "context"}
    assert first == "plain"  # no farther than the late one, which is not read as far as its pond


def test_a_block_is_shown_what_is_near_to_all_of_it_together():
    block = [about("one", "ice"), about("two", "moon light"), about("three", "moon shine")]
    assert pick(block[0], NEARBY, strategy="similar", count=1) == ["lake"]
    generator = ExampleGenerator(NEARBY, ExamplesSection(strategy="similar", count=1))
    assert ids(generator.pick(block[0], block)) == ["moon"]


def test_diverse_examples_are_near_but_not_like_each_other():
    orders = ["Can sun melt ice on a pond?", "Can ice on a pond melt, sun?", "On a pond, can sun melt ice?"]
    pool = [*(about(f"a{n}", text) for n, text in enumerate(orders)), about("heat", "What heat melts the fat?"), *POOL]
    assert set(pick(ICE, pool, strategy="similar", count=2)) < {"a0", "a1", "a2"}
    first, nearest = pick(ICE, pool, strategy="diverse", count=2)
    assert (first, nearest) == ("heat", pick(ICE, pool, strategy="similar", count=1)[0])


# --- fixed --------------------------------------------------------------------------------------------------------


def test_fixed_examples_are_the_named_ones_in_that_order_for_all_who_are_not_among_them():
    section = {"strategy": "fixed", "ids": ("q9", "q2", "q5"), "count": 2}
    assert all(pick(asked, POOL, **section) == ["q9", "q2", "q5"] for asked in POOL if asked.id not in section["ids"])
    for seed in range(20):
        *named, instead = pick(POOL[2], POOL, seed=seed, **section)
        assert named == ["q9", "q5"]
        assert instead not in section["ids"]
        assert pick(POOL[9], POOL, seed=seed, **section) == ["q2", "q5", instead]


def test_without_names_the_same_are_drawn_for_all_and_the_next_steps_in_for_one_of_them():
    drawn = pick(question(99), POOL, strategy="fixed", count=4)
    for asked in POOL:
        first = [name for name in drawn if name != asked.id][:3]
        assert pick(asked, POOL, strategy="fixed", count=3) == first
    assert pick(POOL[0], POOL, strategy="fixed", seed=1) != pick(POOL[0], POOL, strategy="fixed", seed=2)


def test_named_examples_show_their_worked_rationales_however_few_there_are():
    pool = [question(n, worked=n == 4) for n in range(8)]
    for names, worked in ((("q4", "q1"), "worked"), (("q1",), None)):
        assert ExampleGenerator(pool, ExamplesSection(strategy="fixed", ids=names)).worked == worked


def test_names_that_no_training_question_has_are_all_told_at_once():
    with pytest.raises(ConfigError) as error:
        ExampleGenerator(POOL, ExamplesSection(strategy="fixed", ids=("q3", "q_4", "zebra")))
    assert str(error.value) == (
        "rationales.examples.ids: name questions of the training split, or none to draw them at random:\n"
        "  - no training question has the id 'q_4'. Did you mean 'q4'?\n"
        "  - no training question has the id 'zebra'."
    )
