"""Small configurations are valid ones: fields that are worked out of others follow them, whatever part they are in."""

from __future__ import annotations

import pytest
from benchmarks.tiny import BOUND, architectures, tiny_config
from huggingface_hub.errors import StrictDataclassError


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("hrm_text", lambda c: (c.num_hidden_layers, c.num_layers_per_stack * c.H_cycles * (c.L_cycles + 1))),
        ("zamba2", lambda c: (c.mamba_headdim * c.n_mamba_heads, c.mamba_expand * c.hidden_size)),
        ("zamba2", lambda c: (c.hybrid_layer_ids, [1, 3])),
        ("bailing_hybrid", lambda c: (c.num_experts_per_tok, 2)),
        ("dots3_note", lambda c: (c.vision_config.adapter_out_dim, c.text_config.hidden_size)),
        ("qwen4_exp", lambda c: (c.text_config.indexer_budget, BOUND)),
        ("gemma3", lambda c: (c.text_config.sliding_window, BOUND)),
        ("nemo_speechlm", lambda c: (c.audio_config.diarization_config.chunk_length, 500)),
        ("fsmt", lambda c: (c.decoder_start_token_id, c.eos_token_id)),
        ("t5", lambda c: (c.decoder_start_token_id, c.pad_token_id)),
    ],
)
def test_fields_that_depend_on_one_another_agree(name, same):
    found, expected = same(tiny_config(name))
    assert found == expected


def test_every_configuration_but_an_assistants_can_be_small():
    failed = []
    for _, name in architectures():
        try:
            tiny_config(name)
        except StrictDataclassError:
            failed.append(name)
    assert failed == ["gemma4_assistant"]
