"""The folder `checkpoints/` of a run, from which an interrupted training continues.

checkpoints/
  fingerprint       hash of everything that is learnt; checkpoints with another hash are deleted
  checkpoint-N/     after step N; complete if it has `trainer_state.json`, which is written last
  best/             the weights with the best validation accuracy so far, and all accuracies
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tinyllm.system.files import replacing, write_json, write_text

FOLDER = "checkpoints"
WEIGHTS_FILE = "trained.safetensors"
_BEST = "best"
_ACCURACIES = "accuracies.json"


def keep_only_checkpoints_of(folder: Path, key: str) -> None:
    """Delete checkpoints of a training on other targets. Continuing from them would mix the two trainings."""
    note = folder / "fingerprint"
    if folder.is_dir() and (not note.is_file() or note.read_text(encoding="utf-8") != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, key)


def checkpoint_of_another(folder: Path, key: str) -> int:
    """Return the steps of the newest checkpoint of a run if it belongs to a training on other targets; otherwise 0."""
    note = folder / FOLDER / "fingerprint"
    is_of_this = note.is_file() and note.read_text(encoding="utf-8") == key
    return 0 if is_of_this else steps_done(newest_checkpoint(folder / FOLDER))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint. After a crash, the state is missing, because it is written last."""
    whole = [c for c in folder.glob("checkpoint-*") if steps_done(c) > 0]
    return max(whole, key=steps_done, default=None)


def steps_done(checkpoint: Path | None) -> int:
    """Return the optimizer steps of a checkpoint; 0 if there is none, or it is incomplete."""
    if checkpoint is None:
        return 0
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return 0


def discard_checkpoints(folder: Path) -> None:
    """Remove the checkpoints from the folder of a run whose training is finished."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


# --- weights ------------------------------------------------------------------------------------------------------


def trained_weights(module: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return the trained weights on the CPU: all weights, or only the adapters. Shards are gathered.

    Args:
        state: the state of the module, if its shards are gathered already.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = {name: whole(p) if state is None else state[name] for name, p in trained.items()}
    return {name: p.detach().contiguous().cpu() for name, p in found.items()}


def gathered_weights(module: nn.Module) -> dict[str, Tensor] | None:
    """Return the trained weights, gathered, if several processes hold shards of them (FSDP); otherwise None."""
    is_sharded = any(hasattr(p, "full_tensor") for p in module.parameters())
    return trained_weights(module) if is_sharded else None


def write_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write weights atomically."""
    with replacing(file) as draft:
        save_file(dict(weights), draft)


def load_weights(module: nn.Module, file: Path) -> None:
    """Load the trained weights of a module from a file."""
    put_weights(module, load_file(file))


def put_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a module by name. Its other weights do not change."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name not in weights:
                continue
            value = weights[name]
            if hasattr(parameter, "full_tensor"):
                from torch.distributed.tensor import distribute_tensor

                shard: Any = parameter
                value = distribute_tensor(value.to(shard.device), shard.device_mesh, shard.placements)
            parameter.copy_(value)


def whole(parameter: Tensor) -> Tensor:
    """Return a parameter with its shards gathered (FSDP). If there are shards, this is a collective operation."""
    put_together = getattr(parameter, "full_tensor", None)
    found: Tensor = parameter if put_together is None else put_together()
    return found


# --- the best so far ----------------------------------------------------------------------------------------------


class Best:
    """The weights with the best validation accuracy, on disk. Of equal accuracies the first one counts.

    Accuracies after the step from which a training resumes are measured again, with the same result.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _BEST
        self.accuracies: dict[int, float] = {}
        file = self._folder / _ACCURACIES
        if file.is_file():
            self.accuracies = {int(k): v for k, v in json.loads(file.read_text(encoding="utf-8")).items()}

    @property
    def weights(self) -> Path:
        """The file of the best weights."""
        return self._folder / WEIGHTS_FILE

    def best_step(self, until: int | None = None) -> int | None:
        """Return the step with the best accuracy up to a step."""
        known = {s: a for s, a in self.accuracies.items() if until is None or s <= until}
        return min(known, key=lambda s: (-known[s], s), default=None)

    def worse_since(self, step: int) -> int:
        """Return how many validations after the best one, up to this step, were no better."""
        best = self.best_step(step)
        return sum(best is not None and best < s <= step for s in self.accuracies)

    def note(self, step: int, accuracy: float) -> bool:
        """Record an accuracy. Return whether it is the best so far, so that its weights must be saved (`weights`)."""
        self.accuracies[step] = accuracy
        return self.best_step(step) == step

    def save(self) -> None:
        """Write the accuracies."""
        write_json(self._folder / _ACCURACIES, {str(s): a for s, a in sorted(self.accuracies.items())})
