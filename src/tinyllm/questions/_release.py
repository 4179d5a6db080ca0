"""Read the files that the authors of TinyLLM published, and write them in our format.

    datasets/<name>/<name>_<split>.json     a list of {"id", "question", "choices", "answer": the choice's text}
    datasets/<name>/llm/<split>_CoT_<k>.json   a list of strings, one per item; k = 0, 1, 2, … in numerical order

Each string begins with the rationale of FLAN-T5. A sentence from a template follows, `Thus, the answer is (x) …`. It
always names the right answer. The teacher did not write it, so it is removed. Then come a copy of the item and, if it
exists, the rationale of LLaMA-2 after ` llama rationale: `. The copy is compared with the item, so that no rationale is
assigned to a wrong item.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions._files import write_questions
from tinyllm.questions._named import SPLITS
from tinyllm.questions._rows import fold
from tinyllm.questions.types import Question

_FLAN, _LLAMA = "flan-t5-xl", "llama-2-7b-chat"
"""The names of the teachers in the paper. The published files name neither."""

_WITH_CONTEXT = ("pubmedqa", "bioasq")
_CONTEXT_ENDS = " \n "
_TEMPLATE = re.compile(r"\s*Thus, the answer is \((?P<letter>[a-z])\)")
_LLAMA_MARK = re.compile(r"\s*llama rationale:", re.IGNORECASE)
_ECHO = re.compile(
    r"\n\s*Q:(?P<question>.*?)\n\s*Answer Choices:\s*\n(?P<choices>.*?)(?=\s*llama rationale:|\Z)",
    re.DOTALL | re.IGNORECASE,
)


class _Item(NamedTuple):
    """An item as published; `echo` is its question as the rationale files repeat it."""

    question: Question
    echo: str


def import_release(folder: Path, out: Path, *, datasets: Sequence[str] | None = None) -> dict[str, dict[str, int]]:
    """Write `<out>/<name>/<split>.jsonl` for every dataset in the authors' files.

    Args:
        folder: the repository's root, or its `datasets` folder.
        out: where to write. Each existing file is replaced atomically.
        datasets: names of the datasets to read; None: all.

    Returns:
        For each dataset: the number of questions per split and of rationales per teacher. If there are any, also the
        number of `unaligned` strings (they repeat another item; dropped), of items `without answer` (the answer is none
        of the choices, or several; dropped) and of `rebuilt` items (the file of the split is missing, so question,
        choices and answer were taken from the strings).

    Raises:
        DataError: there are no such files, a file is not as expected, or a file cannot be written.
    """
    found = _find(folder)
    wanted = list(found) if datasets is None else list(datasets)
    for name in wanted:
        if name not in found:
            raise DataError(f"{folder}: no dataset '{name}'.{did_you_mean(name, found)} There: {', '.join(found)}")
    counts = {}
    for name in wanted:
        tally: Counter[str] = Counter()
        for split in SPLITS:
            questions = _read_split(found[name], name, split, tally)
            if questions:
                write_questions(out / name / f"{split}.jsonl", questions)
        counts[name] = {key: n for key, n in tally.items() if n}
    return counts


# --- the files ---------------------------------------------------------------------------------------------------


def _find(folder: Path) -> dict[str, Path]:
    """Return the folder of each dataset that is there."""
    root = folder / "datasets" if (folder / "datasets").is_dir() else folder
    inside = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    found = {
        p.name: p
        for p in inside
        if any((p / f"{p.name}_{split}.json").is_file() or _rationale_files(p, split) for split in SPLITS)
    }
    if not found:
        raise DataError(
            f"{folder}: the authors' published files are not there. Give their repository, or its `datasets` folder, "
            "with <name>/<name>_<split>.json and <name>/llm/<split>_CoT_<k>.json for the splits train, valid and test"
        )
    return found


def _rationale_files(folder: Path, split: str) -> list[Path]:
    numbered = {}
    for path in (folder / "llm").glob(f"{split}_CoT_*.json"):
        number = path.stem.rpartition("_")[2]
        if number.isdecimal():
            numbered[int(number)] = path
    missing = sorted(set(range(max(numbered, default=-1) + 1)) - set(numbered))
    if missing:
        raise DataError(
            f"{folder / 'llm'}: {split}_CoT_{missing[0]}.json is missing, so the later files do not match their items; "
            "fetch the folder again"
        )
    return [numbered[k] for k in sorted(numbered)]


def _read_list(path: Path, of: type, what: str) -> list[Any]:
    try:
        value = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start}); fetch it again") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg}); cut off? Fetch it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not isinstance(value, list) or not all(isinstance(item, of) for item in value):
        raise DataError(f"{path}: expected a JSON list of {what}")
    return value


# --- items and rationales ----------------------------------------------------------------------------------------


def _read_split(folder: Path, name: str, split: str, tally: Counter[str]) -> list[Question]:
    strings = [s for path in _rationale_files(folder, split) for s in _read_list(path, str, "strings")]
    file = folder / f"{name}_{split}.json"
    items: list[_Item | None]
    if file.is_file():
        items = [_item(raw, name, file, k) for k, raw in enumerate(_read_list(file, dict, "objects"))]
    else:
        items = [_rebuild(string, f"{split}-{k}") for k, string in enumerate(strings)]
        tally["unaligned"] += sum(item is None for item in items)
        tally["rebuilt"] += sum(item is not None for item in items)
    questions = []
    for k, item in enumerate(items):
        if item is None:
            continue
        rationales = _take_apart(strings[k], item) if k < len(strings) else {}
        if rationales is None:
            tally["unaligned"] += 1
            rationales = {}
        if item.question.answer is None:
            tally["without answer"] += 1
            continue
        tally.update(rationales.keys())
        questions.append(replace(item.question, rationales=rationales))
    tally["unaligned"] += max(0, len(strings) - len(items))
    tally[split] += len(questions)
    return questions


def _item(raw: Mapping[str, Any], name: str, file: Path, k: int) -> _Item:
    choices = raw.get("choices")
    texts = [raw.get("question"), raw.get("answer"), *(choices if isinstance(choices, list) else [None])]
    if not all(isinstance(t, str) for t in texts) or "id" not in raw:
        raise DataError(f"{file}, item {k + 1}: expected an id, and texts as question, choices and answer")
    echo, answer, *options = (str(t) for t in texts)
    context, between, question = echo.rpartition(_CONTEXT_ENDS) if name in _WITH_CONTEXT else ("", "", echo)
    same = [i for i, option in enumerate(options) if fold(option) == fold(answer)]
    same = [i for i in same if options[i] == answer] or same
    return _Item(
        Question(
            id=str(raw["id"]),
            question=question.strip(),
            choices=tuple(o.strip() for o in options),
            answer=same[0] if len(same) == 1 else None,
            context=context.strip() or None if between else None,
        ),
        echo,
    )


def _take_apart(string: str, item: _Item) -> dict[str, str] | None:
    """Return the rationales in a published string by teacher; None if it repeats another item.

    Differences in white space are ignored. Empty rationales are left out.
    """
    options = [f"({chr(ord('a') + i)}) {choice}" for i, choice in enumerate(item.question.choices)]
    words = " ".join(["Q:", item.echo, "Answer Choices:", *options]).split()
    echo = re.search(r"\s*" + r"\s+".join(re.escape(word) for word in words), string)
    if echo is None:
        return None
    before, after = string[: echo.start()], string[echo.end() :]
    mark = _LLAMA_MARK.match(after)
    if mark is None and after.strip():
        return None  # the last choice is longer: this is another item
    templates = list(_TEMPLATE.finditer(before))
    flan = before[: templates[-1].start()] if templates else before
    texts = {_FLAN: flan.strip(), _LLAMA: after[mark.end() :].strip() if mark else ""}
    return {teacher: text for teacher, text in texts.items() if text}


def _rebuild(string: str, name: str) -> _Item | None:
    """Return the item that a published string repeats, with the answer from the template; None if it has none."""
    echo = _ECHO.search(string)
    # A teacher may write the words of the template itself, so take the last match before the copy.
    templates = list(_TEMPLATE.finditer(string[: echo.start()])) if echo else []
    if echo is None or not templates:
        return None
    parts = re.split(r"(?:^|\n)\s*\(([a-z])\) ?", echo["choices"])
    letters, choices = parts[1::2], [text.strip() for text in parts[2::2]]
    answer, said = ord(templates[-1]["letter"]) - ord("a"), fold(string[templates[-1].end() : echo.start()])
    in_order = letters == [chr(ord("a") + i) for i in range(len(letters))]
    if parts[0].strip() or not in_order or len(choices) < 2 or answer >= len(choices):
        return None
    if said and said != fold(choices[answer]):
        return None
    question = echo["question"].strip()
    return _Item(Question(name, question, tuple(choices), answer), question)
