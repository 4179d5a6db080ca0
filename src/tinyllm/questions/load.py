"""From the `data` section to the questions of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinyllm.config import CutSection, DataSection, FieldMap
from tinyllm.errors import DataError
from tinyllm.questions.cut import cut
from tinyllm.questions.files import EXTENSIONS, Problem, SplitRows, read_file
from tinyllm.questions.named import SPLITS, Fetch, NamedSplits, load_named
from tinyllm.questions.rows import missing_columns, oddities, to_question
from tinyllm.questions.types import Dropped, Question, Splits

MOST_LISTED = 20
_STEMS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "dev"),
    "test": ("test",),
}


def load_splits(data: DataSection, *, fetch: Fetch | None = None) -> Splits:
    """Read, check and cut the questions of a run.

    They come from files (`train`, `valid`, `test`), from a folder with one file a split (`valid` may be called
    `validation` or `dev`; with `dataset`, the folder may also be the parent of one of that name), or from a named
    dataset. A split that isn't given is cut from the training questions, by the shares and the seed of `data.cut`
    (default 10 % valid, 20 % test, seed 0; a share of 0 leaves the split empty; else it gets at least one
    question); `cut.cut` says how. `limit` then takes the first so many questions of each split, in the order of
    its file.

    Args:
        fetch: how to read from the Hugging Face hub; for tests.

    Raises:
        DataError: all problems of all splits in one message; with `on_invalid: drop`, those of files as a whole,
            and splits of which nothing is left.
    """
    source = _source(data, fetch)
    read = {split: _read_split(split, rows, source.fields) for split, rows in source.rows.items()}
    _raise_problems(list(read.values()), drop=data.on_invalid == "drop")
    questions = {split: part.questions for split, part in read.items()}
    for split, counts in source.cut.items():
        parts = cut(questions[split], counts, seed=0)
        parts[split] = parts.pop("train")
        questions |= parts
    questions = _cut_missing(questions, data.cut or CutSection())
    warnings = Counter(name for part in read.values() for q in part.questions for name in oddities(q))
    limited = {split: part[: data.limit] for split, part in questions.items()}
    dropped = tuple(d for part in read.values() for d in part.dropped)
    return Splits(**limited, dropped=dropped, warnings=dict(warnings))


# --- where the rows are ------------------------------------------------------------------------------------------


def _source(data: DataSection, fetch: Fetch | None) -> NamedSplits:
    if data.folder is not None:
        return NamedSplits(_read_folder(data.folder, data.dataset), data.fields)
    if data.dataset is not None:
        return load_named(data.dataset, data.subset, data.fields, fetch)
    paths = {"train": data.train, "valid": data.valid, "test": data.test}
    if data.train is None:
        raise DataError("data.train: missing; give a file to train on, `data.folder`, or `data.dataset: starter`")
    return NamedSplits({s: read_file(p) for s, p in paths.items() if p is not None}, data.fields)


def _read_folder(folder: Path, dataset: str | None) -> dict[str, SplitRows]:
    if dataset is not None and (folder / dataset).is_dir():
        folder = folder / dataset
    if not folder.is_dir():
        raise DataError(f"data.folder: no folder {folder}; give one with train, valid and test files")
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    rows = {}
    for split, stems in _STEMS.items():
        found = [n for n in names if Path(n).stem in stems and Path(n).suffix in EXTENSIONS]
        if len(found) > 1:
            text = f"several files for the split '{split}': {', '.join(found)}; keep one of them"
            rows[split] = SplitRows(str(folder), fatal=(Problem(str(folder), text),))
        elif found:
            rows[split] = read_file(folder / found[0])
    if "train" not in rows:
        wanted = ", ".join(f"train{e}" for e in EXTENSIONS)
        here = ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "no files"
        raise DataError(f"data.folder: no training questions in {folder} (one of {wanted}); it holds: {here}")
    return rows


# --- from rows to questions --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ReadSplit:
    split: str
    questions: tuple[Question, ...] = ()
    fatal: tuple[Problem, ...] = ()
    bad: tuple[Problem, ...] = ()
    dropped: tuple[Dropped, ...] = field(default_factory=tuple)


def _read_split(split: str, source: SplitRows, fields: FieldMap) -> _ReadSplit:
    fatal = [*source.fatal, *missing_columns(source, fields)]
    if fatal:
        return _ReadSplit(split, fatal=tuple(fatal))
    questions: list[Question] = []
    bad = list(source.bad)
    dropped = [Dropped(split, p.where, p.text) for p in source.bad]
    first: dict[str, str] = {}
    for row in source.rows:
        result = to_question(row, fields, split)
        if isinstance(result, Question) and result.id in first:
            result = [f"the id '{result.id}' is also that of {first[result.id]}; give each question an id of its own"]
        if isinstance(result, Question):
            first[result.id] = row.where.removeprefix(f"{source.where}, ")
            questions.append(result)
        else:
            bad += [Problem(row.where, text) for text in result]
            dropped.append(Dropped(split, row.where, "; ".join(result)))
    if not questions:
        text = f"no question is left for the split '{split}' after leaving out {len(dropped)} rows"
        fatal = [Problem(source.where, f"{text}, the first because: {dropped[0].reason if dropped else 'no rows'}")]
    return _ReadSplit(split, tuple(questions), tuple(fatal), tuple(bad), tuple(dropped))


def _raise_problems(parts: Sequence[_ReadSplit], *, drop: bool) -> None:
    bad = [] if drop else [p for part in parts for p in part.bad]
    # A split without any good row is told by its bad rows, where these are told.
    fatal = [p for part in parts for p in part.fatal if drop or not part.bad]
    problems = fatal + bad
    if not problems:
        return
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"  - {p}" for p in problems[:MOST_LISTED]]
    if len(problems) > MOST_LISTED:
        lines.append(f"  and {len(problems) - MOST_LISTED} more")
    if bad:
        lines.append(
            "Mend these rows, or set `data.on_invalid: drop` to leave them out (counted, and named in the report)."
        )
    raise DataError(f"questions: {count}\n" + "\n".join(lines))


def _cut_missing(questions: Mapping[str, tuple[Question, ...]], shares: CutSection) -> dict[str, tuple[Question, ...]]:
    total = len(questions["train"])
    # Test first: which questions are tested on then doesn't depend on the share of the validation split.
    wanted = {s: share for s, share in (("test", shares.test), ("valid", shares.valid)) if s not in questions and share}
    counts = {split: max(1, round(share * total)) for split, share in wanted.items()}
    result = {**questions, **cut(questions["train"], counts, shares.seed)} if counts else dict(questions)
    if not result["train"] or not all(result[s] for s in counts):
        needed = ", ".join(f"{n} for {s}" for s, n in counts.items())
        raise DataError(
            f"data.cut: {total} questions are too few to cut ({needed}, and some to train on); give more questions, "
            "give `data.valid` and `data.test`, or set the shares in `data.cut` to 0"
        )
    return {split: result.get(split, ()) for split in SPLITS}
