"""Models that transformers runs in this process, in batches: causal models and encoder-decoders (FLAN-T5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tinyllm import config
from tinyllm.config import Form
from tinyllm.errors import TeacherError
from tinyllm.system.packaged import folder_checksum
from tinyllm.teachers.batching import Answer, BatchingTeacher


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
        import torch

        wanted = (self._spec.device or "cpu").partition(":")[0]
        best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        there = ["cpu"] if best is None else ["cpu", best.type]
        if wanted not in there:
            raise TeacherError(
                f"Teacher '{self.name}': there is no device '{self._spec.device}' here; there is {', '.join(there)}."
            )

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
