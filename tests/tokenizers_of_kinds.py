"""Small tokenizers of the kinds that students have, made offline: what they do to a text differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_ASCII = [chr(i) for i in range(33, 127)]
_NEWLINE = "<0x0A>"


def byte_level(*, add_prefix_space: bool = False, frame: str | None = None) -> PreTrainedTokenizerFast:
    """GPT-2, Llama 3, Qwen, BART: any text, byte by byte here; with a chat token, as instruct models have."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(("<pad>", "</s>", "<unk>", "<s>", "<|im_end|>", *alphabet, "Ġice"))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    made.decoder = decoders.ByteLevel()
    if frame is not None:
        made.post_processor = TemplateProcessing(single=frame, special_tokens=[("<s>", 3), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", additional_special_tokens=["<|im_end|>"], **SPECIAL
    )


def prepending() -> PreTrainedTokenizerFast:
    """Mistral, Mixtral, Phi-3: a normaliser puts ▁ before every text; merges that make a special token's name."""
    vocabulary = {t: i for i, t in enumerate(("<unk>", "<s>", "</s>", "<pad>", _NEWLINE, "▁", *_ASCII))}
    merges = [("▁", "i"), ("▁i", "c"), ("▁ic", "e"), ("<", "/"), ("s", ">"), ("</", "s>"), ("▁", "▁")]
    for one, other in merges:
        vocabulary.setdefault(one + other, len(vocabulary))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", **SPECIAL)


def first_word_only() -> PreTrainedTokenizerFast:
    """Llama 2 as it is now: ▁ before the first word of a text."""
    made = prepending()
    made.backend_tokenizer.normalizer = None
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def unigram(unknown: str = "<{") -> PreTrainedTokenizerFast:
    """T5: NFKC, ▁ before every word, characters that it does not know, and `</s>` in its vocabulary at no cost."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁ice", -4.0), ("<extra_id_0>", 0.0)]
    pieces += [(c, -5.0) for c in _ASCII if c not in unknown]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\u200b", ""), normalizers.Replace("\n", " "),
         normalizers.Strip(left=False, right=True)]
    )  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=["<extra_id_0>"], **SPECIAL)


def quoting() -> PreTrainedTokenizerFast:
    """XLNet: no accents, one kind of quotation marks."""
    made = unigram()
    made.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents()]
    )  # fmt: skip
    return made


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT: lower case, whole words and pieces of them."""
    vocabulary = {
        t: i for i, t in enumerate(("[PAD]", "[SEP]", "[UNK]", "[CLS]", *_ASCII, *(f"##{c}" for c in _ASCII)))
    }
    made = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", eos_token="[SEP]", unk_token="[UNK]", cls_token="[CLS]"
    )


def slow() -> PreTrainedTokenizerBase:
    """ByT5: written in Python, without a backend."""
    return ByT5Tokenizer()


KINDS: Mapping[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte-level": byte_level,
    "byte-level-space": lambda: byte_level(add_prefix_space=True),
    "bart": lambda: byte_level(frame="<s> $A </s>"),
    "prepend": prepending,
    "first": first_word_only,
    "unigram": unigram,
    "quoting": quoting,
    "wordpiece": wordpiece,
    "byt5": slow,
}
