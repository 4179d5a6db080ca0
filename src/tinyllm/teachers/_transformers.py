"""Models that transformers runs in this process, in batches: causal models and encoder-decoders (FLAN-T5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import TeacherError
from tinyllm.system.packaged import folder_checksum
from tinyllm.teachers.batching import Answer, BatchingTeacher

if TYPE_CHECKING:
    import torch


class TransformersTeacher(BatchingTeacher):
    """Loads a model from the hub or a folder when entered."""

    def __init__(self, spec: config.TransformersTeacher) -> None:
        super().__init__(spec.name, spec.batch_size)
        self._spec = spec
        self.form: Form = spec.form
        self.stop = spec.stop
        self._weights = folder_checksum(Path(spec.model).expanduser())

    def check(self) -> None:
        """Raise `TeacherError` if the device does not exist. The model is checked when it is loaded."""
        device_of(self._spec)

    @property
    def identity(self) -> Mapping[str, str]:
        """Model, revision and dtype. For a folder, the checksum of its files replaces the path."""
        spec = self._spec
        if self._weights is not None:
            return {"kind": "transformers", "sha256": self._weights, "dtype": spec.dtype}
        return {"kind": "transformers", "model": spec.model, "revision": spec.revision or "main", "dtype": spec.dtype}

    def _load(self) -> Answer:
        from tinyllm.teachers._local_model import LocalModel

        return LocalModel(self._spec).answer


def device_of(spec: config.TransformersTeacher) -> torch.device:
    """Return the configured device, or else the best one of this machine.

    Raises:
        TeacherError: there is no such device.
    """
    import torch

    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if spec.device is None:
        return torch.device(next(kind for kind, there in has.items() if there))
    try:
        device = torch.device(spec.device)
    except RuntimeError:
        raise TeacherError(f"Teacher '{spec.name}': no device '{spec.device}'. Use cpu, cuda, cuda:1 or mps.") from None
    if not has.get(device.type, True) or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        there = ", ".join(kind for kind, is_there in has.items() if is_there)
        raise TeacherError(f"Teacher '{spec.name}': torch finds no device '{spec.device}' here. Available: {there}.")
    return device
