"""GGUF files as transformers models. transformers reads them, with a faster reader than its own."""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.gguf_reader import GGUFReader

_STRING, _ARRAY = gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY


class _Reader(GGUFReader):
    """Reads the same fields as its parent, which takes seconds for a vocabulary.

    The parent slices a memory map for each token, and each slice is a memory map of its own.
    """

    _plain: Any = None

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        if self._plain is None:
            self._plain = np.asarray(self.data)
        kind = np.dtype(dtype).newbyteorder(self.byte_order if override_order is None else override_order)
        return self._plain[offset : offset + kind.itemsize * int(count)].view(kind)

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type != _ARRAY or self.byte_order == "S":
            return super()._get_field_parts(orig_offs, raw_type)
        of, length = self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)
        if of[0] != _STRING:
            return super()._get_field_parts(orig_offs, raw_type)
        at, plain, unpack = orig_offs + 12, self._plain, struct.Struct("<Q").unpack_from
        parts = [of, length]
        for _ in range(int(length[0])):
            (size,) = unpack(plain, at)
            parts += (plain[at : at + 8].view(np.uint64), plain[at + 8 : at + 8 + size])
            at += 8 + size
        return at - orig_offs, parts, list(range(3, len(parts), 2)), [_ARRAY, _STRING]


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Make transformers use the faster reader inside the block, and read each file and name its tensors only once.

    It reads the file for the tokenizer, for the configuration and for the weights, and names the tensors anew for each
    module: 40 seconds for 135M weights. It looks these two up in `gguf` at each use.
    """
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(_Reader), functools.cache(before[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


def read_gguf(path: Path) -> tuple[Any, Any]:
    """Return the tokenizer and the model, in float32, of a GGUF file.

    Raises:
        Exception: the file is damaged. The reader raises errors of many types.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    # transformers refuses to save a model that was quantised, even when its weights no longer are.
    del loaded.config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return tokenizer, model
