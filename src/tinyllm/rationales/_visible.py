"""The visible text of a reply: without thoughts, channels and special tokens. All functions are pure.

Models mark their thoughts in different ways: by tags (servers sometimes remove the opening tag), by channels, by typed
parts, or in fields beside the text. A thought is never part of a rationale. A reply that ends inside a thought has no
rationale.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tinyllm.teachers.base import Reply


@dataclass(frozen=True, slots=True)
class Visible:
    """The visible text of a reply.

    Attributes:
        thought: whether the reply had thoughts.
        withheld: why there is no text: `unfinished_thought`, `content_filter` or `refused`; None: the text is the
            model's answer, but may be empty.
    """

    text: str
    thought: bool = False
    withheld: str | None = None


def visible(reply: Reply) -> Visible:
    """Return the visible text of a reply."""
    said = _Said(reply.text)
    if reply.message is not None:
        message = json.loads(reply.message)
        said = _Said(thought=any(message.get(name) for name in _THOUGHT_FIELDS))
        if isinstance(refusal := message.get("refusal"), str):
            said.refusal = refusal
        _add(message.get("content"), said)
    text, inline, open_ = _without_thoughts(said.text)
    while (again := _without_thoughts(text))[0] != text:  # tags may be nested
        text, inline, open_ = again[0], True, again[2]
    thought = bool(said.thought or inline or reply.thinking_tokens)
    if reply.finish_reason == "content_filter":
        return Visible(text, thought, "content_filter")
    if said.refusal or reply.finish_reason == "refusal":
        return Visible(said.refusal or text or reply.text, thought, "refused")
    # Some services return nothing of a thought, but it uses up the tokens.
    is_hidden = reply.finish_reason == "length" and not reply.text.strip()
    if text or not (thought or open_ or is_hidden):
        return Visible(text, thought)
    return Visible("", True, "unfinished_thought")


# --- messages of several parts ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Said:
    text: str = ""
    thought: bool = False
    refusal: str = ""


_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "thought")
_THOUGHT_PARTS = re.compile(r"think|thought|reason|summary|analysis", re.IGNORECASE)


def _add(content: Any, said: _Said) -> None:
    """Add a message's content: a text, a typed part, or a list of these."""
    if isinstance(content, str):
        said.text += content
    elif isinstance(content, list):
        for part in content:
            _add(part, said)
    elif isinstance(content, Mapping):
        kind = str(content.get("type", ""))
        if _THOUGHT_PARTS.search(kind) or content.get("thought") is True or (not kind and "thinking" in content):
            said.thought = True
        elif isinstance(content.get("refusal"), str):
            said.refusal += content["refusal"]
        elif kind in ("", "text", "output_text", "message"):
            inner = content.get("text", content.get("content"))
            _add(inner.get("value") if isinstance(inner, Mapping) and "value" in inner else inner, said)


# --- thoughts inside a text ---------------------------------------------------------------------------------------

_TAG = (
    r"(?:[\w.]+:)?(?:think(?:ing)?|thoughts?|thought[_-]?process|reasoning|reflection|scratch_?pad|analysis|"
    r"ant_?thinking|inner_?monologue)"
)
_OPENS = (
    rf"<{_TAG}(?:\s[^<>]*)?>",
    r"\[THINK\]",
    r"◁think▷",
    r"<\|(?:begin_of_thought|START_THINKING|thinking|inner_prefix|think(?:ing)?_start|begin_of_think)\|>",
    r"<\|channel>\s*thought\b",
    r"<unused94>(?:thought\b)?",
)
_CLOSES = (
    rf"</{_TAG}\s*>",
    r"\[/THINK\]",
    r"◁/think▷",
    r"<\|(?:end_of_thought|END_THINKING|/thinking|inner_suffix|think(?:ing)?_end|end_of_think)\|>",
    r"<channel\|>",
    r"<unused95>",
)
_OPEN = re.compile("|".join(_OPENS), re.IGNORECASE)
_CLOSE = re.compile("|".join(_CLOSES), re.IGNORECASE)
_WRAPPER = r"(?:answer|response|final_answer|final|output)"
_WRAPPERS = re.compile(
    rf"^\s*<{_WRAPPER}>|</{_WRAPPER}>\s*$|<\|(?:begin_of_solution|end_of_solution|START_RESPONSE|END_RESPONSE)\|>",
    re.IGNORECASE,
)
_SPECIAL_END = re.compile(r"(?:<\|[\w▁]{2,30}\|>|<｜[\w▁]{2,40}｜>|</s>|<end_of_turn>|<turn\|>|\[EOS\])\Z")
_LONGEST_SPECIAL = 48
_SPECIAL_START = re.compile(
    r"\s*+(?:(?:<\|(?:im_start|start|start_header_id|begin_of_text)\|>|<start_of_turn>|<s>)\s*+(?:assistant|model)?\s*+"
    r"(?:<\|(?:end_header_id|message)\|>)?\s*+)+"
)
_CHANNEL = re.compile(r"<\|channel\|>\s*([\w]+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_SWALLOWED = re.compile(
    r"\s*+(?:<\|start\|>\s*assistant)?\s*+(?=(?:analysis|commentary|final)\s*<\|message\|>)"
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE_CHANNELS = re.compile(r"^\s*(?:analysis|commentary)(?=[A-Z\W]).*?assistant\s*final(?=[A-Z\W]|$)", re.DOTALL)
_BARE_ANALYSIS = re.compile(r"^\s*analysis(?=[A-Z])")
_DONE_THINKING = re.compile(r"\s*+Thinking\.\.\.\n.*?\n[^\S\n]*\.\.\.done thinking\.\s*+", re.DOTALL)
_THOUGHT_PROCESS = re.compile(
    r"^\s*Here(?:'s| is) (?:my|the) (?:thought|thinking|reasoning) process:.*?(?:Here(?:'s| is) (?:my|the) (?:final )?"
    r"(?:response|answer):|\Z)",
    re.DOTALL | re.IGNORECASE,
)


_MARK = re.compile(r"[<◁]|\[/?THINK\]|\[EOS\]", re.IGNORECASE)
_START = re.compile(r"\s*+(?:analysis|commentary|thinking\.\.\.|here(?:'s| is) (?:my|the) )", re.IGNORECASE)


def _without_thoughts(text: str) -> tuple[str, bool, bool]:
    """Return a text without its thoughts, whether it had any, and whether it ends inside one."""
    # Most texts have no tags, and a search for single characters is much faster than the pattern.
    if not (_START.match(text) or (("<" in text or "[" in text or "◁" in text) and _MARK.search(text))):
        return text.strip(), False, False
    text = _without_end(text)
    if _CHANNEL.search(text) or _CHANNEL_SWALLOWED.match(text):
        return _final_channel(text)
    text = _SPECIAL_START.sub("", text, count=1) if _SPECIAL_START.match(text) else text
    thought = False
    for pattern in (_BARE_CHANNELS, _DONE_THINKING, _THOUGHT_PROCESS):
        if found := pattern.match(text):
            text, thought = text[found.end() :], True
    if _BARE_ANALYSIS.match(text):
        return "", True, True
    text, inside = _without_pairs(text)
    thought |= inside
    open_ = _OPEN.search(text)
    if open_ is not None:
        text, thought = text[: open_.start()], True
    if "<" in text:
        text = _WRAPPERS.sub("", text)
    return _without_end(text), thought, open_ is not None


def _without_end(text: str) -> str:
    """Remove the special tokens that end a turn."""
    text = text.strip()
    while found := _SPECIAL_END.search(text, max(0, len(text) - _LONGEST_SPECIAL)):
        text = text[: found.start()].rstrip()
    return text


def _without_pairs(text: str) -> tuple[str, bool]:
    """Remove everything from an opening tag to its closing tag. Without an opening tag, remove all text before.

    Servers remove the opening tag if it belongs to the prompt.
    """
    marks = sorted(
        [(found, True) for found in _OPEN.finditer(text)] + [(found, False) for found in _CLOSE.finditer(text)],
        key=lambda mark: mark[0].start(),
    )
    kept: list[str] = []
    opened: list[int] = []  # for each open thought, where it begins in `kept`
    at = 0
    for found, opens in marks:
        kept.append(text[at : found.start()])
        at = found.end()
        if opens:
            opened.append(len(kept))
            kept.append(found[0])
        else:
            del kept[opened.pop() if opened else 0 :]
    return "".join([*kept, text[at:]]), any(not opens for _, opens in marks)


def _final_channel(text: str) -> tuple[str, bool, bool]:
    """Return the text of the final channel (harmony format). Without one, the reply ends inside a thought."""
    if swallowed := _CHANNEL_SWALLOWED.match(text):
        text = "<|channel|>" + text[swallowed.end() :]
    marks = list(_CHANNEL.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [
        _MESSAGE_END.split(text[mark.end() : end])[0]
        for mark, end in zip(marks, ends, strict=True)
        if mark[1].casefold() == "final"
    ]
    final = _without_end("".join(parts))
    return final, len(marks) > len(parts), not final
