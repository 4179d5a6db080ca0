"""The chunked cross-entropy is plain cross-entropy: values, gradients, any head, any chunk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tinyllm.student._loss import Head, sums_by_task, weighted_cross_entropy

VOCABULARY, WIDTH = 97, 6


class Wrapped(nn.Module):
    """A head that is more than a matrix, as with an adapter."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden):
        return self.inner(hidden) * 1.5


def made(tokens: int, *, bias: bool = False, cap: float | None = None, wrapped: bool = False):
    torch.manual_seed(tokens)
    layer = nn.Linear(WIDTH, VOCABULARY, bias=bias)
    hidden = torch.randn(tokens, WIDTH, requires_grad=True)
    labels, weights = torch.randint(VOCABULARY, (tokens,)), torch.rand(tokens)
    return Head(Wrapped(layer) if wrapped else layer, cap), hidden, labels, weights


def plain(head, hidden, labels, weights):
    each = functional.cross_entropy(head.logits(hidden), labels, reduction="none")
    return (each * weights).sum(), each


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 70),
    bias=st.booleans(),
    cap=st.sampled_from([None, 1.5]),
    wrapped=st.booleans(),
    chunk=st.sampled_from([1, 20, 10_000]),
)
def test_values_and_gradients_are_those_of_plain_cross_entropy(tokens, bias, cap, wrapped, chunk):
    head, hidden, labels, weights = made(tokens, bias=bias, cap=cap, wrapped=wrapped)
    leaves = [hidden, *head.layer.parameters()]
    expected, each = plain(head, hidden, labels, weights)
    theirs = torch.autograd.grad(3 * expected, leaves)
    ours, ours_each = weighted_cross_entropy(head, hidden, labels, weights, chunk_bytes=chunk * 4 * VOCABULARY)
    assert not ours_each.requires_grad
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours_each, each, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        silent = weighted_cross_entropy(head, hidden, labels, weights, chunk_bytes=chunk * 4 * VOCABULARY)
    torch.testing.assert_close(silent, (ours.detach(), ours_each), rtol=1e-6, atol=1e-6)
    for mine, other in zip(torch.autograd.grad(3 * ours, leaves), theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient_and_costs_none(trained):
    head, hidden, labels, weights = made(30)
    head.layer.weight.requires_grad_(trained == "weight")
    hidden.requires_grad_(trained == "hidden")
    total, _ = weighted_cross_entropy(head, hidden, labels, weights)
    total.backward()
    assert (hidden.grad is None, head.layer.weight.grad is None) == (trained != "hidden", trained != "weight")


def test_bf16_autocast_multiplies_in_bf16_and_adds_up_in_float32():
    head, hidden, labels, weights = made(50)
    expected, _ = plain(head, hidden, labels, weights)
    theirs = torch.autograd.grad(expected, [hidden, head.layer.weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, _ = weighted_cross_entropy(head, hidden, labels, weights)
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2)
    for mine, other in zip(torch.autograd.grad(ours, [hidden, head.layer.weight]), theirs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=5e-2, atol=2e-2)


def test_gradients_of_tiny_weights_survive_half_precision():
    head, hidden, labels, weights = made(50)
    tiny = weights * 1e-9  # far below what half precision can hold
    with torch.autocast("cpu", dtype=torch.float16):
        total, _ = weighted_cross_entropy(head, hidden, labels, tiny)
    (gradient,) = torch.autograd.grad(total, [head.layer.weight])
    (expected,) = torch.autograd.grad(plain(head, hidden, labels, tiny)[0], [head.layer.weight])
    assert (gradient - expected).norm() < 0.02 * expected.norm()


def test_sums_go_to_their_tasks():
    sums = sums_by_task(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.25]), torch.tensor([0, 1, 1]), 3)
    assert sums.tolist() == [[1.0, 2.0, 0.0], [1.0, 0.75, 0.0]]
