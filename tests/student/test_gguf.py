"""GGUF files as students: what is read fast is what transformers reads."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tinyllm.student._gguf import read_gguf

WIDTH, INNER, HEADS = 64, 64, 2


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A Llama of two layers in a GGUF file, some of its weights quantised."""
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokens = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    kinds = gguf.GGMLQuantizationType

    def add(name: str, *shape: int) -> None:
        weights = draw.normal(size=shape).astype(np.float32)
        kind = kinds.Q8_0 if len(shape) == 2 else kinds.F32
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), WIDTH)
    add("output_norm.weight", WIDTH)
    for block in range(2):
        for name, shape in {
            "attn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH // 2, WIDTH),
            "attn_v": (WIDTH // 2, WIDTH), "attn_output": (WIDTH, WIDTH), "ffn_norm": (WIDTH,),
            "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER),
        }.items():  # fmt: skip
            add(f"blk.{block}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_is_read_is_what_transformers_reads(file, tmp_path):
    tokenizer, model = read_gguf(file)
    plain = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    assert tokenizer("the thing")["input_ids"] == plain("the thing")["input_ids"]
    assert tokenizer.get_vocab() == plain.get_vocab()
    weights = loaded.state_dict()
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(found, weights[name]) for name, found in model.state_dict().items())
    model.save_pretrained(tmp_path)  # which transformers refuses for the model that it loads
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.arange(5, 25)[None]
    assert torch.equal(again(tokens).logits, loaded(tokens).logits)


def test_the_package_is_as_it_was_afterwards(file):
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    read_gguf(file)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
