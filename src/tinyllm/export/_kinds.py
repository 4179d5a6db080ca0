"""The formats, and the precisions that each can be written in."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS: Mapping[str, tuple[str, ...]] = {
    "merged": ("fp32", "bf16"),
    "gguf": ("f16", "f32", "q8_0", "q4_k_m", "q4_0"),
    "onnx": ("fp32", "int8"),
    "ctranslate2": ("fp32", "int8"),
}
"""By name; the first precision is what is written unless another is asked for."""
