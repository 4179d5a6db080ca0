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

_INT8 = 4  # onnxruntime's name for the arithmetic of matrix products in 8 bits


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
    """Give the weights of matrix products 8 bits, with a scale for each block of 32.

    Only weights are rounded beforehand. onnxruntime rounds activations block by block, too, as it computes. Its dynamic
    quantization has one scale for a whole matrix of activations. With it, 30 % of a trained student's choices changed.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(file)
    MatMulNBitsQuantizer(model, bits=8, block_size=32, is_symmetric=True, accuracy_level=_INT8).process()
    weights = f"{file.name}.data"
    file.with_name(weights).unlink()
    onnx.save(model, file, save_as_external_data=True, location=weights)


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
