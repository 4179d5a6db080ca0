"""What an experiment file may say: a grid of datasets, students, methods and seeds over a common configuration."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tinyllm.comparison.answers import Scorer
from tinyllm.config.schema import Name, Section
from tinyllm.scoring.views import View

Patch = dict[str, Any]
"""Sections of a run's configuration, as in its file."""


Candidates = Annotated[tuple[Any, ...], Field(min_length=1)]


class MethodEntry(Section):
    """A method with settings of its own."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")] = Field(
        description="What it is called; a known method's name changes that one."
    )
    like: str | None = Field(None, description="The known method that it changes; null: the one of its name.")
    label: str | None = Field(None, description="Its name in tables; null: as the known method's, or `name`.")
    set: Patch = Field(
        default_factory=dict,
        description="Settings laid over the known method's. They are never overridden by `tune` or `alpha` for all.",
    )
    tune: dict[str, Candidates] | None = Field(None, description="Candidates of its own; null: as for all.")


class Grid(Section):
    """An experiment: every method on every dataset, with every student and seed."""

    name: Name = Field(description="Name of the experiment and of its folder.")
    base: Patch = Field(default_factory=dict, description="The configuration that all runs have in common.")
    datasets: dict[Name, Patch] = Field(
        min_length=1, description="Datasets by name, each with `data`, `teachers` and whatever else is its own."
    )
    students: dict[Name, Patch] = Field(
        min_length=1, description="Students by name, each with `student` and whatever else is its own."
    )
    methods: tuple[str | MethodEntry, ...] = Field(min_length=1, description="Methods by name, or with own settings.")
    baseline: str = Field("fine-tuning", description="The method that the others are compared with.")
    scorer: Scorer = Field(
        "likelihood",
        description="Which accuracy tables, tests and every choice of candidates go by; the others are reported beside "
        "it. With `student.layout: cloze`, `likelihood_normalised` is usual: long choices are then not at a "
        "disadvantage.",
    )
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1, description="Seeds of training.")
    alpha: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Values of α to sweep, with every seed; the best on the validation questions stands in tables. A "
        "method whose own `set` gives `train.alpha` keeps that.",
    )
    tune: dict[str, Candidates] = Field(
        default_factory=dict,
        description="Settings and their candidates, as in `train.learning_rate: [5e-5, 1e-4]`; every trained method "
        "gets the best on the validation questions, tried with the first seed. A method whose own `set` gives one of "
        "these settings keeps that.",
    )
    views: tuple[View, ...] = Field(
        ("asked", "rotated", "choices-only"),
        description="How test questions are asked with the first seed; with the others only as they are.",
    )
    quoted: dict[str, dict[Name, float]] = Field(
        default_factory=dict, description="Accuracies from elsewhere to show beside, in per cent: label, dataset."
    )
    keep_students: bool = Field(False, description="Keep each trained student; else only what it answered.")
