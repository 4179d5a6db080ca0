"""Tiny models of any architecture of transformers, built from its configuration class: small sizes, short windows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig
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
    (r"^((out_|audio_)?hidden_size|hidden_size_global|d_model|n_embd|dim|embed_dim|emb_dim|d_embed|dim_model)$", 32),
    (r"^(word_embed_proj_dim|((in|out)put_)?embedding_size|adapter_(in|out)_dim|adapter_input_size)$", 32),
    (r"(intermediate_size|ffn_dim|d_ff|dff|d_inner|n_inner|ffn_hidden|ffn_size|feed_forward_size|dim_ff)", 32),
    (r"^(num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads)$", 4),
    (r"^num_(en|de)coder_attention_heads$", 4),
    (r"^(num_key_value_heads|n_kv_heads|kv_n_heads|num_kv_heads)$", 2),
    (r"^(head_dim|d_kv|attention_head_size|qk_nope_head_dim|qk_rope_head_dim|v_head_dim|kv_channels)$", 8),
    (r"^(index_head_dim|global_head_dim|swa_head_dim|dim_head)$", 8),
    (r"^qk_head_dim$", 16),
    (r"^linear_(key_|value_)?head_dim$", 8),
    (r"^linear_num_(key_)?heads$", 2),
    (r"^linear_num_value_heads$", 4),
    (r"^(index_n_heads)$", 2),
    (r"rank$", 8),
    (r"^(n_routed_experts|num_experts|num_local_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok(en)?|moe_topk|moe_k|moe_top_k|top_k_experts)$", 2),
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
    return kind.from_dict({**_shrunk(kind()), **(overrides or {})})


def _shrunk(config: PreTrainedConfig, reads_text: bool = True) -> dict[str, Any]:
    """Return the fields of a configuration, and of those inside it, with small sizes."""
    values = config.to_dict()
    depth = next((n for n in _DEPTH if isinstance(values.get(n), int)), "")
    of_layers = {n for n, v in values.items() if depth and isinstance(v, list) and len(v) == values[depth]}
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name in _LEFT_OUT or (name not in of_layers and _is_derived(config, name, value)):
            continue
        part = getattr(config, name, None) if isinstance(value, Mapping) else None
        of_text = reads_text and not _OTHER.search(name)
        made[name] = _shrunk(part, of_text) if isinstance(part, PreTrainedConfig) else _small(name, value, of_text)
    if depth:
        _cut_layers(made, values, depth, of_layers)
    specials = [(name, token, values[name]) for name, token in _SPECIAL if name in made]
    made |= {name: token for name, token, _ in specials}
    start, begins = values.get("decoder_start_token_id"), values.get("bos_token_id")
    if start is not None or (made.get("is_encoder_decoder") and begins is None):
        made["decoder_start_token_id"] = next((t for _, t, usual in specials if usual == start is not None), 0)
    return {**_with_latent_heads(made), **_OVERRIDES.get(config.model_type, {})}


def _with_latent_heads(made: dict[str, Any]) -> dict[str, Any]:
    """Latent attention has as many heads of keys as of queries."""
    latent = {"kv_lora_rank", "num_key_value_heads"} <= made.keys()
    return {**made, "num_key_value_heads": made.get("num_attention_heads")} if latent else made


def _is_derived(config: PreTrainedConfig, name: str, value: Any) -> bool:
    """Whether a configuration works a field out of others, so that it does so anew when they are small."""
    if value is None or isinstance(value, Mapping) or any(re.search(pattern, name) for pattern, _ in _SIZES):
        return False
    declared = type(config).__dataclass_fields__
    names = [name, *(public for public, stored in config.attribute_map.items() if stored == name)]
    return all(declared[n].default is None for n in names if n in declared)


def _cut_layers(made: dict[str, Any], values: Mapping[str, Any], depth: str, of_layers: Iterable[str]) -> None:
    """Keep as many layers as there are kinds of them, and at least two; cut every list that has an entry a layer."""
    lists = {n: values[n] for n in of_layers}
    kinds = {n: list(dict.fromkeys(v)) for n, v in lists.items() if v and isinstance(v[0], str)}
    layers = max([2, *map(len, kinds.values())])
    made[depth] = layers
    for name in lists:
        some = kinds.get(name, made[name])
        made[name] = (some + some[-1:] * layers)[:layers]
    if isinstance(per_layer := values.get("per_layer_config"), Mapping):
        first = next(iter(per_layer.values()))
        made["per_layer_config"] = {layers - 1: _small("", first)}


_OTHER = re.compile(r"audio|vision|speech|acoustic|diarization")  # parts that read no text, whose chunks are no tokens
_SPECIAL = (("pad_token_id", 0), ("eos_token_id", 1), ("bos_token_id", 2))
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


def _small(name: str, value: Any, reads_text: bool = True) -> Any:
    if isinstance(value, Mapping):
        return _with_latent_heads({n: _small(str(n), v, reads_text) for n, v in value.items()})
    if isinstance(value, bool) or value is None or isinstance(value, str) or (not reads_text and "chunk" in name):
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
    "hunyuan_v1_dense": {"rope_parameters": _ROPE, "head_dim": 8},
    "hunyuan_v1_moe": {"rope_parameters": _ROPE, "head_dim": 8},
    "ministral": {"rope_parameters": _ROPE, "head_dim": 8},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "rope_parameters": _ROPE},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "xlstm": {"hidden_size": 128},  # of 64 times the heads
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, POSITIONS // 8]},
    "nemotron": {"num_key_value_heads": 2},
    "xmod": {"default_language": "en_XX"},
    "dots3_note_text": {"num_key_value_heads": 4, "swa_head_dim": 16, "head_dim": 16},
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"sliding_attention": {**_ROPE, "mrope_section": [2, 1, 1]}, "full_attention": None},
    },
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "indexed_attention"],
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": BOUND,
        "indexer_compress_ratio": 4,
        "ple_layer_ids": [1],
        "heads_per_ngram": 2,
        "ngram_vocab_size_base": 64,
    },
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "switch_transformers": {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 2, "depths": [1] * 7},
    "nemotron3_5_transcribe_word_timestamp": {"blank_token_id": VOCABULARY - 1},
    "gemma3n_text": {"num_kv_shared_layers": 0},
}
"""What some types need besides, because their fields depend on one another."""
