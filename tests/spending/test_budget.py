"""The budget is never exceeded and never blocks, in any order of replies."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.config import BudgetSection, PriceSection
from tinyllm.prompts import Message, Prompt
from tinyllm.replies._store import Entry, Store
from tinyllm.replies._writer import Writer
from tinyllm.spending.budget import Budget, most_cost, most_tokens
from tinyllm.spending.charges import Spent, cost
from tinyllm.teachers.base import Reply, Request, Sampling, canonical, key_of

PRICE = PriceSection(prompt=1.0, completion=10.0, cached=0.5)
RUN = "mine-1"


def request(text: str, max_tokens: int) -> Request:
    return Request("q", Prompt(text=text), Sampling(max_tokens, 0.7, 1.0, 0))


def key(asked: Request, n: int = 0) -> tuple[str, str]:
    said = canonical({"n": str(n)}, asked)
    return key_of(said), said


def billed(budget, most, reply, charge, resumed=None):
    """As the scheduler does: what is not told is taken to be the most that it can be."""
    prompt = most.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
    said = most.completion_tokens if reply.completion_tokens is None else reply.completion_tokens
    return budget.bill(most.teacher, prompt, said, 0, charge, resumed)


def test_cached_tokens_have_their_own_price():
    assert cost(PRICE, 1000, 100, 600) == pytest.approx((400 * 1 + 600 * 0.5 + 100 * 10) / 1e6)
    assert cost(PriceSection(prompt=1.0, completion=10.0), 1000, 100, 600) == pytest.approx(0.002)
    assert cost(None, 1000, 100) == 0
    assert most_cost(PRICE, 1000, 100) == cost(PRICE, 1000, 100)
    dear = PriceSection(prompt=1.0, completion=10.0, cached=2.0)
    assert most_cost(dear, 1000, 100) == cost(dear, 1000, 100, 1000)


@given(st.text())
def test_a_prompt_has_at_most_as_many_tokens_as_bytes(text):
    size = len(text.encode("utf-8", "surrogatepass"))
    assert most_tokens(Prompt(text=text)) >= size
    assert most_tokens(Prompt(messages=(Message("user", text), Message("user", text)))) >= 2 * size
    assert most_tokens(Prompt(text=text), lambda t: 3) <= 3 + 100  # a tokenizer tells better


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.tuples(st.text(max_size=80), st.integers(1, 200)), min_size=1, max_size=40),
    cap=st.integers(0, 20_000),
    at_once=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_spending_never_exceeds_the_cap_and_no_request_waits_for_ever(tmp_path_factory, sizes, cap, at_once, seed):
    draw = random.Random(seed)
    section = BudgetSection(tokens=cap, usd=cap / 1e5)
    budget = Budget(section, {"ada": PRICE}, run=RUN)
    billed_tokens, billed_usd = 0, 0.0

    async def one(n, size, gate, writer):
        nonlocal billed_tokens, billed_usd
        async with gate:
            asked = request(*size)
            most = budget.most("ada", key(asked, n)[0], asked)
            charge = await budget.reserve(most, writer.set_aside)
            if charge is None:
                return
            await asyncio.sleep(0)
            prompt, said = len(size[0].encode("utf-8", "surrogatepass")), draw.randint(0, size[1])
            billed_tokens += prompt + said  # by a server whose tokens are bytes, whatever becomes of the reply
            billed_usd += cost(PRICE, prompt, said)
            fate = draw.random()
            if fate < 0.2:
                writer.lose(most, charge)
                budget.settle(most, most.usd, most.tokens)
                return
            reply = Reply("so", "stop", prompt, said) if fate < 0.8 else Reply("so", "stop")
            bill = billed(budget, most, reply, charge)
            await writer.keep(Entry("ada", "q", *key(asked, n), reply), bill)
            budget.settle(most, bill.usd, bill.prompt_tokens + bill.completion_tokens)

    async def everyone(store):
        gate = asyncio.Semaphore(at_once)
        async with Writer.opened(store, budget.cap) as writer:
            await asyncio.wait_for(asyncio.gather(*(one(n, s, gate, writer) for n, s in enumerate(sizes))), 30)

    with Store(tmp_path_factory.mktemp("s") / "s") as store:
        asyncio.run(everyone(store))
        spent = store.spent(RUN).get("ada", Spent())
    assert billed_tokens <= spent.tokens <= cap
    assert billed_usd <= (spent.usd + spent.lost_usd) * (1 + 1e-12)
    assert spent.usd + spent.lost_usd <= section.usd * (1 + 1e-12)
    assert (budget.tokens, budget.usd) == (spent.tokens, pytest.approx(spent.usd + spent.lost_usd))


def test_a_request_waits_for_those_in_flight_and_is_sent_if_they_leave_enough(tmp_path):
    async def run(store):
        budget = Budget(BudgetSection(tokens=400), {}, run=RUN)
        async with Writer.opened(store, budget.cap) as writer:
            asked = request("x" * 40, 100)
            most = budget.most("ada", key(asked)[0], asked)
            assert most.tokens == 40 + 64 + 16 + 100
            first = await budget.reserve(most, writer.set_aside)
            second = asyncio.create_task(budget.reserve(most, writer.set_aside))
            await asyncio.sleep(0.05)
            assert not second.done()
            reply = Reply("so", "stop", 10, 5)
            await writer.keep(Entry("ada", "q", *key(asked), reply), billed(budget, most, reply, first))
            budget.settle(most, 0.0, 15)
            charge = await second
            assert charge is not None
            third = asyncio.create_task(budget.reserve(most, writer.set_aside))
            await asyncio.sleep(0.05)
            writer.lose(most, charge)
            budget.settle(most, 0.0, most.tokens)
            assert await third is None  # and not if they do not

    with Store(tmp_path / "s") as store:
        asyncio.run(run(store))
        assert store.spent(RUN)["ada"] == Spent(1, 10, 5, 0, pytest.approx(0, abs=9), 0.0, 1, 220, 0.0)


def test_a_character_of_two_bytes_is_charged_as_two_tokens():
    budget = Budget(BudgetSection(tokens=10_000), {"ada": PRICE}, run=RUN)
    asked = Request("q", Prompt(messages=(Message("user", "é" * 100),)), Sampling(64, 0.7, 1.0, 0))
    most = budget.most("ada", "00", asked)
    assert (most.prompt_tokens, most.completion_tokens) == (200 + 64 + 16, 64)


def test_the_cap_on_hours_also_ends_waiting_requests(tmp_path):
    async def run(store):
        now = [0.0]
        budget = Budget(BudgetSection(hours=1, tokens=300), {}, run=RUN, clock=lambda: now[0])
        asked = request("x" * 40, 100)
        most = budget.most("ada", key(asked)[0], asked)
        async with Writer.opened(store, budget.cap) as writer:
            charge = await budget.reserve(most, writer.set_aside)
            waiting = asyncio.create_task(budget.reserve(most, writer.set_aside))
            await asyncio.sleep(0.05)
            now[0] = 3600
            writer.free(charge)
            budget.settle(most, 0.0, 0)
            assert await waiting is None

    with Store(tmp_path / "s") as store:
        asyncio.run(run(store))
        assert store.spent(RUN) == {}


def test_two_processes_share_one_cap(tmp_path):
    """Each has a store of its own on the same file, and none knows of the other."""

    async def run(store):
        budget = Budget(BudgetSection(tokens=1000), {}, run=RUN)
        async with Writer.opened(store, budget.cap) as writer:
            asked = request("x" * 40, 100)
            most = budget.most("ada", key(asked)[0], asked)
            return [charge for _ in range(3) if (charge := await writer.set_aside(most)) is not None]

    with Store(tmp_path / "s") as one, Store(tmp_path / "s") as other:
        assert [len(asyncio.run(run(store))) for store in (one, other)] == [3, 1]  # 220 tokens each


def test_earlier_spending_counts():
    before = {
        "ada": Spent(10, 1000, 100, 0, 1800.0, 0.002),
        "gone": Spent(usd=0.1, lost=1, lost_tokens=50, lost_usd=0.2),
    }
    section = BudgetSection(usd=1, tokens=5000, hours=2)
    budget = Budget(section, {"ada": PRICE}, before, clock=lambda: 0.0)
    assert budget.left() == "$0.3020 of $1, 1,150 of 5,000 tokens, 0.50 of 2 h"
    assert Budget(BudgetSection(), {}).left() == ""
    budget.spend(-budget.usd - 1e-18, 0)  # sums of floats miss zero
    assert budget.left().startswith("$0.0000 of $1")
    assert not Budget(BudgetSection(), {}).is_set


def test_a_charge_of_a_killed_process_stays_and_its_collector_settles_it(tmp_path):
    """What is at a provider of batches was charged by a process that is gone; whoever collects it knows the cost."""

    async def charge(store):
        budget = Budget(BudgetSection(), {"ada": PRICE}, run=RUN)
        asked = request("x" * 40, 100)
        most = budget.most("ada", key(asked)[0], asked)
        async with Writer.opened(store, budget.cap) as writer:
            await budget.reserve(most, writer.set_aside)  # and then nothing more is heard of it
        return budget, asked, most

    with Store(tmp_path / "s") as store:
        budget, asked, most = asyncio.run(charge(store))
        assert store.spent(RUN)["ada"].lost_usd == pytest.approx(most.usd)

    async def collect(store):
        async with Writer.opened(store) as writer:
            reply = Reply("so", "stop", 10, 5)
            await writer.keep(Entry("ada", "q", *key(asked), reply), billed(budget, most, reply, None, most.key))

    with Store(tmp_path / "s") as store:
        asyncio.run(collect(store))
        assert (store.spent(RUN)["ada"].lost, store.spent(RUN)["ada"].usd) == (0, pytest.approx(cost(PRICE, 10, 5)))
