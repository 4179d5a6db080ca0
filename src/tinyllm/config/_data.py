"""`data`: where the questions come from, and which column holds what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tinyllm.config.section import Name, Section


class FieldMap(Section):
    """The columns of a file. Dots reach into nested columns (`choices.text`)."""

    id: str | None = Field(
        "id", description="Column of the question's id. Rows without an id are numbered. null: all rows are numbered."
    )
    question: str = Field("question", description="Column of the question's text.")
    context: str = Field("context", description="Column of the context, if there is one.")
    choices: str | tuple[str, ...] = Field(
        "choices", description="Column that holds the list of choices, or a list of columns, one per choice."
    )
    answer: str | None = Field(
        "answer",
        description="Column of the answer. An empty cell or null means that the answer is unknown. `answer: null`: "
        "the answers of all questions are unknown.",
    )
    answer_as: Literal["index", "number", "letter", "text", "label"] = Field(
        "index",
        description="Form of the answer: `index` (0 is the first choice), `number` (1 is the first choice), `letter` "
        "(A is the first choice), `text` (the choice itself) or `label` (the label of the choice).",
    )
    no_answer: int | str | None = Field(
        None,
        description="Value of the answer column that also means an unknown answer, such as -1. null: there is none.",
    )
    labels: str | None = Field(
        None, description="Column of the list of labels, one per choice, for `answer_as: label`."
    )
    rationales: str = Field("rationales", description="Column of rationales: a mapping from teacher to text.")
    opinions: str = Field(
        "opinions",
        description="Column of opinions: a mapping from teacher to a list of scores, one per choice. Scores are "
        "weights. If one of them is negative, all are log-probabilities.",
    )


class CutSection(Section):
    """How the training file is split into training, validation and test questions."""

    valid: float = Field(0.1, ge=0, lt=1, description="Fraction of the questions with an answer for validation.")
    test: float = Field(0.2, ge=0, lt=1, description="Fraction of the questions with an answer for testing.")
    seed: int = Field(0, description="Random seed of the split.")


_Number = Annotated[int, Field(ge=1)]


class MoreSection(Section):
    """Additional training questions: a file, or the training questions of a named dataset or of a folder."""

    name: Name | None = Field(
        None, description="Prefix of the ids of these questions. null: the name of the dataset, file or folder."
    )
    dataset: str | None = Field(None, description="A named dataset, or owner/name of one on the Hugging Face hub.")
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    folder: Path | None = Field(None, description="Folder with a training file.")
    train: Path | None = Field(None, description="A file of questions (.jsonl, .csv or .parquet).")
    fields: FieldMap | None = Field(
        None,
        description="Which column holds what. null: as in `data.fields` for files, and the dataset's own columns for "
        "a dataset.",
    )
    choices: tuple[str, ...] | None = Field(
        None, min_length=2, description="The same choices for every question. null: `data.choices` for files."
    )
    question: str | None = Field(
        None, min_length=1, description="The same question for every row. null: `data.question` for files."
    )
    limit: int | None = Field(None, ge=1, description="Maximum number of these questions. null: no limit.")
    answers: bool = Field(
        True,
        description="Use the answers of these questions. false: the student learns only the teachers' opinions on "
        "them.",
    )


def _files(value: Any) -> Any:
    """Accept the path of a file instead of a section."""
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
    valid: Path | None = Field(None, description="Validation questions. Settings and checkpoints are selected on them.")
    test: Path | None = Field(None, description="Test questions. They are only used for the final evaluation.")
    cut: CutSection | None = Field(
        None, description="How missing validation and test questions are taken from `train`. null: 10 % and 20 %."
    )
    fields: FieldMap = Field(default_factory=FieldMap, description="Which column holds what.")
    choices: tuple[str, ...] | None = Field(
        None,
        min_length=2,
        description="The same choices for every question, such as the classes of a text classification. null: each "
        "row has its own choices.",
    )
    question: str | None = Field(
        None,
        min_length=1,
        description="The same question for every row, such as `Which class fits?`. The text in the question column "
        "then becomes the context. null: each row has its own question.",
    )
    limit: _Number | dict[Literal["train", "valid", "test"], _Number] | None = Field(
        None,
        description="Maximum number of questions of each split, or of some splits, as in `{train: 100}`. The examples "
        "in prompts come from the questions that are left, so that teachers are asked anew with another limit. null: "
        "no limit.",
    )
    on_invalid: Literal["error", "drop"] = Field(
        "error",
        description="What to do with invalid rows. `error`: stop and list them. `drop`: leave them out and list them "
        "in the report.",
    )
    more: Annotated[tuple[MoreSection, ...], BeforeValidator(_files)] = Field(
        (),
        description="Additional training questions, with or without answers, as in `[more.jsonl, {dataset: obqa}]`. "
        "Those that are equal or nearly equal to a validation or test question, and duplicates of other training "
        "questions, are left out and counted.",
    )
