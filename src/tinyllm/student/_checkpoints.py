"""What a training leaves behind while it runs, so that it can go on from there: `checkpoints/` in the run folder.

checkpoints/
  fingerprint       of everything that is learnt; checkpoints of another one are discarded
  checkpoint-N/     after step N; whole once it has `trainer_state.json`, which is written last
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
    """Discard checkpoints of a training on other targets; going on from them would mix the two."""
    note = folder / "fingerprint"
    if folder.is_dir() and (not note.is_file() or note.read_text(encoding="utf-8") != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, key)


def checkpoint_of_another(folder: Path, key: str) -> int:
    """Return the steps of the newest checkpoint of a run if it is of a training on other targets; else 0."""
    note = folder / FOLDER / "fingerprint"
    is_of_this = note.is_file() and note.read_text(encoding="utf-8") == key
    return 0 if is_of_this else steps_done(newest_checkpoint(folder / FOLDER))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; one cut short by a crash lacks the state that is written last."""
    whole = [c for c in folder.glob("checkpoint-*") if steps_done(c) > 0]
    return max(whole, key=steps_done, default=None)


def steps_done(checkpoint: Path | None) -> int:
    """Return the optimizer steps before a checkpoint; 0 where there is none, or only a part of one."""
    if checkpoint is None:
        return 0
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return 0


def discard_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished training.

    Args:
        folder: of the run.
    """
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


# --- weights ------------------------------------------------------------------------------------------------------


def trained_weights(module: nn.Module, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return what is trained and nothing else, on the CPU: all weights, or the adapters. Shards are put together.

    Args:
        state: the module's whole state, where somebody has put its shards together already.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    found = {name: whole(p) if state is None else state[name] for name, p in trained.items()}
    return {name: p.detach().contiguous().cpu() for name, p in found.items()}


def gathered_weights(module: nn.Module) -> dict[str, Tensor] | None:
    """Return what is trained, put together, where several processes hold it as shards (FSDP); else None."""
    return trained_weights(module) if is_sharded(module) else None


def write_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """Write weights, whole or not at all."""
    with replacing(file) as draft:
        save_file(dict(weights), draft)


def load_weights(module: nn.Module, file: Path) -> None:
    """Put back what was trained."""
    put_weights(module, load_file(file))


def put_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module weights by their names; it keeps the others."""
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


def is_sharded(module: nn.Module) -> bool:
    """Whether several processes hold a module's weights together (FSDP)."""
    return any(hasattr(p, "full_tensor") for p in module.parameters())


def whole(parameter: Tensor) -> Tensor:
    """Return a parameter that processes may share as shards (FSDP), put together; a collective operation then."""
    put_together = getattr(parameter, "full_tensor", None)
    found: Tensor = parameter if put_together is None else put_together()
    return found


# --- the best so far ----------------------------------------------------------------------------------------------


class Best:
    """The best weights by validation accuracy, on the disk; the first of equals counts.

    What was found at later steps than a training resumes from is found again, and the same.
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
        """Return the step with the best accuracy, of those until a step."""
        known = {s: a for s, a in self.accuracies.items() if until is None or s <= until}
        return min(known, key=lambda s: (-known[s], s), default=None)

    def worse_since(self, step: int) -> int:
        """Return how many looks in a row, the one at this step the last, were no better than the best before them."""
        best = self.best_step(step)
        return sum(best is not None and best < s <= step for s in self.accuracies)

    def note(self, step: int, accuracy: float) -> bool:
        """Keep an accuracy; True if its weights are the best so far and are to be saved (`weights`)."""
        self.accuracies[step] = accuracy
        return self.best_step(step) == step

    def save(self) -> None:
        """Write the accuracies."""
        write_json(self._folder / _ACCURACIES, {str(s): a for s, a in sorted(self.accuracies.items())})
