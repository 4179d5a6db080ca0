"""The named datasets: where each one is, and how its rows are converted.

`starter` comes with the package. The others are read from the Hugging Face hub, from repositories with Parquet files.
No code from the hub is ever run. Where the answers of the test set are not published (PIQA, RiddleSense, CommonsenseQA,
QASC, Social IQa, WinoGrande, HellaSwag, BoolQ, MedMCQA), the official development set is cut into two halves, valid and
test, as in the paper. PubMedQA's 1,000 expert-labelled questions are cut into 500, 100 and 400. MMLU-Pro and TruthfulQA
have no training set, so their test questions are cut. These cuts are ours. They are made by a fixed seed. `tinyllm
import-release` reads the cuts of the paper's authors. `arc` is ARC-Challenge as in the paper, `arc-challenge` is all of
it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from tinyllm.errors import DataError, did_you_mean, first_line
from tinyllm.questions._files import Row, SplitRows, read_file
from tinyllm.questions._rows import RowForm

SPLITS: tuple[Literal["train", "valid", "test"], ...] = ("train", "valid", "test")
_HUB_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("validation", "valid", "dev"),
    "test": ("test",),
}

_Cells = Mapping[str, Any]
_HubRows = Mapping[str, Iterable[_Cells]]
_Convert = Callable[[_Cells], _Cells | None]
Fetch = Callable[[str, str | None, str | None], _HubRows]
"""From repository, subset and revision to the rows of each split on the hub."""


@dataclass(frozen=True, slots=True)
class _HubDataset:
    """A dataset on the hub.

    Attributes:
        convert: converts a row on the hub to our format; None leaves the row out.
        splits: our split → the split on the hub.
        cut: for each split that is cut, the sizes of the splits that are cut from it. The rest stays in it.
    """

    repository: str
    convert: _Convert
    subset: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "valid": "validation", "test": "test"})
    cut: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedSplits:
    """The rows of each split, how to read them, and which splits must be cut from which."""

    rows: Mapping[str, SplitRows]
    form: RowForm
    cut: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def load_named(name: str, subset: str | None, form: RowForm, fetch: Fetch | None = None) -> NamedSplits:
    """Read a dataset by its name in the table, or by owner/name on the hub.

    Args:
        subset: configuration name of an owner/name dataset.
        form: how the rows of an owner/name dataset are read. For the table's datasets it is known.
        fetch: how to read from the hub; for tests. Default: `datasets.load_dataset`.

    Raises:
        DataError: there is no such name, or the hub cannot be read. The message says how to give a local folder.
    """
    if name == "starter":
        return NamedSplits(_starter(), RowForm())
    if name == "bioasq":
        raise DataError(
            "data.dataset: bioasq has no open copy on the hub (bioasq.org gives its questions out after "
            "registration). Give `data.folder` with train, valid and test files, or make such a folder from the "
            "paper's published files: `tinyllm import-release DIR`"
        )
    fetch = fetch or _fetch_from_hub
    if name in _HUB_DATASETS:
        known = _HUB_DATASETS[name]
        found = _fetch(fetch, name, known.repository, known.subset, known.revision)
        for theirs in known.splits.values():
            if theirs not in found:
                raise DataError(
                    f"{known.repository}: no split '{theirs}' (splits: {', '.join(found)}); give `data.folder`"
                )
        return NamedSplits(_rows(known.repository, known.splits, found, known.convert), RowForm(), known.cut)
    if "/" in name:
        found = _fetch(fetch, name, name, subset, None)
        there = {ours: next((n for n in names if n in found), None) for ours, names in _HUB_NAMES.items()}
        splits = {ours: theirs for ours, theirs in there.items() if theirs is not None}
        if "train" not in splits:
            raise DataError(
                f"data.dataset: {name} has no split 'train' (splits: {', '.join(found)}); save the split to train on "
                "as a file and give it as `data.train`"
            )
        return NamedSplits(_rows(name, splits, found, dict), form)
    raise DataError(
        f"data.dataset: no dataset '{name}'.{did_you_mean(name, _NAMES)} Known: {', '.join(_NAMES)}; "
        "or owner/name of a dataset on the Hugging Face hub; or give `data.folder`",
        page="questions.md#splits-bad-rows-named-datasets",
    )


def _fetch_from_hub(repository: str, subset: str | None, revision: str | None) -> _HubRows:
    """Read all splits of a dataset from the hub or from its local cache."""
    import datasets

    found: _HubRows = datasets.load_dataset(repository, name=subset, revision=revision)
    return found


def _starter() -> dict[str, SplitRows]:
    rows: dict[str, SplitRows] = {}
    for split in SPLITS:
        with resources.as_file(resources.files("tinyllm.questions") / "starter" / f"{split}.jsonl") as path:
            found = read_file(Path(path))
            rows[split] = replace(found, items=tuple(found.items))  # the path may exist only inside this block
    return rows


def _fetch(fetch: Fetch, name: str, repository: str, subset: str | None, revision: str | None) -> _HubRows:
    try:
        return fetch(repository, subset, revision)
    except Exception as error:  # the hub's libraries raise many types: offline, no such name, gated, moved
        raise DataError(
            f"data.dataset: {name} could not be read from the Hugging Face hub ({repository}): {first_line(error)}. "
            "Without the hub, give a local folder with train, valid and test files (.jsonl, .csv, .parquet): "
            "`data.folder: DIR`"
        ) from error


def _rows(repository: str, splits: Mapping[str, str], found: _HubRows, convert: _Convert) -> dict[str, SplitRows]:
    where = {ours: f"{repository}, split {theirs}" for ours, theirs in splits.items()}
    return {
        ours: SplitRows(where[ours], _converted(where[ours], found[theirs], convert)) for ours, theirs in splits.items()
    }


def _converted(where: str, found: Iterable[_Cells], convert: _Convert) -> Iterator[Row]:
    for number, theirs in enumerate(found, 1):
        try:
            cells = convert(theirs)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}, row {number}: not in the known format ({error!r}); the dataset on the hub has changed. "
                "Give a local folder instead: `data.folder: DIR`"
            ) from error
        if cells is not None:
            yield Row(number, where, number, cells, "parquet")


# --- from the hub's rows to ours ---------------------------------------------------------------------------------


def _lettered(theirs: _Cells, question: str = "question", choices: int | None = None) -> dict[str, Any] | None:
    """Convert AI2's format: parallel lists of texts and labels, the answer as a label (empty in a test set).

    Args:
        choices: leave out rows with another number of choices.
    """
    texts, labels = list(theirs["choices"]["text"]), list(theirs["choices"]["label"])
    answer = theirs["answerKey"]
    if choices is not None and len(texts) != choices:
        return None
    return {
        "id": theirs.get("id"),
        "question": theirs[question],
        "choices": texts,
        "answer": labels.index(answer) if answer in labels else answer,
    }


def _numbered(
    theirs: _Cells, question: str, choices: Sequence[str], answer: str, *, first: int = 0, context: str = ""
) -> dict[str, Any]:
    """Convert a format with a column for each choice and the number of the right one, or -1 or nothing if withheld."""
    given = str(theirs[answer]).strip()
    return {
        "id": theirs.get("id"),
        "context": theirs[context] if context else None,
        "question": theirs[question],
        "choices": [theirs[c] for c in choices],
        "answer": None if given in ("", "-1") else int(given) - first,
    }


def _listed(
    theirs: _Cells,
    question: str,
    choices: str,
    answer: str,
    *,
    context: str = "",
    letters: bool = False,
    name: str = "",
) -> dict[str, Any]:
    """Convert a format with a list of choices and the answer as index or letter, or -1 or nothing if withheld."""
    given = str(theirs[answer]).strip()
    return {
        "id": str(theirs[name]) if name else None,
        "context": theirs[context] if context else None,
        "question": theirs[question],
        "choices": list(theirs[choices]),
        "answer": None if given in ("", "-1") else ord(given) - ord("A") if letters else int(given),
    }


def _drawn(question: str, choices: Sequence[str], right: int, **more: Any) -> dict[str, Any]:
    """Reorder choices whose right one always has the same place. A hash gives the order, the same on every machine."""
    order = sorted(range(len(choices)), key=lambda k: hashlib.sha256(f"{question}\x1f{choices[k]}".encode()).digest())
    return {"question": question, "choices": [choices[k] for k in order], "answer": order.index(right), **more}


def _from_boolq(theirs: _Cells) -> dict[str, Any]:
    answer = 0 if theirs["answer"] else 1
    return {"context": theirs["passage"], "question": theirs["question"], "choices": ["yes", "no"], "answer": answer}


def _from_sciq(theirs: _Cells) -> dict[str, Any]:
    choices = [theirs["correct_answer"], *(theirs[f"distractor{k}"] for k in (1, 2, 3))]
    return _drawn(theirs["question"], choices, 0, context=theirs["support"] or None)


def _from_medqa(theirs: _Cells) -> dict[str, Any]:
    letters = sorted(theirs["options"])
    return {
        "question": theirs["question"],
        "choices": [theirs["options"][letter] for letter in letters],
        "answer": letters.index(theirs["answer_idx"]),
    }


def _from_truthfulqa(theirs: _Cells) -> dict[str, Any]:
    targets = theirs["mc1_targets"]
    return _drawn(theirs["question"], list(targets["choices"]), list(targets["labels"]).index(1))


def _from_piqa(theirs: _Cells) -> dict[str, Any]:
    return {"question": theirs["goal"], "choices": [theirs["sol1"], theirs["sol2"]], "answer": theirs["label"]}


def _from_pubmedqa(theirs: _Cells) -> dict[str, Any]:
    answer, answers = theirs["final_decision"], ["yes", "no", "maybe"]
    return {
        "id": str(theirs["pubid"]),
        "question": theirs["question"],
        "context": "\n".join(theirs["context"]["contexts"]),
        "choices": answers,
        "answer": answers.index(answer) if answer in answers else answer,
    }


def _halves(of: int) -> dict[str, Any]:
    """Cut the official development set into two halves, valid and test. The test set's answers are not published."""
    return {"splits": {"train": "train", "valid": "validation"}, "cut": {"valid": {"test": of // 2}}}


_PARQUET = "refs/convert/parquet"  # the hub's own conversion, for repositories that hold a script
_RIDDLE = _HubDataset("INK-USC/riddle_sense", _lettered, revision=_PARQUET, **_halves(1021))
_HUB_DATASETS: Mapping[str, _HubDataset] = {
    "obqa": _HubDataset("allenai/openbookqa", partial(_lettered, question="question_stem"), subset="main"),
    # The paper takes the questions of ARC-Challenge with four choices: 1,117, 295 and 1,165.
    "arc": _HubDataset("allenai/ai2_arc", partial(_lettered, choices=4), subset="ARC-Challenge"),
    "arc-easy": _HubDataset("allenai/ai2_arc", _lettered, subset="ARC-Easy"),
    "arc-challenge": _HubDataset("allenai/ai2_arc", _lettered, subset="ARC-Challenge"),
    "piqa": _HubDataset("baber/piqa", _from_piqa, **_halves(1838)),
    "riddle": _RIDDLE,
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
        partial(_listed, question="question", choices="choices", answer="answer"),
        subset="all",
        splits={"train": "auxiliary_train", "valid": "validation", "test": "test"},
    ),
    # Only the test set has enough questions to train on, so it is cut.
    "mmlu-pro": _HubDataset(
        "TIGER-Lab/MMLU-Pro",
        partial(_listed, question="question", choices="options", answer="answer_index", name="question_id"),
        splits={"train": "test"},
        cut={"train": {"valid": 1000, "test": 6000}},
    ),
    "race": _HubDataset(
        "ehovy/race",
        partial(_listed, question="question", choices="options", answer="answer", context="article", letters=True),
        subset="all",
    ),
    "siqa": _HubDataset(
        "lighteval/siqa",
        partial(
            _numbered,
            question="question",
            choices=("answerA", "answerB", "answerC"),
            answer="label",
            first=1,
            context="context",
        ),
        **_halves(1954),
    ),
    "winogrande": _HubDataset(
        "allenai/winogrande",
        partial(_numbered, question="sentence", choices=("option1", "option2"), answer="answer", first=1),
        subset="winogrande_xl",
        revision=_PARQUET,
        **_halves(1267),
    ),
    "hellaswag": _HubDataset(
        "Rowan/hellaswag",
        partial(_listed, question="ctx", choices="endings", answer="label"),
        revision=_PARQUET,
        **_halves(10042),
    ),
    "boolq": _HubDataset("google/boolq", _from_boolq, **_halves(3270)),
    "sciq": _HubDataset("allenai/sciq", _from_sciq),
    "medmcqa": _HubDataset(
        "openlifescienceai/medmcqa",
        partial(_numbered, question="question", choices=("opa", "opb", "opc", "opd"), answer="cop"),
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
        partial(_listed, question="query", choices="options", answer="correct_option", context="context"),
        revision=_PARQUET,
    ),
    "riddlesense": _RIDDLE,
}
_NAMES = ("starter", *_HUB_DATASETS, "bioasq")
