"""`data`: where the questions come from, and which column holds what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tinyllm.config.section import Name, Section


class FieldMap(Section):
    """The columns of a file. Dots reach into nested columns (`choices.text`)."""

    id: str | None = Field(
        "id", description="Column of the question's id; rows without one are numbered; null: all are numbered."
    )
    question: str = Field("question", description="Column of the question's text.")
    context: str = Field("context", description="Column of the optional context.")
    choices: str | tuple[str, ...] = Field(
        "choices", description="Column that holds the list of choices, or a list of columns, one per choice."
    )
    answer: str | None = Field(
        "answer",
        description="Column of the answer; an empty cell or null: the answer of this question is unknown. "
        "`answer: null`: no question has an answer.",
    )
    answer_as: Literal["index", "number", "letter", "text", "label"] = Field(
        "index",
        description="How the answer is given: index (0 is the first choice), number (1 is the first), letter A…, "
        "the choice's text, or a label.",
    )
    no_answer: int | str | None = Field(
        None,
        description="Value in the answer's column that means an unknown answer, as -1; null: no value.",
    )
    labels: str | None = Field(None, description="Column of the choices' labels, for `answer_as: label`.")
    rationales: str = Field("rationales", description="Column of rationales: a mapping from teacher to text.")
    opinions: str = Field(
        "opinions",
        description="Column of opinions: a mapping from teacher to one score per choice (weights, or log-probabilities "
        "if one is below 0).",
    )


class CutSection(Section):
    """A seeded cut of the training file into splits."""

    valid: float = Field(0.1, ge=0, lt=1, description="Share of the questions for validation.")
    test: float = Field(0.2, ge=0, lt=1, description="Share of the questions for testing.")
    seed: int = Field(0, description="Seed of the cut.")


_Number = Annotated[int, Field(ge=1)]


class MoreSection(Section):
    """More questions to train on: of a file, or the training questions of a named dataset or a folder."""

    name: Name | None = Field(None, description="Stands before their ids; null: the dataset's or the file's name.")
    dataset: str | None = Field(None, description="A named dataset, or owner/name of one on the Hugging Face hub.")
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    folder: Path | None = Field(None, description="Folder with a training file.")
    train: Path | None = Field(None, description="A file of questions (.jsonl, .csv or .parquet).")
    fields: FieldMap | None = Field(
        None, description="Which column holds what; null: as `data.fields`, for a dataset its own."
    )
    choices: tuple[str, ...] | None = Field(None, min_length=2, description="The same choices for every question.")
    question: str | None = Field(None, min_length=1, description="The same question for every row.")
    limit: int | None = Field(None, ge=1, description="At most so many questions.")
    answers: bool = Field(True, description="Use their answers; false: learn from the teachers' opinions alone.")


def _files(value: Any) -> Any:
    """A file may stand where a section of more questions may."""
    if not isinstance(value, list | tuple):
        return value
    return tuple({"train": item} if isinstance(item, str | Path) else item for item in value)


class DataSection(Section):
    """Where the questions come from: a named dataset, a folder with one file per split, or files."""

    dataset: str | None = Field(
        None,
        description="A named dataset (starter, arc-easy, arc-challenge, obqa, csqa, mmlu, mmlu-pro, race, qasc, siqa, "
        "piqa, winogrande, hellaswag, boolq, sciq, medmcqa, medqa, pubmedqa, truthfulqa-mc1, logiqa, riddlesense, arc, "
        "riddle, bioasq), or owner/name of one on the Hugging Face hub.",
    )
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    folder: Path | None = Field(None, description="Folder with train, valid and test files (.jsonl, .csv, .parquet).")
    train: Path | None = Field(None, description="Questions to train on (.jsonl, .csv or .parquet).")
    valid: Path | None = Field(None, description="Questions to select on.")
    test: Path | None = Field(None, description="Questions to evaluate on.")
    cut: CutSection | None = Field(None, description="Cut missing splits from `train`; default 10 % and 20 %.")
    fields: FieldMap = Field(default_factory=FieldMap, description="Which column holds what.")
    choices: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The same choices for every question: the classes, if texts are to be classified; "
        "null: each row has its own.",
    )
    question: str | None = Field(
        None,
        min_length=1,
        description="The same question for every row, as in `Which class fits?`; the text in the question's column "
        "becomes the context. null: each row has its own.",
    )
    limit: _Number | dict[Literal["train", "valid", "test"], _Number] | None = Field(
        None, description="Use at most this many questions of each split; or of some splits, as in `{train: 100}`."
    )
    on_invalid: Literal["error", "drop"] = Field("error", description="What to do about invalid rows.")
    more: Annotated[tuple[MoreSection, ...], BeforeValidator(_files)] = Field(
        (),
        description="More questions for training only, as in `[more.jsonl, {dataset: obqa}]`, with answers or without. "
        "Those that are the same as a validation or test question, or nearly, are left out and counted. So are those "
        "that are the same as another training question.",
    )
