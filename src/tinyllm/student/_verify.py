"""Verification of a student: finds the fastest way to compute it that agrees with its own `forward`.

See docs/decisions/0002-a-probe-decides-shared-prompts.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tinyllm.errors import StudentError, first_line
from tinyllm.student._attention import drops_scores
from tinyllm.student._batch import to_device
from tinyllm.student._positions import bounds, exceeded_bound
from tinyllm.student._probe import (
    Gradients,
    apart,
    compared_parameters,
    long_rows,
    micro_batch,
    plain_tokens,
    same_gradients,
    same_logits,
    short_rows,
    without_noise,
)
from tinyllm.student._rows import Row
from tinyllm.student._ways import ALONE, UNFIT, Way, unwrapped

if TYPE_CHECKING:
    from tinyllm.student.learner import Learner

_CHEAP = 1e10  # parameters times tokens: below this, gradients of long rows are compared, too
_USUAL = "a causal model (Llama, Qwen, Gemma, SmolLM, …) or an encoder-decoder (T5, BART, …)"


class Verification:
    """Compares ways to compute a student on a probe: some short rows, and rows longer than the model's bounds.

    Args:
        longest: tokens of the longest row of the run.

    Attributes:
        reach: the longest row, in tokens, for which the probe is valid; None: there is no limit.
        company: the same for all rows of a micro-batch together.
    """

    def __init__(self, learner: Learner, longest: int) -> None:
        self._learner = learner
        self._name = type(unwrapped(learner.student)).__name__
        bound = exceeded_bound(learner.config, longest, learner.positions.shortest)
        self._tokens = plain_tokens(learner.student)
        kind = {"is_encoder_decoder": learner.is_encoder_decoder}
        self._short = short_rows(self._tokens, **kind)
        self._long = [] if bound is None else long_rows(self._tokens, bound, **kind)
        together = sum(row.length for row in (*self._short, *self._long))
        known = list(bounds(learner.config))
        self.reach = next((b.tokens for b in known if b.tokens >= longest), None)
        self.company = next((b.tokens for b in known if b.counts_company and b.tokens >= together), None)

    def take_fastest(self, *, learns: bool) -> None:
        """Let the learner take the fastest way that agrees with the model's plain `forward`; see `Learner.verify`.

        Args:
            learns: also compare the gradients.
        """
        learner = self._learner
        learner.take(ALONE)
        plain = self._plain(compared_parameters(learner) if learns else [])
        for way in () if plain.is_spoilt else self._ways():
            learner.take(way)
            if way == ALONE or self._agrees(plain):
                break

    def refuse_if_it_sees_ahead(self) -> None:
        """Raise `StudentError` if changing a token of a short row changes the predictions before it."""
        self._learner.eval()
        self._learner.take(ALONE)
        row = _telling(apart(self._short))
        with contextlib.suppress(*UNFIT):
            self._refuse_if_it_sees_ahead(row, self._result([row]).logits)

    def _ways(self) -> Iterator[Way]:
        """Yield the ways worth trying, the fastest first."""
        # FlexAttention, which packs on a GPU, learns no position bias (T5).
        if self._learner.device.type != "cuda" or not self._learner.is_encoder_decoder:
            yield from (Way(), Way(whole_forward=True))
        for share_prompt in (True, False):
            for whole_forward in (False, True):
                yield Way(packed=False, share_prompt=share_prompt, whole_forward=whole_forward)
        yield ALONE

    # --- what the model itself gives ----------------------------------------------------------------------------------

    def _plain(self, parameters: Sequence[nn.Parameter]) -> _Plain:
        """Compute the rows of the probe one by one, by the model's own forward."""
        rows, more = apart(self._short), apart(self._long)
        count, row = len(rows) + len(more), _telling(rows)
        size = sum(p.numel() for p in self._learner.parameters())
        of_long = parameters if size * sum(r.length for r in more) < _CHEAP else []
        try:
            first, trains = self._of_training(row, count, parameters)
            self._refuse_if_random(row, first.logits)
            results = [first if r is row else self._result([r], count, parameters, trains) for r in rows]
            results += [self._result([r], count, of_long, trains) for r in more]
        except UNFIT as error:
            longest = max(r.length for r in (*rows, *more))
            raise StudentError(
                f"student.model: {self._name} fails on rows of up to {longest} tokens: {first_line(error)} "
                f"Choose {_USUAL}."
            ) from error
        plain = _Plain(results, parameters, of_long, trains)
        if not plain.is_spoilt:
            for those, found in ((rows, results[: len(rows)]), (more, results[len(rows) :])):
                for telling in [_telling(those)] if those else []:
                    self._refuse_if_it_sees_ahead(telling, found[those.index(telling)].logits)
        return plain

    def _of_training(self, row: Row, count: int, parameters: Sequence[nn.Parameter]) -> tuple[_Result, bool]:
        """Return the result of a row, and whether its gradient is taken in training mode.

        A model that is always random in training mode (because its router samples) is compared in evaluation mode.
        """
        if not parameters:
            return self._result([row], count), False
        once, again = (self._result([row], count, parameters, trains=True) for _ in range(2))
        if same_gradients(again.gradients, once.gradients):
            return once, True
        return self._result([row], count, parameters), False

    def _refuse_if_it_sees_ahead(self, row: Row, logits: Tensor) -> None:
        *before, token, last = row.branches[0].target
        other = next((t for t in self._tokens if t != token), token)
        changed = replace(row.branches[0], target=(*before, other, last))
        found = self._result([replace(row, branches=(changed,))]).logits
        if not same_logits(found[:-1], logits[:-1]):
            self._refuse_if_random(row, logits)
            raise StudentError(
                f"student.model: {self._name} sees the tokens that it is to predict, so neither training nor its "
                f"scores would mean anything. Choose {_USUAL}; or, if this model was trained to predict the next "
                "token, set is_decoder to true in its config.json."
            )

    def _refuse_if_random(self, row: Row, logits: Tensor) -> None:
        if not same_logits(self._result([row]).logits, logits) and not logits.isnan().any():
            raise StudentError(
                f"student.model: {self._name} gives other scores each time it reads the same tokens. Choose {_USUAL}."
            )

    # --- what a way gives ---------------------------------------------------------------------------------------------

    def _agrees(self, plain: _Plain) -> bool:
        """Return whether the learner's way gives the plain results. Short rows come first, as they cost least."""
        learner = self._learner
        count, split = len(plain.results), len(apart(self._short))
        probes = [(self._short, plain.results[:split], plain.parameters)]
        if self._long:
            probes.append(([*self._short, *self._long], plain.results, plain.of_long))
        try:
            for rows, results, parameters in probes:
                asked = rows if learner.share_prompt else apart(rows)
                found = self._result(asked, count, parameters, plain.trains)
                parts = ([g for g in of if g is not None] for of in zip(*(r.gradients for r in results), strict=False))
                gradients = [torch.stack(some).sum(0) if some else None for some in parts]
                if not same_logits(found.logits, torch.cat([r.logits for r in results])):
                    return False
                if parameters and not same_gradients(found.gradients, gradients):
                    return False
            if plain.parameters and learner.way.packed and not drops_scores(learner.device):
                learner.train()
                with torch.no_grad():  # raises where it would drop
                    learner(to_device(learner.collate(micro_batch(self._short, count), ()), learner.device))
        except UNFIT:
            return False  # a model whose attention, head or masks have another interface
        return True

    def _result(
        self, rows: Sequence[Row], branches: int = 1, parameters: Sequence[nn.Parameter] = (), trains: bool = False
    ) -> _Result:
        """Return the logits of rows, and the gradient of their loss.

        Args:
            branches: of all rows of the probe; the loss is the mean over them of the mean over tokens.
            trains: in training mode without noise; otherwise in evaluation mode.
        """
        learner = self._learner
        batch = to_device(learner.collate(micro_batch(rows, branches), ()), learner.device)
        learner.eval()
        with torch.no_grad():
            logits = learner.target_logits(batch).float()
        if not parameters:
            return _Result(logits, ())
        learner.train(trains)
        with without_noise(learner) if trains else contextlib.nullcontext(), torch.enable_grad():
            loss, _ = learner(batch)
            return _Result(logits, torch.autograd.grad(loss, list(parameters), allow_unused=True))


@dataclass(frozen=True, slots=True)
class _Result:
    """The results of a way for rows of a probe."""

    logits: Tensor
    gradients: Gradients


@dataclass(frozen=True, slots=True)
class _Plain:
    """The results of the model itself for a probe, row by row.

    Attributes:
        results: of each branch of the short rows, then of the long ones.
        parameters: those whose gradients are compared.
        of_long: the same for long rows. Their gradients are compared for small models only.
        trains: whether gradients are taken in training mode.
    """

    results: list[_Result]
    parameters: Sequence[nn.Parameter]
    of_long: Sequence[nn.Parameter]
    trains: bool

    @property
    def is_spoilt(self) -> bool:
        """Whether a logit is not a number, so that nothing can be compared. Scoring or training reports it later."""
        return any(bool(r.logits.isnan().any()) for r in self.results)


def _telling(rows: Sequence[Row]) -> Row:
    """Return the row with the most to predict."""
    return max(rows, key=lambda r: len(r.branches[0].target))
