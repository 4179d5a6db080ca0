"""The format of OpenVINO: a writer, and a runtime that computes the export."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyllm.errors import StudentError
from tinyllm.export._graph import OUTPUT, GraphRuntime, exporting, graph, require
from tinyllm.student.encode import Encoder
from tinyllm.student.model import Student, StudentCard

# Without these, the plugin computes in bf16 or f16 where the processor can, and rounds what is multiplied with weights
# of 8 bits: the answers then depend on the machine.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


def write_openvino(student: Student, file: Path, quantise: str) -> None:
    """Write a student as an .xml file with a .bin file beside it.

    Args:
        quantise: fp32, f16 (weights), or int8 (the weights of matrix products, and the embeddings).

    Raises:
        MissingDependencyError: openvino is not installed.
        StudentError: torch cannot trace this model, or OpenVINO cannot convert it.
    """
    openvino = _openvino()
    traced = graph(student)
    with exporting("OpenVINO"):
        program = torch.export.export(traced.module, traced.given, dynamic_shapes=dict(traced.shapes))
        model = openvino.convert_model(program)
        model.outputs[0].get_tensor().set_names({OUTPUT})
        if quantise == "int8":
            _quantise(model)
        openvino.save_model(model, file, compress_to_fp16=quantise == "f16")


def _quantise(model: Any) -> None:
    """Give the numbers of each weight 8 bits, and each output or token a scale. OpenVINO knows this form."""
    from openvino import opset13 as ops

    whole: dict[str, Any] = {}
    for node in model.get_ordered_ops():
        if (place := {"MatMul": 1, "Gather": 0}.get(node.get_type_name())) is None:
            continue
        weight = node.input_value(place).get_node()
        if weight.get_type_name() != "Constant" or len(weight.get_output_shape(0)) != 2:
            continue
        if (name := weight.get_friendly_name()) not in whole:
            values = weight.get_data().astype(np.float32)
            axis = 1 if place == 0 or node.get_attributes()["transpose_b"] else 0
            scale = np.maximum(np.abs(values).max(axis, keepdims=True), 1e-12) / 127
            packed = ops.constant(np.rint(values / scale).astype(np.int8), dtype=np.int8)
            whole[name] = ops.multiply(ops.convert(packed, "f32"), ops.constant(scale, dtype=np.float32))
        node.input(place).replace_source_output(whole[name].output(0))


class OpenVinoRuntime(GraphRuntime):
    """An OpenVINO model that is computed on the CPU."""

    name = "OpenVINO"

    def __init__(self, file: Path, card: StudentCard, encoder: Encoder, *, start: int | None) -> None:
        super().__init__(card, encoder, start=start)
        openvino = _openvino()
        try:
            self._model = openvino.compile_model(file, "CPU", _EXACT)
        except RuntimeError as error:
            raise StudentError(f"OpenVINO cannot load {file}: {error}. Export the student again.") from error

    def compute(self, inputs: Mapping[str, Any]) -> Any:
        """Return the log-probabilities."""
        return self._model(dict(inputs))[0]


def _openvino() -> Any:
    """Import OpenVINO, without its package that tells Intel of each import and each conversion."""
    require("openvino", "openvino")
    absent: Any = None  # an import of this package then fails, and OpenVINO does without it
    sys.modules.setdefault("openvino_telemetry", absent)
    import openvino

    return openvino
