"""What lies in the checkpoints' folder: only whole things count, and the best is known by the validation accuracy."""

from __future__ import annotations

import json

import torch
from torch import nn

from tinyllm.student._checkpoints import (
    Best,
    keep_only_checkpoints_of,
    load_weights,
    newest_checkpoint,
    trained_weights,
    write_weights,
)


def test_checkpoints_of_other_targets_are_discarded(tmp_path):
    folder = tmp_path / "checkpoints"
    keep_only_checkpoints_of(folder, "a")
    made = folder / "checkpoint-3"
    made.mkdir()
    (made / "trainer_state.json").write_text(json.dumps({"global_step": 3}), "utf-8")
    keep_only_checkpoints_of(folder, "a")
    assert newest_checkpoint(folder) == made
    keep_only_checkpoints_of(folder, "b")
    assert newest_checkpoint(folder) is None


def test_only_what_is_trained_is_written_and_put_back(tmp_path):
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    before = layer.weight.detach().clone()
    write_weights(trained_weights(layer), tmp_path / "w.safetensors")
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(7)
    load_weights(layer, tmp_path / "w.safetensors")
    assert torch.equal(layer.weight, before)
    assert layer.bias.tolist() == [7, 7]


def test_the_first_of_equals_is_the_best_and_patience_counts_what_came_after(tmp_path):
    best = Best(tmp_path)
    assert [best.note(step, accuracy) for step, accuracy in ((5, 0.4), (10, 0.6), (15, 0.6), (20, 0.5))] == [
        True,
        True,
        False,
        False,
    ]
    assert (best.best_step(), best.best_step(until=5)) == (10, 5)
    assert [best.worse_since(step) for step in (5, 10, 15, 20)] == [0, 0, 1, 2]
    best.save()
    again = Best(tmp_path)
    assert again.accuracies == best.accuracies
    assert again.note(5, 0.4), "found again after an interruption: what came later does not count yet"
