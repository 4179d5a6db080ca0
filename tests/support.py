"""Tiny real models and questions for the tests: two layers, a few dimensions, a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from tinyllm.config import task_prefixes
from tinyllm.config._student import PrefixesSection
from tinyllm.questions import Question
from tinyllm.rationales.types import Rationale
from tinyllm.student.model import Student, StudentCard, save_student

TEACHERS = ("ada", "bob")
FAMILIES = ("t5", "llama", "gemma3", "qwen2")
MORE_FAMILIES = (*FAMILIES, "qwen3", "gpt2", "bart")
_SPECIAL = ("<pad>", "</s>", "<unk>")


def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).parents[1]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer: any text, a vocabulary of 259."""
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=4096
    )


def tiny_model(family: str, seed: int = 0, dropout: float = 0.0, width: int = 16) -> torch.nn.Module:
    """A two-layer model of a family, without dropout unless asked, so that two computations can be compared."""
    torch.manual_seed(seed)
    size = {"vocab_size": 259, "pad_token_id": 0, "eos_token_id": 1}
    shape = {
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
    }
    if family == "t5":
        config = T5Config(
            d_model=width, d_kv=width // 2, d_ff=32, num_layers=2, num_heads=2, dropout_rate=dropout,
            decoder_start_token_id=0, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **size,
        )  # fmt: skip
        return T5ForConditionalGeneration(config)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(attention_dropout=dropout, **shape, **size))
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(attention_dropout=dropout, **shape, **size))
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(head_dim=width // 2, attention_dropout=dropout, **shape, **size))
    if family == "gpt2":
        drop = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
        return GPT2LMHeadModel(
            GPT2Config(n_embd=width, n_layer=2, n_head=2, n_positions=4096, bos_token_id=None, **drop, **size)
        )
    if family == "bart":
        layers = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
        config = BartConfig(
            d_model=width, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=4096, dropout=dropout,
            decoder_start_token_id=1, bos_token_id=None, **layers, **size,
        )  # fmt: skip
        return BartForConditionalGeneration(config)
    if family == "gemma3":
        kinds = ["sliding_attention", "full_attention"]
        return Gemma3ForCausalLM(
            Gemma3TextConfig(head_dim=width // 2, sliding_window=16, layer_types=kinds, **shape, **size)
        )
    raise ValueError(family)


def tiny_student(
    family: str, seed: int = 0, teachers: Sequence[str] = TEACHERS, dropout: float = 0.0, width: int = 16
) -> Student:
    """A tiny student with the prefixes of the given teachers."""
    card = StudentCard(prefixes=task_prefixes(PrefixesSection(), teachers))
    return Student(tiny_model(family, seed, dropout, width), tiny_tokenizer(), card)


def saved_student(folder: Path, **card: object) -> Path:
    """A tiny causal student in a folder, as training saves it. `card` are fields of its card."""
    student = tiny_student("llama")
    student.card = replace(student.card, **card)
    save_student(student, folder, "a card")
    return folder


def save_tiny(folder: Path, family: str, seed: int = 0, dropout: float = 0.0) -> Path:
    """A tiny model and its tokenizer in a folder, as if it came from the hub."""
    tiny_model(family, seed, dropout).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def some_questions(count: int = 6, lengths: Sequence[int] = (0, 1, 2, 3)) -> list[Question]:
    """Questions of different lengths; `lengths` are repeated."""
    words = ["ice", "water vapour", "a thermometer", "the moon", "iron", "a green leaf in the sun"]
    return [
        Question(
            f"q{i}",
            f"Which is {'really ' * lengths[i % len(lengths)]}number {i}?",
            tuple(words[(i + k) % 6] for k in range(4)),
            i % 4,
        )
        for i in range(count)
    ]


def some_rationales(
    questions: Sequence[Question],
    missing: Sequence[tuple[str, str]] = (),
    lengths: Sequence[int] = (3, 3, 2, 2, 1, 1, 0, 0),
) -> list[Rationale]:
    """Rationales of different lengths by both teachers, but for the (question, teacher) pairs that are missing."""
    return [
        Rationale(
            q.id,
            teacher,
            f"{q.answer_text} is right"
            + " because it is so" * lengths[(i * len(TEACHERS) + TEACHERS.index(teacher)) % len(lengths)]
            + ".",
        )
        for i, q in enumerate(questions)
        for teacher in TEACHERS
        if (q.id, teacher) not in missing
    ]
