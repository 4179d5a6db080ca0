"""The gate: the limit always holds, and no waiting request is forgotten, also after a cancellation."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.system.gate import Gate


@settings(deadline=None, max_examples=50)
@given(limits=st.lists(st.integers(1, 6), min_size=1, max_size=12), users=st.integers(1, 25), seed=st.integers(0, 99))
def test_the_limit_holds_and_everyone_gets_through(limits, users, seed):
    draw = random.Random(seed)
    at = [0]

    def limit():
        return limits[at[0] % len(limits)]

    async def use(gate, through):
        async with gate:
            entered_at = limit()
            assert gate.inside <= max(limits)
            del entered_at
            await asyncio.sleep(0)
            at[0] += 1
            if draw.random() < 0.5:
                await asyncio.sleep(0)
        through.append(1)

    async def everyone():
        gate, through = Gate(limit), []
        tasks = [asyncio.create_task(use(gate, through)) for _ in range(users)]
        await asyncio.sleep(0)
        cancelled = [task for task in tasks if draw.random() < 0.2 and task.cancel()]
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        assert len(through) >= users - len(cancelled)
        assert gate.inside == 0
        async with gate:
            assert gate.inside == 1

    asyncio.run(everyone())


def test_a_limit_that_rises_lets_in_more_at_the_next_leave():
    async def run():
        limit, most = [1], [0]
        gate = Gate(lambda: limit[0])

        async def use():
            async with gate:
                most[0] = max(most[0], gate.inside)
                await asyncio.sleep(0.001)
                limit[0] = 4

        await asyncio.gather(*(use() for _ in range(12)))
        assert most[0] == 4

    asyncio.run(run())
