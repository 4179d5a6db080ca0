"""The schema of an experiment file: a grid of datasets, students, methods and seeds over a common configuration."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tinyllm.comparison.answers import Scorer
from tinyllm.config.section import Name, Section
from tinyllm.scoring.predictions import View

Patch = dict[str, Any]
"""Sections of a run's configuration, as in its file."""

Candidates = Annotated[tuple[Any, ...], Field(min_length=1)]


class MethodEntry(Section):
    """A method with settings of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")] = Field(
        description="Its name. The name of a known method changes that method."
    )
    like: str | None = Field(None, description="The known method that it is based on; null: the one with its name.")
    label: str | None = Field(None, description="Its name in tables; null: that of the known method, or `name`.")
    set: Patch = Field(
        default_factory=dict,
        description="Settings that replace those of the known method. The grid's `tune` and `alpha` never change them.",
    )
    tune: dict[str, Candidates] | None = Field(None, description="Its own candidates; null: those of the grid.")


class Grid(Section):
    """An experiment: every method on every dataset, with every student and seed."""

    name: Name = Field(description="Name of the experiment and of its folder.")
    base: Patch = Field(default_factory=dict, description="The configuration that all runs share.")
    datasets: dict[Name, Patch] = Field(
        min_length=1, description="Datasets by name, each with `data`, `teachers` and other settings of its own."
    )
    students: dict[Name, Patch] = Field(
        min_length=1, description="Students by name, each with `student` and other settings of its own."
    )
    methods: tuple[str | MethodEntry, ...] = Field(min_length=1, description="Methods by name, or with own settings.")
    baseline: str = Field("fine-tuning", description="The method that the others are compared with.")
    scorer: Scorer = Field(
        "likelihood",
        description="The accuracy for tables, tests and the choice of candidates. The others are reported beside it. "
        "With `student.layout: cloze`, `likelihood_normalised` is usual, because it does not favour short choices.",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1, description="Seeds of training.")
    alpha: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Values of α to sweep, each with all seeds. The tables show the best one on the validation "
        "questions. A method whose `set` has `train.alpha` keeps its own.",
    )
    tune: dict[str, Candidates] = Field(
        default_factory=dict,
        description="Settings with candidates, such as `train.learning_rate: [5e-5, 1e-4]`. Each trained method gets "
        "the best ones on the validation questions with the first seed. A method whose `set` has one of these settings "
        "keeps its own.",
    )
    views: tuple[View, ...] = Field(
        ("asked", "rotated", "choices-only"),
        description="How test questions are asked with the first seed. With other seeds they are only `asked`.",
    )
    quoted: dict[str, dict[Name, float]] = Field(
        default_factory=dict,
        description="Accuracies from elsewhere to compare with, in per cent, by label and dataset.",
    )
    keep_students: bool = Field(False, description="Keep each trained student. Otherwise only its answers are kept.")

    @property
    def entries(self) -> list[MethodEntry]:
        """The methods, each as an entry."""
        return [MethodEntry(name=m) if isinstance(m, str) else m for m in self.methods]
