"""What only a GPU can show (`pytest -m gpu`): FlexAttention and the fused loss give the loss and gradients of the CPU."""

from __future__ import annotations

import contextlib
import importlib.util

import pytest
import torch

from student.test_loss import TASKS, gradients, mixture
from support import FAMILIES, TEACHERS, some_questions, tiny_student
from tinyllm.student._batch import to_device
from tinyllm.student._loss import Head, weighted_cross_entropy
from tinyllm.student._ways import Way
from tinyllm.student.plan import StepPlan
from tinyllm.student.train import tokenise

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore"),  # of torch.compile, many and none of them ours
]


def loss_and_gradients(family: str, device: str, compiles: bool = False):
    student = tiny_student(family, width=32)  # FlexAttention wants heads of 16 and more
    student.model.to(device)
    learner = student.learner()
    questions = some_questions(5)
    targets = mixture(questions, [("q1", "ada")], dict.fromkeys(TEACHERS, 0.5))
    rows = tokenise(student.encoder(share_prompt=learner.share_prompt), questions, targets)
    total = 0.0
    with learner.compiled() if compiles else contextlib.nullcontext():
        for micro in StepPlan(rows, batch_size=5, shape=learner.shape(400))[0].micro_batches:
            loss, _ = learner(to_device(learner.collate(micro, TASKS), learner.device))
            loss.backward()
            total += float(loss.detach())
    return learner, total, {n: g.cpu() for n, g in gradients(student).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("compiles", [False, True], ids=["", "compiled"])
def test_a_gpu_gives_the_loss_and_gradients_of_the_cpu(family, compiles):
    torch._dynamo.reset()
    _, expected, expected_gradients = loss_and_gradients(family, "cpu")
    learner, found, found_gradients = loss_and_gradients(family, "cuda", compiles)
    assert learner.way == (Way(packed=False) if family == "t5" else Way())
    assert found == pytest.approx(expected, rel=1e-4)
    for name, gradient in expected_gradients.items():
        assert (found_gradients[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


@pytest.mark.skipif(importlib.util.find_spec("cut_cross_entropy") is None, reason="needs cut-cross-entropy")
def test_the_fused_kernel_is_the_chunked_loss_within_tolerance():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 1000, bias=False).cuda()
    hidden = torch.randn(300, 64, device="cuda", requires_grad=True)
    labels, weights = torch.randint(1000, (300,), device="cuda"), torch.rand(300, device="cuda")
    expected, _ = weighted_cross_entropy(Head(layer), hidden, labels, weights)
    theirs = torch.autograd.grad(expected, [hidden, layer.weight])
    with torch.autocast("cuda", dtype=torch.bfloat16):
        ours, _ = weighted_cross_entropy(Head(layer), hidden, labels, weights)
    assert float(ours) == pytest.approx(float(expected), rel=1e-2)
    for mine, other in zip(torch.autograd.grad(ours, [hidden, layer.weight]), theirs, strict=True):
        assert (mine - other).norm() <= 0.03 * other.norm()
