"""Writes a student as a GGUF file for llama.cpp and Ollama: weights, tokenizer and chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch

from tinyllm.errors import StudentError
from tinyllm.export._kquants import BLOCK, q4_k, q6_k
from tinyllm.student.model import Student

_NO_MERGE = "Ā Ā"  # llama.cpp needs at least one merge. This one merges two zero bytes, which texts do not have.
_SMALL_BLOCK = 32  # weights in a block of the formats without K in their names
_QUANTISED = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q4_k_m": gguf.GGMLQuantizationType.Q4_K,
}
_FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "q4_k_m": gguf.LlamaFileType.MOSTLY_Q4_K_M,
}
_ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
_QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"


def chat_template(before: str, after: str) -> str:
    """Return the template that makes a prompt of the user's message. System messages are ignored."""
    said = f"{json.dumps(before)} + m['content'].rstrip('\\n') + {json.dumps(after, ensure_ascii=False)}"
    return "{% for m in messages %}{% if m['role'] == 'user' %}{{ " + said + " }}{% endif %}{% endfor %}"


def write_gguf(student: Student, file: Path, quantise: str, name: str, around: tuple[str, str]) -> None:
    """Write a student as a GGUF file.

    Args:
        around: the texts before and after a user's message. The chat template adds them.

    Raises:
        StudentError: the architecture or the tokenizer of the student is not supported.
    """
    config = student.model.config
    architecture = _ARCHITECTURES.get(str(config.model_type))
    if architecture is None:
        raise StudentError(
            f"The GGUF export does not support models of type '{config.model_type}'. Supported: "
            f"{', '.join(_ARCHITECTURES)}. Use --to onnx, openvino or merged."
        )
    if getattr(config, "rope_scaling", None) and config.rope_scaling.get("rope_type", "default") != "default":
        raise StudentError(
            "The GGUF export does not support models with scaled positions, and this one has "
            f"rope_type '{config.rope_scaling['rope_type']}'. Use --to onnx, openvino or merged."
        )
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[quantise])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_sizes(writer, config)
    _write_tokenizer(writer, student, chat_template(*around))
    _write_weights(writer, student.model, architecture, quantise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    theta = getattr(config, "rope_theta", None)
    if theta is None:
        theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta", 10_000.0)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(theta))
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_vocab_size(config.vocab_size)


def _write_weights(writer: gguf.GGUFWriter, model: Any, architecture: gguf.MODEL_ARCH, quantise: str) -> None:
    config = model.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    tied = bool(config.tie_word_embeddings)
    turn: Mapping[str, int] = (
        {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        if architecture == gguf.MODEL_ARCH.LLAMA
        else {}
    )
    for name, weight in model.state_dict().items():
        if (tied and name == "lm_head.weight") or "rotary_emb" in name:
            continue
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise StudentError(
                f"The GGUF export does not support this model: the format has no weight '{name}'. Use --to "
                "onnx, openvino or merged."
            )
        part = name.split(".")[-2]
        values = _rotated(weight, turn[part]) if part in turn else weight
        array = values.detach().to(torch.float32).cpu().numpy()
        kind = _kind(known, array, quantise, config.num_hidden_layers, tied)
        writer.add_tensor(known, _quantised(array, kind), raw_dtype=kind)


def _kind(name: str, array: Any, quantise: str, layers: int, tied: bool) -> Any:
    """Return the precision of one weight. The rules are those of llama.cpp's own quantiser."""
    kinds = gguf.GGMLQuantizationType
    if array.ndim < 2:
        return kinds.F32
    kind = _QUANTISED[quantise]
    if quantise == "q4_k_m":
        parts = name.split(".")
        is_output = name == "output.weight" or (tied and name == "token_embd.weight")
        is_sensitive = parts[-2] in ("attn_v", "ffn_down") and _gets_more_bits(int(parts[1]), layers)
        kind = kinds.Q6_K if is_output or is_sensitive else kinds.Q4_K
        if array.shape[1] % BLOCK:
            kind = kinds.Q8_0 if kind == kinds.Q6_K else kinds.Q5_0
    if kind not in (kinds.F32, kinds.F16) and array.shape[1] % _SMALL_BLOCK:
        kind = kinds.F16
    return kind


def _gets_more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def _quantised(array: Any, kind: Any) -> Any:
    if kind == gguf.GGMLQuantizationType.Q4_K:
        return q4_k(array)
    if kind == gguf.GGMLQuantizationType.Q6_K:
        return q6_k(array)
    return gguf.quants.quantize(array, kind)


def _rotated(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a projection with the rows of each head in llama.cpp's order.

    For rotary positions, llama.cpp pairs neighbouring rows. transformers pairs row i with row i + half.
    """
    rows = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, rows, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _write_tokenizer(writer: gguf.GGUFWriter, student: Student, template: str) -> None:
    fast = getattr(student.tokenizer, "backend_tokenizer", None)
    spec = json.loads(fast.to_str()) if fast is not None else {"model": {}}
    if spec["model"].get("type") != "BPE" or spec["model"].get("byte_fallback"):
        raise StudentError(
            "The GGUF export supports byte-level BPE tokenizers only, and the student has another one "
            f"({spec['model'].get('type') or type(student.tokenizer).__name__}). Use --to onnx, openvino or merged."
        )
    size = int(student.model.config.vocab_size)
    added = {int(t["id"]): t for t in spec.get("added_tokens", ())}
    by_id = {place: token for token, place in spec["model"]["vocab"].items()}
    kinds = dict.fromkeys(by_id, gguf.TokenType.NORMAL)
    for place, token in added.items():
        by_id[place] = token["content"]
        kinds[place] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(spec.get("pre_tokenizer") or {}))
    writer.add_token_list([by_id.get(place, f"[PAD{place}]") for place in range(size)])
    writer.add_token_types([kinds.get(place, gguf.TokenType.UNUSED) for place in range(size)])
    writer.add_token_merges(merges or [_NO_MERGE])
    tokenizer = student.tokenizer
    for role in ("bos", "eos", "pad", "unk"):
        if (token := getattr(tokenizer, f"{role}_token_id")) is not None:
            getattr(writer, f"add_{role}_token_id")(int(token))
    begins = tokenizer("a", add_special_tokens=True)["input_ids"][:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(bool(begins and tokenizer.bos_token_id is not None))
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)


def _pre_tokenizer(spec: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of the rule that splits a text into words, before the words become tokens."""
    steps = spec.get("pretokenizers", [spec])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex", "")
        if pattern.startswith(_LLAMA3):
            return "llama-bpe"
        if pattern.startswith(_QWEN2):
            return "qwen2"
    raise StudentError(
        f"The GGUF export does not support the word splitting of this tokenizer ({', '.join(map(str, kinds))}). "
        "Supported: that of GPT-2, SmolLM, Llama 3 and Qwen2. Use --to onnx, openvino or merged."
    )
