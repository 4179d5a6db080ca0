"""The budget: never exceeded, never stuck, whatever comes back in whatever order."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.prompts import Message, Prompt
from tinyllm.rationales.budget import Budget, cost
from tinyllm.rationales.store import Spent
from tinyllm.teachers.base import Reply, Request, Sampling

PRICE = PriceSection(prompt=1.0, completion=10.0, cached=0.5)


def request(characters: int, max_tokens: int) -> Request:
    return Request("q", Prompt(text="x" * characters), Sampling(max_tokens, 0.7, 1.0, 0))


def test_cached_tokens_have_their_own_price():
    assert cost(PRICE, 1000, 100, 600) == pytest.approx((400 * 1 + 600 * 0.5 + 100 * 10) / 1e6)
    assert cost(PriceSection(prompt=1.0, completion=10.0), 1000, 100, 600) == pytest.approx(0.002)
    assert cost(None, 1000, 100) == 0


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 200)), min_size=1, max_size=60),
    cap=st.integers(0, 20_000),
    at_once=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_what_is_spent_never_exceeds_the_cap_and_nobody_waits_for_ever(sizes, cap, at_once, seed):
    draw = random.Random(seed)
    budget = Budget(BudgetSection(tokens=cap, usd=cap / 1e5), {"ada": PRICE})
    refused = []

    async def one(size, gate):
        async with gate:
            asked = request(*size)
            hold = await budget.reserve("ada", asked)
            if hold is None:
                refused.append(size)
                return
            await asyncio.sleep(0)
            failed = draw.random() < 0.2
            # A reply never has more tokens than was set aside: four characters a token, and max_tokens.
            reply = Reply("so", "stop", size[0] // 4, draw.randint(0, size[1]))
            budget.settle(hold, None if failed else reply)
            assert budget.tokens <= cap
            assert budget.usd <= cap / 1e5 * (1 + 1e-9)

    async def everyone():
        gate = asyncio.Semaphore(at_once)
        await asyncio.wait_for(asyncio.gather(*(one(size, gate) for size in sizes)), 30)

    asyncio.run(everyone())
    if cap >= 60 * (200 + 32 + 200) and cap / 1e5 >= 60 * (232 + 2000) / 1e6:
        assert refused == []


def test_a_request_waits_for_those_in_flight_and_is_sent_if_they_leave_enough():
    async def run():
        budget = Budget(BudgetSection(tokens=200), {})
        first = await budget.reserve("ada", request(40, 100))
        second = asyncio.create_task(budget.reserve("ada", request(40, 100)))
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(first, Reply("so", "stop", 10, 5))
        hold = await second
        assert hold is not None
        assert hold.prompt_tokens < first.prompt_tokens  # it has seen how long this teacher's tokens are
        third = asyncio.create_task(budget.reserve("ada", request(40, 180)))
        await asyncio.sleep(0)
        budget.settle(hold, Reply("so", "stop", 10, 100))
        assert await third is None  # and not if they do not

    asyncio.run(run())


def test_a_server_that_does_not_count_is_counted_for():
    async def run():
        budget = Budget(BudgetSection(tokens=10_000), {})
        hold = await budget.reserve(
            "ada", Request("q", Prompt(messages=(Message("user", "x" * 100),)), Sampling(64, 0.7, 1.0, 0))
        )
        budget.settle(hold, Reply("word " * 30, "stop"))
        assert budget.tokens == 50 + 32 + 51

    asyncio.run(run())


def test_the_hours_are_up_at_once_and_for_those_who_wait():
    async def run():
        now = [0.0]
        budget = Budget(BudgetSection(hours=1, tokens=200), {}, clock=lambda: now[0])
        hold = await budget.reserve("ada", request(40, 100))
        waiting = asyncio.create_task(budget.reserve("ada", request(40, 100)))
        await asyncio.sleep(0)
        now[0] = 3600
        budget.settle(hold, None)
        assert await waiting is None

    asyncio.run(run())


def test_what_was_spent_before_counts_and_is_told():
    before = {"ada": Spent(10, 1000, 100, 0, 1800.0)}
    section = BudgetSection(usd=1, tokens=5000, hours=2)
    budget = Budget(section, {"ada": PRICE}, before, clock=lambda: 0.0)
    assert budget.left() == "$0.0020 of $1, 1,100 of 5,000 tokens, 0.50 of 2 h"
    assert Budget(BudgetSection(), {}).left() == ""
    assert not Budget(BudgetSection(), {}).is_set
