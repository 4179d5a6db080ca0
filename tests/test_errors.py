"""What the exceptions' module offers besides exceptions: foreign text made fit for a message."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import printable

_PIECES = st.sampled_from(
    ["\x1b", "\x1b[", "\x9b", "\x1b]", "\x9d", "\x07", "\x1b\\", "m", "0;", "?", "\u202e", "\ud800"]
)


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hall fine", "all fine"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://evil.example\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("\x9d0;a title\x9ctext", "text"),
        ("\x1bPq#0\x1b\\picture", "picture"),
        ("\x1bcreset\x1b(Bcharset", "resetcharset"),
        ("\x1b]0;never closed", "0;never closed"),
        ("half\x1b", "half"),
        ("10 %\r100 %\r\nnext\x85last", "10 %\n100 %\nnext\nlast"),
        ("a\x00b\x08c\x7fd\x9fe", "abcde"),
        ("user\u202egnp.exe\u2066x\u2069\u200f", "usergnp.exex"),
        ("a\ud800b", "a\ufffdb"),
        ("a\tb\nc", "a\tb\nc"),
    ],
)
def test_foreign_text_is_shown_without_what_a_terminal_or_page_would_obey(foreign: str, shown: str) -> None:
    assert printable(foreign) == shown


@pytest.mark.parametrize(
    "text", ["plain", "Grüße, 日本語 👩\u200d💻 \u0645\u06cc\u200c\u062e", "[31m is no sequence by itself", ""]
)
def test_ordinary_text_stays(text: str) -> None:
    assert printable(text) == text


@given(st.one_of(st.text(), st.lists(st.one_of(_PIECES, st.characters())).map("".join)))
def test_whatever_comes_in_can_be_printed_and_controls_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    controls = [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not controls
    assert not [
        c for c in shown if unicodedata.bidirectional(c) in re.split(" ", "LRE RLE LRO RLO PDF LRI RLI FSI PDI")
    ]
    assert printable(shown) == shown
