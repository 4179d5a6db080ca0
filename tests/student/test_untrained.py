"""The student that is made on the spot: the same everywhere, and good for a dry run."""

from __future__ import annotations

import torch

from support import some_questions
from tinyllm.config import StudentSection
from tinyllm.scoring.score import score_options
from tinyllm.student._untrained import NAME, untrained
from tinyllm.student.model import StudentCard, load_student, load_tokenizer, parameters_in_use


def test_it_is_the_same_wherever_it_is_made(tmp_path):
    torch.manual_seed(5)
    first = (untrained(tmp_path / "a") / "model.safetensors").read_bytes()
    after = torch.rand(1)
    second = (untrained(tmp_path / "b") / "model.safetensors").read_bytes()
    assert first == second
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)  # it has drawn nothing from anyone's generator


def test_it_loads_by_its_name_and_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    section = StudentSection(model=NAME)
    student = load_student(section, StudentCard(prefixes={"answer": "predict: "}))
    scores = score_options(student, student.learner(), some_questions(3))
    assert all(len(s.total) == 4 for s in scores)
    body, head = parameters_in_use(load_tokenizer(section)[1])
    assert head == student.model.lm_head.weight.numel()
    assert body + 2 * head == student.model.num_parameters()  # its embeddings and its head are not tied
