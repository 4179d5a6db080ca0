"""The loss of choosing: cross-entropy between the target shares of the choices and the softmax of their scores.

    s_j = log-likelihood of choice j, or its mean per token     L = Σ_questions weight · -Σ_j share_j · log softmax(s)_j

The weight of a token is known only after all choices of its question are computed:

    dL / d cross-entropy of a token of choice j = weight · (share_j - softmax(s)_j) · (1, or 1 / tokens of choice j)
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Choices:
    """G questions whose choices are compared, up to K per question. Their tokens are among N target tokens.

    Attributes:
        places (N,): for each target token, the index of its choice among the G · K; G · K if it belongs to none.
        shares, scales (G, K): see `encode.Choice`; 0 where a question has fewer choices.
        weights (G,): of each question's loss.
        spans: for each question, the first target token of its choices, and the one after the last. They are adjacent.
        task: the number of the task under which this loss is logged.
    """

    places: Tensor
    shares: Tensor
    scales: Tensor
    weights: Tensor
    spans: tuple[tuple[int, int], ...]
    task: int

    def to(self, device: torch.device) -> Choices:
        """Return the same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("places", "shares", "scales", "weights")}
        return replace(self, **moved)

    @property
    def longest(self) -> int:
        """The largest number of target tokens of a question."""
        return max(end - start for start, end in self.spans)

    def loss(self, cross_entropy: Tensor) -> Tensor:
        """Return the loss of all questions, a scalar.

        Args:
            cross_entropy: (N,), of each target token.
        """
        absent = self.scales == 0
        total = torch.zeros(absent.numel() + 1, device=cross_entropy.device)
        total = total.index_add(0, self.places, cross_entropy.float())[:-1].view_as(self.scales)
        scores = (-total * self.scales).masked_fill(absent, -torch.inf)
        likely = scores.log_softmax(1).masked_fill(absent, 0.0)
        return -(self.weights * (self.shares * likely).sum(1)).sum()

    def token_weights(self, cross_entropy: Tensor) -> Tensor:
        """Return the weight of each token's cross-entropy in the loss, (N,): its derivative."""
        with torch.enable_grad():
            each = cross_entropy.detach().requires_grad_()
            (slopes,) = torch.autograd.grad(self.loss(each), each)
        return slopes

    def whole_parts(self, size: int) -> list[slice]:
        """Cut the target tokens into parts of at most `size`. The choices of one question stay in one part."""
        ends, tokens, at = [end for _, end in self.spans], len(self.places), 0
        parts: list[slice] = []
        while at < tokens:
            end = min(at + size, tokens)
            crossed = bisect.bisect_right(ends, end)
            if crossed < len(ends) and self.spans[crossed][0] < end:
                start, after = self.spans[crossed]
                end = start if start > at else after
            parts.append(slice(at, end))
            at = end
        return parts
