"""Reads the shape of a model from the header of a GGUF file, in milliseconds. `gguf` would read the vocabulary, too."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 20
_CACHED_BYTES = 2  # float16


def cache_bytes_per_token(file: Path) -> int | None:
    """Return the bytes of one token in the cache of keys and values; None if the file does not contain the shape.

    If layers differ, this is an upper bound.
    """
    shape: dict[str, Any] = {}  # the fields of the header, without the architecture's name before the keys
    try:
        with file.open("rb") as head:
            head.seek(16)
            for _ in range(_number(head, "<Q")):
                key = _string(head)
                if key.startswith("tokenizer."):
                    break  # the shape comes before the vocabulary
                shape[key.partition(".")[2]] = _value(head, _number(head, "<I"))
        heads = shape["attention.head_count"]
        key_values = _most(shape.get("attention.head_count_kv", heads))
        width = shape["embedding_length"] // _most(heads)
        widths = shape.get("attention.key_length", width) + shape.get("attention.value_length", width)
        return int(shape["block_count"] * key_values * widths * _CACHED_BYTES)
    except (struct.error, ValueError, KeyError, TypeError, ZeroDivisionError, OSError, RecursionError):
        return None  # llama.cpp will report what is wrong with a damaged file


def _most(value: Any) -> Any:
    """Some models have one value for each layer."""
    return max(value) if isinstance(value, list) else value


def _value(head: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _string(head)
    if kind == _ARRAY:
        kind, length = _number(head, "<I"), _number(head, "<Q")
        return [_value(head, kind) for _ in range(_bounded(length))]
    return _number(head, _NUMBERS[kind])


def _string(head: IO[bytes]) -> str:
    return head.read(_bounded(_number(head, "<Q"))).decode("utf-8")


def _number(head: IO[bytes], layout: str) -> Any:
    return struct.unpack(layout, head.read(struct.calcsize(layout)))[0]


def _bounded(length: int) -> int:
    if length > _LONGEST:
        raise ValueError(f"{length} is not a plausible length")
    return length
