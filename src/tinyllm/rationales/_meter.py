"""What one request costs: each attempt is reserved before it is sent, and paid, released or written off afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from tinyllm.rationales.requests import Ask
from tinyllm.replies import Entry, Writer
from tinyllm.spending.budget import Budget
from tinyllm.spending.charges import Charge
from tinyllm.teachers.base import Meter, Reply


class StoppedError(Exception):
    """The request is not sent, because stopping was requested."""


class RequestMeter(Meter):
    """Charges the attempts of one request to the budget, and stores its reply; see `teachers.base.Meter`.

    Args:
        over_budget: is called if the budget does not allow another attempt.
        resumes: whether an earlier process may have made an attempt.
    """

    def __init__(
        self,
        writer: Writer,
        budget: Budget,
        ask: Ask,
        teacher: str,
        *,
        may_send: Callable[[], bool],
        over_budget: Callable[[], None],
        resumes: bool,
    ) -> None:
        self._writer = writer
        self._budget = budget
        self._ask = ask
        self._teacher = teacher
        self._may_send = may_send
        self._over_budget = over_budget
        self._resumes = resumes
        self._is_kept = budget.is_kept_for(teacher)
        self._charge: int | None = None
        self.is_under_way = False

    @cached_property
    def _most(self) -> Charge:
        """The most that an attempt can cost. It is computed on demand, because prompts may be long."""
        return self._budget.most(self._teacher, self._ask.key, self._ask.request)

    async def begin(self) -> None:
        self.lost()
        if not self._may_send():
            raise StoppedError
        if self._is_kept:
            self._charge = await self._budget.reserve(self._most, self._writer.set_aside)
            if self._charge is None:
                self._over_budget()
                raise StoppedError
        self.is_under_way = True
        if not self._may_send():
            self.free()
            raise StoppedError

    def free(self) -> None:
        if self.is_under_way:
            if self._charge is not None:
                self._writer.free(self._charge)
            self._ended(0.0, 0)
        elif self._resumes:
            self._writer.free_resumed(self._budget.run, self._ask.key)

    def lost(self, words: str = "") -> None:  # noqa: ARG002 - for meters that report it
        if self.is_under_way:
            self._writer.lose(self._most, self._charge)
            self._ended(self._most.usd, self._most.tokens)

    def leave(self) -> None:
        """End the account here: the attempt goes on at the provider, and the run that collects it pays."""
        if self.is_under_way:
            self._ended(self._most.usd, self._most.tokens)

    async def paid(self, reply: Reply) -> Reply:
        """Store a reply and its cost. Return it once both are on the disk.

        If the server reports no usage, the maximum is charged.
        """
        prompt = self._most.prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
        completion = self._most.completion_tokens if reply.completion_tokens is None else reply.completion_tokens
        resumed = self._ask.key if self._resumes and not self.is_under_way else None
        bill = self._budget.bill(self._teacher, prompt, completion, reply.cached_tokens or 0, self._charge, resumed)
        ask = self._ask
        kept = await self._writer.keep(Entry(self._teacher, ask.question.id, ask.key, ask.asked, reply), bill)
        self._ended(bill.usd, prompt + completion)
        return kept

    def _ended(self, usd: float, tokens: int) -> None:
        if self._charge is None:
            self._budget.spend(usd, tokens)
        else:
            self._budget.settle(self._most, usd, tokens)
        self._charge, self.is_under_way = None, False
