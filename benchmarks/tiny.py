"""Tiny models of any architecture of transformers, built from its configuration class: small sizes, short windows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

VOCABULARY = 259
BOUND = 12  # tokens of every window, chunk and capacity
POSITIONS = 96  # tokens that rows may have

# Names of a configuration's fields, and what they become. The first pattern that matches counts.
_SIZES: tuple[tuple[str, Any], ...] = (
    (r"^(vocab_size|src_vocab_size|tgt_vocab_size|n_vocab|text_vocab_size|vocab_size_per_layer_input)$", VOCABULARY),
    (r"^(bos|pad|eos|sep|cls|unk|decoder_start)_token_id$", None),  # set apart below
    (r"(drop|pdrop|dropout|jitter|noise)", 0.0),
    (r"layerdrop", 0.0),
    (r"^(max_position_embeddings|n_positions|max_seq_len|max_(en|de)coder_position_embeddings|seq_length)$", POSITIONS),
    (r"^original_max_position_embeddings$", 2 * BOUND),
    (r"(sliding_window|attention_window|window_size|keep_window|local_attention)", BOUND),
    (r"(index_topk|expert_capacity|index_top_k)", BOUND),
    (r"(chunk_size|chunk_length|block_size|block_length|local_radius)", 16),
    (r"^(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers|num_(en|de)coder_layers|num_blocks)$", 2),
    (r"^(hidden_size|d_model|n_embd|dim|embed_dim|emb_dim|word_embed_proj_dim|embedding_size|d_embed|dim_model)$", 32),
    (r"^(attention_hidden_size|lru_width|input_embedding_size|output_embedding_size)$", 32),
    (r"(intermediate_size|ffn_dim|d_ff|dff|d_inner|n_inner|ffn_hidden|ffn_size|feed_forward_size|dim_ff)", 32),
    (r"^(num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads)$", 4),
    (r"^num_(en|de)coder_attention_heads$", 4),
    (r"^(num_key_value_heads|n_kv_heads|kv_n_heads|num_kv_heads)$", 2),
    (r"^(head_dim|d_kv|attention_head_size|qk_nope_head_dim|qk_rope_head_dim|v_head_dim|kv_channels)$", 8),
    (r"^(index_head_dim|global_head_dim|swa_head_dim|attention_head_dim|dim_head)$", 8),
    (r"^qk_head_dim$", 16),
    (r"^(index_n_heads)$", 2),
    (r"(lora_rank|_rank)$", 8),
    (r"^(n_routed_experts|num_experts|num_local_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|moe_topk|moe_k|moe_top_k|top_k_experts)$", 2),
    (r"^(n_group|topk_group|num_expert_group)$", 1),
    (r"^(state_size|ssm_state_size|mamba_d_state)$", 8),
    (r"^rotary_dim$", 4),
    (r"^num_buckets$", 4),
)


def architectures() -> list[tuple[str, str]]:
    """Return (kind, model type) of every causal and encoder-decoder architecture of transformers."""
    causal = [("causal", name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    return causal + [("encoder-decoder", name) for name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES]


def tiny_config(name: str, overrides: Mapping[str, Any] | None = None) -> Any:
    """Return a small configuration of a model type; raises what transformers raises where it can't be made.

    Args:
        overrides: fields that are set after the others.
    """
    kind = CONFIG_MAPPING[name]
    usual = kind().to_dict()
    small = _shrunk(usual)
    return kind.from_dict({**small, **(_OVERRIDES.get(name) or {}), **(overrides or {})})


def _shrunk(values: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in _LEFT_OUT:
            made[name] = _shrunk(value) if isinstance(value, Mapping) else _small(name, value)
    depth = next((n for n in _DEPTH if isinstance(values.get(n), int)), None)
    if depth is not None:
        _cut_layers(made, values, depth)
    for name, token in (("bos_token_id", 2), ("eos_token_id", 1), ("pad_token_id", 0)):
        if name in made:
            made[name] = token
    if "decoder_start_token_id" in made or made.get("is_encoder_decoder"):
        made["decoder_start_token_id"] = 0
    if "kv_lora_rank" in made and "num_key_value_heads" in made:  # latent attention has as many keys as queries
        made["num_key_value_heads"] = made.get("num_attention_heads")
    return made


def _cut_layers(made: dict[str, Any], values: Mapping[str, Any], depth: str) -> None:
    """Keep as many layers as there are kinds of them, and at least two; cut every list that has an entry a layer."""
    lists = {n: v for n, v in values.items() if isinstance(v, list) and len(v) == values[depth]}
    kinds = {n: list(dict.fromkeys(v)) for n, v in lists.items() if v and isinstance(v[0], str)}
    layers = max([2, *map(len, kinds.values())])
    made[depth] = layers
    for name in lists:
        some = kinds.get(name, made[name])
        made[name] = (some + some[-1:] * layers)[:layers]
    if isinstance(per_layer := values.get("per_layer_config"), Mapping):
        first = next(iter(per_layer.values()))
        made["per_layer_config"] = {layers - 1: _shrunk(first)}


_DEPTH = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_blocks")
_LEFT_OUT = (
    "id2label",
    "label2id",
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "sep_token_id",
    "cls_token_id",
)


def _small(name: str, value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    for pattern, size in _SIZES:
        if re.search(pattern, name):
            if size is None or (isinstance(value, list) and not all(isinstance(v, int) for v in value)):
                return value
            if isinstance(value, list):
                return [min(v, size) for v in value]
            return type(value)(min(value, size)) if isinstance(value, int | float) else value
    return value


def tiny_architecture(name: str, kind: str, overrides: Mapping[str, Any] | None = None, seed: int = 0) -> Any:
    """Return a tiny model of a type, with weights large enough that what a token sees makes a difference."""
    torch.manual_seed(seed)
    auto: Any = AutoModelForSeq2SeqLM if kind == "encoder-decoder" else AutoModelForCausalLM
    model = auto.from_config(tiny_config(name, overrides), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in _distinct(model.parameters()):
            if parameter.is_floating_point():  # also what begins as zero, such as a gate
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def _distinct(parameters: Iterable[torch.nn.Parameter]) -> Iterable[torch.nn.Parameter]:
    return {id(p): p for p in parameters}.values()


_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "layer_types": ["mamba", "attention"],
    },
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "xlnet": {"d_head": 8},
    "hunyuan_v1_dense": {"rope_parameters": _ROPE, "head_dim": 8},
    "hunyuan_v1_moe": {"rope_parameters": _ROPE, "head_dim": 8},
    "ministral": {"rope_parameters": _ROPE, "head_dim": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "rope_parameters": _ROPE},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "kimi_linear": {"num_experts_per_token": 2, "num_experts": 4},
    "xlstm": {"hidden_size": 32, "embedding_dim": 32, "num_heads": 4, "num_blocks": 2},
    "reformer": {"is_decoder": True},
    "nemotron": {"num_key_value_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "dots3_note_text": {"num_key_value_heads": 4, "swa_head_dim": 16, "head_dim": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
}
"""What some types need besides, because their fields depend on one another."""
