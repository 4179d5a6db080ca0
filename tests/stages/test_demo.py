"""`tinyllm demo`: how it fits itself to a machine, and what it prints, with a tiny student and the recorded teacher."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tinyllm.config import build_config
from tinyllm.opinions import files
from tinyllm.questions import load_splits
from tinyllm.stages import demo
from tinyllm.stages.folder import RunFolder


@pytest.mark.parametrize(
    ("fp32", "bf16", "precision", "epochs"),
    [
        (40e9, 10e9, "fp32", 1),
        (100e9, 20e9, "fp32", 1),
        (120e9, 20e9, "fp32", 2),
        (200e9, 210e9, "fp32", 3),
        (300e9, 888e9, "bf16", 3),
    ],
)
def test_the_length_of_the_training_fits_the_machine(monkeypatch, fp32, bf16, precision, epochs):
    monkeypatch.setattr(demo, "peak_flops", {"fp32": fp32, "bf16": bf16}.__getitem__)
    config, said = demo._fitted(False)
    assert (config.train.precision, config.train.epochs) == (precision, epochs)
    assert f" s for {epochs} epoch" in said[-1]


def test_it_tells_each_step_once_and_ends_with_the_gain_and_what_to_do_next(tmp_path, tiny_t5, monkeypatch, cli):
    monkeypatch.setattr(demo, "peak_flops", lambda precision: 1e9)
    config, said = demo._fitted(False)
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree["teachers"] = tree["teachers"][:1]
    tree["opinions"]["teachers"].pop("gemma3")
    tree["student"] |= {"model": str(tiny_t5), "adapter": "full"}
    tree["train"] |= {"max_steps": 2, "method": "fine-tuning"}
    monkeypatch.setattr(demo, "_fitted", lambda best: (build_config(tree), said))
    told = cli("demo", "--run-dir", tmp_path / "demo")
    assert told.code == 0, told.err
    for step in ("Reading questions", "Training", "Evaluating the student", "What the teachers think of one question"):
        assert told.err.count(f"\n{'' if ' of ' in step else '✓ '}{step}") == 1, step
    for words in ("Training on the teachers' opinions, without an answer,", "95 % interval", "What to try next"):
        assert words in told.out
    assert ("make demo-best" in told.out) == ("is not shown to change the accuracy" in told.out)
    again = cli("demo", "--run-dir", tmp_path / "demo")
    assert (again.code, "✓ The student is already evaluated" in again.err) == (0, True)


def test_what_both_teachers_think_of_a_choice_is_one_line_of_80_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "peak_flops", lambda precision: 1e9)
    config, _ = demo._fitted(False)
    question = max(load_splits(config.data).train, key=lambda q: max(map(len, q.choices)))
    sure = (1.0, *[0.0] * (len(question.choices) - 1))
    think = [SimpleNamespace(question_id=question.id, teacher=t.name, probabilities=sure) for t in config.teachers]
    monkeypatch.setattr(files, "read_opinions", lambda *_: think)
    lines = demo._one_question(config, RunFolder(tmp_path))[1:]
    assert len(lines) == len(question.choices)
    assert all("gemma3" in line and "qwen-1.5b" in line and len(line) <= 80 for line in lines)
