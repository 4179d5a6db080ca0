"""The named datasets: where each one is, and how its rows become ours.

`starter` comes with the package. The others are read from the Hugging Face hub, from repositories that hold Parquet
files: no code from the hub is ever run. PIQA and RiddleSense publish no answers for their test sets; as in the paper,
their official development sets are cut into two halves, valid and test. PubMedQA's 1,000 expert-labelled questions
are cut into 500, 100 and 400. The paper doesn't say which questions went where, so these cuts are ours (by a seed,
always the same); `tinyllm import-release` reads the authors' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions.files import Row, SplitRows, read_file
from tinyllm.questions.rows import RowForm

SPLITS = ("train", "valid", "test")
_HUB_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("validation", "valid", "dev"),
    "test": ("test",),
}

HubRows = Mapping[str, Iterable[Mapping[str, Any]]]
Fetch = Callable[[str, str | None, str | None], HubRows]
"""From repository, subset and revision to the rows of each of the hub's splits."""


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset on the hub.

    Attributes:
        convert: from one of the hub's rows to one in our format; None leaves the row out.
        splits: our split → the hub's.
        cut: counts of the splits that are cut from a split, by the name of the split they are cut from; the rest
            stays in it.
    """

    repository: str
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "valid": "validation", "test": "test"})
    cut: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedSplits:
    """The rows of each split, how to read them, and what is still to be cut from what."""

    rows: Mapping[str, SplitRows]
    form: RowForm
    cut: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def load_named(name: str, subset: str | None, form: RowForm, fetch: Fetch | None = None) -> NamedSplits:
    """Read a dataset by its name in the table, or by owner/name on the hub.

    Args:
        subset: configuration name of an owner/name dataset.
        form: how rows are read, for an owner/name dataset; the table's own are known.
        fetch: how to read from the hub; for tests. Default: `datasets.load_dataset`.

    Raises:
        DataError: no such name, or the hub gives nothing; says how to give a local folder instead.
    """
    if name == "starter":
        return NamedSplits(_starter(), RowForm())
    if name == "bioasq":
        raise DataError(
            "data.dataset: bioasq has no open copy on the hub (its questions are given out at bioasq.org after "
            "registration). Give `data.folder` with train, valid and test files, or make one from the paper's "
            "published files: `tinyllm import-release DIR`"
        )
    fetch = fetch or fetch_from_hub
    if name in HUB_DATASETS:
        known = HUB_DATASETS[name]
        found = _fetch(fetch, name, known.repository, known.subset, known.revision)
        return NamedSplits(_convert(known, found), RowForm(), known.cut)
    if "/" in name:
        found = _fetch(fetch, name, name, subset, None)
        return NamedSplits(_as_they_are(name, found), form)
    raise DataError(
        f"data.dataset: no dataset '{name}'.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}; "
        "or owner/name of one on the Hugging Face hub; or give `data.folder`"
    )


def fetch_from_hub(repository: str, subset: str | None, revision: str | None) -> HubRows:
    """Read all splits of a dataset from the hub or from its local cache."""
    import datasets

    found: HubRows = datasets.load_dataset(repository, name=subset, revision=revision)
    return found


def _starter() -> dict[str, SplitRows]:
    folder = resources.files("tinyllm.questions") / "starter"
    rows = {}
    for split in SPLITS:
        with resources.as_file(folder / f"{split}.jsonl") as path:
            found = read_file(Path(path))
            rows[split] = replace(found, items=tuple(found.items))  # the path may be for this block only
    return rows


def _fetch(fetch: Fetch, name: str, repository: str, subset: str | None, revision: str | None) -> HubRows:
    try:
        return fetch(repository, subset, revision)
    except Exception as error:  # whatever the hub's libraries raise: offline, no such name, gated, moved
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"data.dataset: {name} could not be read from the Hugging Face hub ({repository}): {reason}. "
            "Without the hub, give a local folder with train, valid and test files (.jsonl, .csv, .parquet): "
            "`data.folder: DIR`"
        ) from error


def _convert(known: HubDataset, found: HubRows) -> dict[str, SplitRows]:
    rows = {}
    for split, theirs in known.splits.items():
        if theirs not in found:
            raise DataError(f"{known.repository}: no split '{theirs}' (splits: {', '.join(found)}); give `data.folder`")
        rows[split] = _rows(known.repository, theirs, found[theirs], known.convert)
    return rows


def _as_they_are(name: str, found: HubRows) -> dict[str, SplitRows]:
    ours = {s: next((n for n in _HUB_NAMES[s] if n in found), None) for s in SPLITS}
    if ours["train"] is None:
        raise DataError(
            f"data.dataset: {name} has no split 'train' (splits: {', '.join(found)}); save the split to train on as a "
            "file and give it as `data.train`"
        )
    return {split: _rows(name, theirs, found[theirs], dict) for split, theirs in ours.items() if theirs is not None}


def _rows(
    repository: str,
    split: str,
    found: Iterable[Mapping[str, Any]],
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
) -> SplitRows:
    where = f"{repository}, split {split}"
    return SplitRows(where, _converted(where, found, convert))


def _converted(
    where: str,
    found: Iterable[Mapping[str, Any]],
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any] | None],
) -> Iterator[Row]:
    for number, theirs in enumerate(found, 1):
        try:
            cells = convert(theirs)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{where}, row {number}: not in the form it used to have ({error!r}); the dataset on the hub has "
                "changed. Give a local folder instead: `data.folder: DIR`"
            ) from error
        if cells is not None:
            yield Row(number, where, number, cells, "parquet")


# --- from the hub's rows to ours ---------------------------------------------------------------------------------


def _lettered(theirs: Mapping[str, Any], question: str) -> dict[str, Any]:
    """AI2's form: choices as parallel lists of texts and labels, the answer as a label."""
    labels = list(theirs["choices"]["label"])
    answer = theirs["answerKey"]
    return {
        "id": theirs.get("id"),
        "question": theirs[question],
        "choices": list(theirs["choices"]["text"]),
        "answer": labels.index(answer) if answer in labels else answer,
    }


def _from_obqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return _lettered(theirs, "question_stem")


def _from_arc(theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of ARC-Challenge the paper takes the questions with four choices: 1,117, 295 and 1,165."""
    row = _lettered(theirs, "question")
    return row if len(row["choices"]) == 4 else None


def _from_riddle(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return _lettered(theirs, "question")


def _from_piqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return {"question": theirs["goal"], "choices": [theirs["sol1"], theirs["sol2"]], "answer": theirs["label"]}


_PUBMEDQA_ANSWERS = ["yes", "no", "maybe"]


def _from_pubmedqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    answer = theirs["final_decision"]
    return {
        "id": str(theirs["pubid"]),
        "question": theirs["question"],
        "context": "\n".join(theirs["context"]["contexts"]),
        "choices": list(_PUBMEDQA_ANSWERS),
        "answer": _PUBMEDQA_ANSWERS.index(answer) if answer in _PUBMEDQA_ANSWERS else answer,
    }


_DEV_IN_HALVES: Mapping[str, str] = {"train": "train", "valid": "validation"}

HUB_DATASETS: Mapping[str, HubDataset] = {
    "obqa": HubDataset("allenai/openbookqa", _from_obqa, subset="main"),
    "arc": HubDataset("allenai/ai2_arc", _from_arc, subset="ARC-Challenge"),
    "piqa": HubDataset("baber/piqa", _from_piqa, splits=_DEV_IN_HALVES, cut={"valid": {"test": 919}}),
    "riddle": HubDataset(
        "INK-USC/riddle_sense",
        _from_riddle,
        revision="refs/convert/parquet",
        splits=_DEV_IN_HALVES,
        cut={"valid": {"test": 510}},
    ),
    "pubmedqa": HubDataset(
        "qiaojin/PubMedQA",
        _from_pubmedqa,
        subset="pqa_labeled",
        splits={"train": "train"},
        cut={"train": {"valid": 100, "test": 400}},
    ),
}
NAMES = ("starter", *HUB_DATASETS, "bioasq")
