"""`tiny-untrained`: a tiny model with random weights for dry runs. It is made on this machine."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

NAME = "tiny-untrained"
_FOLDER = "tiny-untrained-1"  # another number for another model
_SPECIAL = ("<pad>", "</s>", "<unk>")


def untrained(cache: Path) -> Path:
    """Return the folder of a Llama with two layers, 64 dimensions and one token per byte.

    It is made once, and has the same weights on every machine.
    """
    folder = cache / _FOLDER
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "model"
            _make(made)
            with contextlib.suppress(OSError):  # another process may have made it meanwhile
                made.rename(folder)
    return folder


def _make(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate((*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))  # noqa: S106  no password
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=4096,
    ).save_pretrained(folder)
