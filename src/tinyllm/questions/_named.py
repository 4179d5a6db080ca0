"""The named datasets: where each one is, and how its rows become ours.

`starter` comes with the package. The others are read from the Hugging Face hub, from repositories that hold Parquet
files: no code from the hub is ever run. Where a test set's answers are not published (PIQA, RiddleSense, CommonsenseQA,
QASC, Social IQa, WinoGrande, HellaSwag, BoolQ, MedMCQA), the official development set is cut into two halves, valid and
test, as the paper does. PubMedQA's 1,000 expert-labelled questions are cut into 500, 100 and 400; MMLU-Pro and
TruthfulQA have no training set, so their test questions are cut. These cuts are ours (by a seed, always the same);
`tinyllm import-release` reads the paper authors' own. `arc` is ARC-Challenge as the paper takes it, `arc-challenge` all
of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError, did_you_mean
from tinyllm.questions._files import Row, SplitRows, read_file
from tinyllm.questions._rows import RowForm

SPLITS = ("train", "valid", "test")
_HUB_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("validation", "valid", "dev"),
    "test": ("test",),
}

_HubRows = Mapping[str, Iterable[Mapping[str, Any]]]
Fetch = Callable[[str, str | None, str | None], _HubRows]
"""From repository, subset and revision to the rows of each of the hub's splits."""


@dataclass(frozen=True, slots=True)
class _HubDataset:
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
    fetch = fetch or _fetch_from_hub
    if name in _HUB_DATASETS:
        known = _HUB_DATASETS[name]
        found = _fetch(fetch, name, known.repository, known.subset, known.revision)
        return NamedSplits(_convert(known, found), RowForm(), known.cut)
    if "/" in name:
        found = _fetch(fetch, name, name, subset, None)
        return NamedSplits(_as_they_are(name, found), form)
    raise DataError(
        f"data.dataset: no dataset '{name}'.{did_you_mean(name, _NAMES)} Known: {', '.join(_NAMES)}; "
        "or owner/name of one on the Hugging Face hub; or give `data.folder`"
    )


def _fetch_from_hub(repository: str, subset: str | None, revision: str | None) -> _HubRows:
    """Read all splits of a dataset from the hub or from its local cache."""
    import datasets

    found: _HubRows = datasets.load_dataset(repository, name=subset, revision=revision)
    return found


def _starter() -> dict[str, SplitRows]:
    folder = resources.files("tinyllm.questions") / "starter"
    rows = {}
    for split in SPLITS:
        with resources.as_file(folder / f"{split}.jsonl") as path:
            found = read_file(Path(path))
            rows[split] = replace(found, items=tuple(found.items))  # the path may be for this block only
    return rows


def _fetch(fetch: Fetch, name: str, repository: str, subset: str | None, revision: str | None) -> _HubRows:
    try:
        return fetch(repository, subset, revision)
    except Exception as error:  # whatever the hub's libraries raise: offline, no such name, gated, moved
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"data.dataset: {name} could not be read from the Hugging Face hub ({repository}): {reason}. "
            "Without the hub, give a local folder with train, valid and test files (.jsonl, .csv, .parquet): "
            "`data.folder: DIR`"
        ) from error


def _convert(known: _HubDataset, found: _HubRows) -> dict[str, SplitRows]:
    rows = {}
    for split, theirs in known.splits.items():
        if theirs not in found:
            raise DataError(f"{known.repository}: no split '{theirs}' (splits: {', '.join(found)}); give `data.folder`")
        rows[split] = _rows(known.repository, theirs, found[theirs], known.convert)
    return rows


def _as_they_are(name: str, found: _HubRows) -> dict[str, SplitRows]:
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
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}, row {number}: not in the form it used to have ({error!r}); the dataset on the hub has "
                "changed. Give a local folder instead: `data.folder: DIR`"
            ) from error
        if cells is not None:
            yield Row(number, where, number, cells, "parquet")


# --- from the hub's rows to ours ---------------------------------------------------------------------------------


def _lettered(theirs: Mapping[str, Any], question: str = "question") -> dict[str, Any]:
    """AI2's form: choices as parallel lists of texts and labels, the answer as a label (empty in a test set)."""
    labels = list(theirs["choices"]["label"])
    answer = theirs["answerKey"]
    return {
        "id": theirs.get("id"),
        "question": theirs[question],
        "choices": list(theirs["choices"]["text"]),
        "answer": labels.index(answer) if answer in labels else answer,
    }


def _numbered(
    theirs: Mapping[str, Any], question: str, choices: Sequence[str], answer: str, *, first: int = 0, context: str = ""
) -> dict[str, Any]:
    """A column for each choice, and the number of the right one; the number may be withheld (-1, or empty)."""
    given = str(theirs[answer]).strip()
    return {
        "id": theirs.get("id"),
        "context": theirs[context] if context else None,
        "question": theirs[question],
        "choices": [theirs[c] for c in choices],
        "answer": None if given in ("", "-1") else int(given) - first,
    }


def _listed(
    theirs: Mapping[str, Any], question: str, choices: str, answer: str, *, context: str = "", letters: bool = False
) -> dict[str, Any]:
    """The choices in a list, the answer as index or letter; it may be withheld."""
    given = str(theirs[answer]).strip()
    index = None if given in ("", "-1") else ord(given) - ord("A") if letters else int(given)
    return {
        "context": theirs[context] if context else None,
        "question": theirs[question],
        "choices": list(theirs[choices]),
        "answer": index,
    }


def _drawn(question: str, choices: Sequence[str], right: int, **more: Any) -> dict[str, Any]:
    """Choices whose right one always stands in one place there: drawn by a hash, the same on every machine."""
    order = sorted(range(len(choices)), key=lambda k: hashlib.sha256(f"{question}\x1f{choices[k]}".encode()).digest())
    return {"question": question, "choices": [choices[k] for k in order], "answer": order.index(right), **more}


def _from_boolq(theirs: Mapping[str, Any]) -> dict[str, Any]:
    answer = 0 if theirs["answer"] else 1
    return {"context": theirs["passage"], "question": theirs["question"], "choices": ["yes", "no"], "answer": answer}


def _from_sciq(theirs: Mapping[str, Any]) -> dict[str, Any]:
    choices = [theirs["correct_answer"], *(theirs[f"distractor{k}"] for k in (1, 2, 3))]
    return _drawn(theirs["question"], choices, 0, context=theirs["support"] or None)


def _from_medqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    letters = sorted(theirs["options"])
    return {
        "question": theirs["question"],
        "choices": [theirs["options"][letter] for letter in letters],
        "answer": letters.index(theirs["answer_idx"]),
    }


def _from_truthfulqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    targets = theirs["mc1_targets"]
    return _drawn(theirs["question"], list(targets["choices"]), list(targets["labels"]).index(1))


def _from_obqa(theirs: Mapping[str, Any]) -> dict[str, Any]:
    return _lettered(theirs, "question_stem")


def _from_arc(theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of ARC-Challenge the paper takes the questions with four choices: 1,117, 295 and 1,165."""
    row = _lettered(theirs, "question")
    return row if len(row["choices"]) == 4 else None


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


def _halves(of: int) -> dict[str, Any]:
    """The official development set in two halves, valid and test: the test set's answers are not published."""
    return {"splits": {"train": "train", "valid": "validation"}, "cut": {"valid": {"test": of // 2}}}


_PARQUET = "refs/convert/parquet"  # the hub's own conversion, where the repository holds a script

_HUB_DATASETS: Mapping[str, _HubDataset] = {
    "obqa": _HubDataset("allenai/openbookqa", _from_obqa, subset="main"),
    "arc": _HubDataset("allenai/ai2_arc", _from_arc, subset="ARC-Challenge"),
    "arc-easy": _HubDataset("allenai/ai2_arc", _lettered, subset="ARC-Easy"),
    "arc-challenge": _HubDataset("allenai/ai2_arc", _lettered, subset="ARC-Challenge"),
    "piqa": _HubDataset("baber/piqa", _from_piqa, **_halves(1838)),
    "riddle": _HubDataset("INK-USC/riddle_sense", _lettered, revision=_PARQUET, **_halves(1021)),
    "pubmedqa": _HubDataset(
        "qiaojin/PubMedQA",
        _from_pubmedqa,
        subset="pqa_labeled",
        splits={"train": "train"},
        cut={"train": {"valid": 100, "test": 400}},
    ),
    "csqa": _HubDataset("tau/commonsense_qa", _lettered, **_halves(1221)),
    "qasc": _HubDataset("allenai/qasc", _lettered, **_halves(926)),
    "mmlu": _HubDataset(
        "cais/mmlu",
        lambda row: _listed(row, "question", "choices", "answer"),
        subset="all",
        splits={"train": "auxiliary_train", "valid": "validation", "test": "test"},
    ),
    # There is nothing to train on but the test set, so it is cut.
    "mmlu-pro": _HubDataset(
        "TIGER-Lab/MMLU-Pro",
        lambda row: _listed(row, "question", "options", "answer_index") | {"id": str(row["question_id"])},
        splits={"train": "test"},
        cut={"train": {"valid": 1000, "test": 6000}},
    ),
    "race": _HubDataset(
        "ehovy/race",
        lambda row: _listed(row, "question", "options", "answer", context="article", letters=True),
        subset="all",
    ),
    "siqa": _HubDataset(
        "lighteval/siqa",
        lambda row: _numbered(row, "question", ("answerA", "answerB", "answerC"), "label", first=1, context="context"),
        **_halves(1954),
    ),
    "winogrande": _HubDataset(
        "allenai/winogrande",
        lambda row: _numbered(row, "sentence", ("option1", "option2"), "answer", first=1),
        subset="winogrande_xl",
        revision=_PARQUET,
        **_halves(1267),
    ),
    "hellaswag": _HubDataset(
        "Rowan/hellaswag",
        lambda row: _listed(row, "ctx", "endings", "label"),
        revision=_PARQUET,
        **_halves(10042),
    ),
    "boolq": _HubDataset("google/boolq", _from_boolq, **_halves(3270)),
    "sciq": _HubDataset("allenai/sciq", _from_sciq),
    "medmcqa": _HubDataset(
        "openlifescienceai/medmcqa",
        lambda row: _numbered(row, "question", ("opa", "opb", "opc", "opd"), "cop"),
        **_halves(4183),
    ),
    "medqa": _HubDataset(
        "GBaker/MedQA-USMLE-4-options",
        _from_medqa,
        splits={"train": "train", "test": "test"},
        cut={"train": {"valid": 1000}},
    ),
    "truthfulqa-mc1": _HubDataset(
        "truthfulqa/truthful_qa",
        _from_truthfulqa,
        subset="multiple_choice",
        splits={"train": "validation"},
        cut={"train": {"valid": 82, "test": 408}},
    ),
    "logiqa": _HubDataset(
        "lucasmccabe/logiqa",
        lambda row: _listed(row, "query", "options", "correct_option", context="context"),
        revision=_PARQUET,
    ),
    "riddlesense": _HubDataset("INK-USC/riddle_sense", _lettered, revision=_PARQUET, **_halves(1021)),
}
_NAMES = ("starter", *_HUB_DATASETS, "bioasq")
