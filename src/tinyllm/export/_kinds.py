"""The export formats, and the precisions of each."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, tuple[str, ...]] = {
    "merged": ("fp32", "bf16"),
    "gguf": ("f16", "f32", "q8_0", "q4_k_m", "q4_0"),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "f16", "int8"),
    "ctranslate2": ("fp32", "int8"),
}
"""The precisions by format. The first one is the default."""
