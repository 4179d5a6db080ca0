"""From the `data` section to the questions of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tinyllm.config import CutSection, DataSection, FieldMap, MoreSection
from tinyllm.errors import DataError, TinyLLMError
from tinyllm.questions._cut import cut
from tinyllm.questions._files import EXTENSIONS, Problem, SplitRows, read_file
from tinyllm.questions._named import SPLITS, Fetch, NamedSplits, load_named
from tinyllm.questions._overlap import HeldOut
from tinyllm.questions._repeats import copies
from tinyllm.questions._rows import RowForm
from tinyllm.questions._split import MOST_LISTED, ReadSplit
from tinyllm.questions._spool import IN_MEMORY, gather, leave_out
from tinyllm.questions.types import Dropped, Question, Splits

_STEMS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "validation", "dev"),
    "test": ("test",),
}


def load_splits(
    data: DataSection,
    *,
    fetch: Fetch | None = None,
    in_memory: int = IN_MEMORY,
    test: bool = True,
    problems: list[TinyLLMError] | None = None,
) -> Splits:
    """Read, check and cut the questions of a run.

    They come from files (`train`, `valid`, `test`), from a folder with one file per split, or from a named dataset. The
    file of `valid` may also be called `validation` or `dev`. With `dataset`, the folder may be the parent of a folder
    of that name. A missing split is cut from the training questions, by the shares and the seed of `data.cut` (default:
    10 % valid, 20 % test, seed 0). A share of 0 leaves the split empty; any other share gives at least one question.
    Nothing is cut from questions of which none has an answer. Copies of a validation or test question are left out.
    `limit` then takes the first questions of each split, in the order of its file. Further rows are not read (nor
    checked), unless something is cut from the split. The questions of `data.more` come last.

    Files are read as a stream, and large splits are kept on disk. About 40 bytes per question stay in memory.

    Args:
        test: False: without the test questions. Their file is not opened, unless `data.more` is compared with them.
        fetch: how to read from the Hugging Face hub; for tests.
        in_memory: more questions than this are kept on disk.
        problems: if given, bad rows are told by adding to this list, and the other questions are returned. So a caller
            can say at once what else is wrong.

    Raises:
        DataError: all problems of all splits in one message. With `on_invalid: drop`, only problems of whole files, and
            splits without a valid row.
    """
    if data.more and not test:
        return replace(load_splits(data, fetch=fetch, in_memory=in_memory, problems=problems), test=())
    source = _source(data, fetch)
    shares = data.cut or CutSection()
    there = {*source.rows, *(part for counts in source.cut.values() for part in counts)}
    # Others are cut from these splits, so they must be read completely, whatever the limit.
    whole = {*source.cut, *(["train"] if _missing(there, shares) else [])}
    limits: dict[str, int | None] = {
        s: data.limit.get(s) if isinstance(data.limit, dict) else data.limit for s in SPLITS
    }
    # Counting different questions needs their ids in memory. For a large limit, it is done at the end.
    enough = {split: most for split, most in limits.items() if most is not None and most <= in_memory}
    read = {
        split: ReadSplit(
            split,
            rows,
            source.form,
            drop=data.on_invalid == "drop",
            in_memory=in_memory,
            stop_after=None if split in whole else enough.get(split),
        )
        for split, rows in source.rows.items()
        if test or split != "test" or split in source.cut
    }
    found = _problems(list(read.values()), drop=data.on_invalid == "drop")
    if found is not None and (problems is None or any(part.fatal or not part.questions for part in read.values())):
        raise found
    questions = {split: part.questions for split, part in read.items()}
    questions |= {split: () for split in source.rows if split not in read}
    for split, counts in source.cut.items():
        parts = cut(questions[split], counts, seed=0)
        parts[split] = parts.pop("train")
        questions |= parts
    try:
        unanswered = any(part.warnings.get("no answer") for part in read.values())
        questions = _cut_missing(questions, shares, unanswered=unanswered) | ({} if test else {"test": ()})
    except DataError as error:
        raise found or error from None  # with the bad rows they may be enough
    if found is not None and problems is not None:
        problems.append(found)
    warnings = sum((Counter(part.warnings) for part in read.values()), Counter())
    dropped = [d for part in read.values() for d in part.dropped]
    if any(part.has_repeats for part in read.values()):
        for split in ("valid", "test"):  # copies are not independent, so they would make intervals too narrow
            part, again = questions[split], copies(questions[split])
            dropped += [
                Dropped(split, f"question '{part[place].id}'", f"a copy of '{part[first].id}'")
                for place, first in again.items()
            ]
            questions[split] = leave_out(part, again)
            warnings["copy of a validation or test question, left out"] += len(again)
    limited = {split: part[: limits[split]] for split, part in questions.items()}
    limited = {split: tuple(part) if len(part) <= in_memory else part for split, part in limited.items()}
    if data.limit is not None and warnings["no answer"]:
        warnings["no answer"] = sum(q.answer is None for part in limited.values() for q in part)
    splits = Splits(**limited, dropped=tuple(dropped), warnings=dict(+warnings), overlaps={})
    return _with_more(splits, data, fetch, in_memory, problems) if data.more else splits


def _with_more(
    splits: Splits, data: DataSection, fetch: Fetch | None, in_memory: int, problems: list[TinyLLMError] | None
) -> Splits:
    """Add the questions of `data.more`, but for those that are among the other questions already."""
    held_out = HeldOut([*splits.valid, *splits.test])
    learnt = {q.content_hash for q in splits.train}
    dropped, warnings = list(splits.dropped), Counter(splits.warnings)
    overlaps: Counter[str] = Counter()
    names: set[str] = set()

    def questions() -> Iterator[Question]:
        for section in data.more:
            name = _name_of_more(section, names)
            names.add(name)
            bad: list[TinyLLMError] | None = None if problems is None else []
            try:
                part = load_splits(_as_data(section, data), fetch=fetch, in_memory=in_memory, problems=bad)
            except DataError as error:
                raise DataError(f"data.more, '{name}': {error}") from None
            if problems is not None:
                problems.extend(DataError(f"data.more, '{name}': {error}", page=error.page) for error in bad or ())
            dropped.extend(replace(d, split="more") for d in part.dropped)
            prefix = f"{name}/"
            while any(q.id.startswith(prefix) for q in chain(splits.train, splits.valid, splits.test)):
                prefix = f"+{prefix}"  # no id of the other questions may begin with it
            for question in part.train:
                found = replace(
                    question, id=f"{prefix}{question.id}", answer=question.answer if section.answers else None
                )
                how = held_out.meets(found)
                if how is None and (key := found.content_hash) in learnt:
                    how = "the same as another training question"
                if how is not None:
                    overlaps[how] += 1
                    dropped.append(Dropped("more", f"question '{found.id}'", how))
                    continue
                learnt.add(key)
                warnings["no answer"] += found.answer is None
                yield found

    more = gather(questions(), in_memory)
    return replace(splits, more=more, dropped=tuple(dropped), warnings=dict(+warnings), overlaps=dict(overlaps))


def _as_data(section: MoreSection, data: DataSection) -> DataSection:
    """Return the section that reads the training questions of one source of `data.more`."""
    of_file = section.dataset is None
    fields = section.fields or (data.fields if of_file else FieldMap())
    if not section.answers:
        fields = fields.model_copy(update={"answer": None})  # so its column need not be there
    return DataSection(
        dataset=section.dataset,
        subset=section.subset,
        folder=section.folder,
        train=section.train,
        cut=CutSection(valid=0, test=0),
        fields=fields,
        choices=section.choices or (data.choices if of_file else None),
        question=section.question or (data.question if of_file else None),
        limit=section.limit,
        on_invalid=data.on_invalid,
    )


def _name_of_more(section: MoreSection, taken: set[str]) -> str:
    """Return a name without a slash that no other source of `data.more` has."""
    place = section.train or section.folder
    name = (section.name or section.dataset or (place.stem if place else "more")).replace("/", ".")
    return next(n for n in chain([name], (f"{name}-{k}" for k in range(2, len(taken) + 3))) if n not in taken)


# --- where the rows are ------------------------------------------------------------------------------------------


def _source(data: DataSection, fetch: Fetch | None) -> NamedSplits:
    form = RowForm(data.fields, data.choices, data.question)
    if data.folder is not None:
        return NamedSplits(_read_folder(data.folder, data.dataset), form)
    if data.dataset is not None:
        return load_named(data.dataset, data.subset, form, fetch)
    if data.train is None:
        raise DataError(
            "data.train: missing; give a file to train on, `data.folder`, or `data.dataset: starter`",
            page="questions.md",
        )
    paths = {"train": data.train, "valid": data.valid, "test": data.test}
    return NamedSplits({s: read_file(p) for s, p in paths.items() if p is not None}, form)


def _read_folder(folder: Path, dataset: str | None) -> dict[str, SplitRows]:
    if dataset is not None and (folder / dataset).is_dir():
        folder = folder / dataset
    if not folder.is_dir():
        raise DataError(
            f"data.folder: no folder {folder.absolute()}; give a folder with train, valid and test files "
            "(`tinyllm import-release` makes one from the authors' published files)",
            page="questions.md#splits-bad-rows-named-datasets",
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    rows = {}
    for split, stems in _STEMS.items():
        found = [n for n in names if Path(n).stem in stems and Path(n).suffix in EXTENSIONS]
        if len(found) > 1:
            text = f"several files for the split '{split}': {', '.join(found)}; keep one of them"
            rows[split] = SplitRows(str(folder), [Problem(str(folder), text, fatal=True)])
        elif found:
            rows[split] = read_file(folder / found[0])
    if "train" not in rows:
        expected = ", ".join(f"train{e}" for e in EXTENSIONS)
        here = ", ".join(names[:10]) + (", …" if len(names) > 10 else "") or "no files"
        raise DataError(f"data.folder: no training questions in {folder} (one of {expected}); it holds: {here}")
    return rows


# --- problems, and the cut ----------------------------------------------------------------------------------------


def _problems(parts: Sequence[ReadSplit], *, drop: bool) -> DataError | None:
    """Return an error that lists what is wrong with the rows and files of all splits; None if nothing is."""
    bad = [] if drop else [p for part in parts for p in part.bad]
    # If a split has no valid row, its bad rows are listed instead, unless they are dropped.
    fatal = [p for part in parts for p in part.fatal if drop or not part.bad]
    count = len(fatal) + (0 if drop else sum(part.bad_count for part in parts))
    if not count:
        return None
    lines = [f"  - {p}" for p in (fatal + bad)[:MOST_LISTED]]
    if count > MOST_LISTED:
        lines.append(f"  and {count - MOST_LISTED} more")
    if bad:
        lines.append(
            "Correct these rows, or set `data.on_invalid: drop` to leave them out (the report counts and names them)."
        )
    return DataError(f"questions: {count} problem{'' if count == 1 else 's'}\n" + "\n".join(lines), page="questions.md")


def _missing(there: Iterable[str], shares: CutSection) -> dict[str, float]:
    """Return the shares of the splits that must be cut from the training questions."""
    # Test first: so the test questions do not depend on the share of the validation split.
    wanted = {"test": shares.test, "valid": shares.valid}
    return {split: share for split, share in wanted.items() if share and split not in there}


def _cut_missing(
    questions: Mapping[str, Sequence[Question]], shares: CutSection, *, unanswered: bool
) -> dict[str, Sequence[Question]]:
    known = total = len(questions["train"])
    if unanswered:  # they cannot be scored, so they are all trained on
        known = sum(q.answer is not None for q in questions["train"])
    wanted = _missing(questions, shares) if known or not total else {}
    counts = {split: max(1, round(share * known)) for split, share in wanted.items()}
    parts = cut(questions["train"], counts, shares.seed, answered=known < total) if counts else {}
    result = {**questions, **parts}
    if not result["train"] or not all(result[s] for s in counts):
        needed = ", ".join(f"{n} for {s}" for s, n in counts.items())
        which = "questions with an answer" if known < total else "questions"
        raise DataError(
            f"data.cut: {known} {which} are too few to cut ({needed}, and some to train on); give more questions, "
            "give `data.valid` and `data.test`, or set the shares in `data.cut` to 0",
            page="questions.md#splits-bad-rows-named-datasets",
        )
    return {split: result.get(split, ()) for split in SPLITS}
