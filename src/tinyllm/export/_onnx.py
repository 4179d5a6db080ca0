"""The ONNX format: a writer, and a runtime that computes the export with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tinyllm.errors import StudentError
from tinyllm.export._graph import OUTPUT, GraphRuntime, exporting, graph, require
from tinyllm.student.encode import Encoder
from tinyllm.student.model import Student, StudentCard


def write_onnx(student: Student, file: Path, quantise: str) -> None:
    """Write a student as an ONNX file.

    Args:
        quantise: fp32, or int8 (the weights of matrix products have 8 bits).

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        StudentError: torch cannot trace this model.
    """
    require("onnx", "onnx", "onnxscript", "onnxruntime")
    traced = graph(student)
    with exporting("ONNX"):
        program = torch.onnx.export(
            traced.module, traced.given, input_names=[*traced.shapes], output_names=[OUTPUT],
            dynamic_shapes=dict(traced.shapes), dynamo=True, verbose=False,
        )  # fmt: skip
        assert program is not None  # noqa: S101 - None is returned without dynamo only
        program.save(str(file), external_data=True)
        if quantise == "int8":
            _quantise(file)


def _quantise(file: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    whole = file.with_name(f"whole-{file.name}")
    file.rename(whole)
    quantize_dynamic(whole, file, weight_type=QuantType.QInt8, use_external_data_format=False)
    for left in (whole, file.with_name(f"{file.name}.data")):
        left.unlink(missing_ok=True)


class OnnxRuntime(GraphRuntime):
    """An ONNX file that onnxruntime computes on the CPU."""

    name = "onnxruntime"

    def __init__(self, file: Path, card: StudentCard, encoder: Encoder, *, start: int | None) -> None:
        super().__init__(card, encoder, start=start)
        require("onnx", "onnxruntime")
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise StudentError(f"onnxruntime cannot load {file}: {error}. Export the student again.") from error

    def compute(self, inputs: Mapping[str, Any]) -> Any:
        """Return the log-probabilities."""
        return self._session.run(None, dict(inputs))[0]
