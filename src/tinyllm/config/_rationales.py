"""`rationales`: how rationales are requested, checked and stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from tinyllm.config.section import Section

CheckName = Literal["refused", "empty", "cut_off", "runs_on", "repeats", "wrong_answer", "encoding"]
SAMPLING_DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.95, "seed": 0}
"""The values that null stands for in `rationales`, unless an endpoint does not accept the parameter."""


class ExamplesSection(Section):
    """The in-context examples that precede the question in a teacher's prompt."""

    strategy: Literal["random", "similar", "diverse", "fixed", "none"] = Field(
        "random",
        description="Which training questions are shown. `random`: random ones (the paper). `similar`: the most "
        "similar ones by BM25. `diverse`: similar ones that differ from each other. `fixed`: the same ones for all "
        "questions. `none`: no examples.",
    )
    count: int = Field(2, ge=0, le=32, description="Number of examples per prompt.")
    worked: str | None = Field(
        "worked",
        description="Key of rationales in the questions. Examples are picked among questions that have one, and show "
        "it. null, or too few such questions in the data: examples show only question, choices and answer.",
    )
    ids: tuple[str, ...] = Field(
        (), description="Ids of the training questions to show, for `strategy: fixed`. Empty: drawn at random."
    )
    scope: Literal["question", "block"] = Field(
        "question",
        description="Pick examples for each question, or for a block of consecutive questions. The prompts of a block "
        "begin with the same text, which is faster on servers with a prefix cache.",
    )
    block: int = Field(32, ge=2, description="Number of questions in a block, at most half of all questions.")
    seed: int = Field(0, description="Random seed of the examples.")


class BudgetSection(Section):
    """Hard limits on what a run may spend in total, including earlier attempts that were interrupted. The cost of a
    request is reserved before it is sent.
    """

    usd: float | None = Field(None, ge=0, description="US dollars, computed with the teachers' prices. null: no limit.")
    tokens: int | None = Field(None, ge=0, description="Tokens of prompts and replies. null: no limit.")
    hours: float | None = Field(
        None,
        ge=0,
        description="Hours of sending requests. When they are over, requests already sent are still awaited. null: no "
        "limit.",
    )


class RationalesSection(Section):
    """How rationales are requested, checked and stored."""

    examples: ExamplesSection = Field(default_factory=ExamplesSection, description="In-context examples.")
    teacher_forcing: bool = Field(
        True, description="Tell the teacher the right answer, and ask for an explanation of it (the paper)."
    )
    max_tokens: int = Field(
        256, ge=1, description="Maximum length of a rationale, in the teacher's tokens, without its `thinking_tokens`."
    )
    temperature: float | None = Field(
        None, ge=0, description="Sampling temperature; 0: greedy. null: 0.7, or none if an endpoint does not accept it."
    )
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Nucleus sampling threshold. null: 0.95, or none if an endpoint does not accept it.",
    )
    seed: int | None = Field(None, description="Sampling seed. null: 0, or none if an endpoint does not accept it.")
    samples: int = Field(
        3,
        ge=1,
        le=100,
        description="Maximum number of replies that are sampled until one passes the checks, per question and "
        "teacher. With temperature 0 only one is sampled.",
    )
    several: int = Field(
        1,
        ge=1,
        le=100,
        description="Number of rationales that each teacher writes for a question (SCoTD), each with up to `samples` "
        "replies. Rationales that come with the questions stay one per teacher.",
    )
    checks: tuple[CheckName, ...] = Field(
        get_args(CheckName),
        description="Checks that a rationale must pass. Rationales that fail a check are counted and left out. "
        "`empty` also means too short: fewer than three words, such as the answer alone.",
    )
    repair: bool = Field(
        True,
        description="Repair texts before the checks: remove a new question that follows the rationale, and an "
        "unfinished last sentence.",
    )
    store: Path | None = Field(
        None,
        description="SQLite database of replies. null: replies.sqlite beside the run folder (beside its target, if "
        "the folder is a symbolic link).",
    )
    pooled: bool = Field(
        False,
        description="Also request rationales for questions without an answer, and for those of `data.more`. For a "
        "question without an answer, teachers explain the choice that is most probable in the pooled opinion "
        "(`train.soft`). Such rationales are marked.",
    )
    budget: BudgetSection = Field(default_factory=BudgetSection, description="Hard limits on the spending.")
    engine: Literal["local", "ray"] = Field("local", description="Send requests from this process, or from Ray.")
    ray_address: str | None = Field(None, description="Address of a Ray cluster, or `auto`; null: Ray on this machine.")
    ray_workers: int = Field(
        1, ge=1, description="Number of workers per teacher. The workers of an endpoint share its rate limits."
    )

    @property
    def written(self) -> frozenset[str]:
        """The sampling parameters that the configuration sets."""
        return frozenset(name for name in SAMPLING_DEFAULTS if getattr(self, name) is not None)

    def sampling(self, name: Literal["temperature", "top_p", "seed"]) -> float:
        """Return the value of a sampling parameter, or its default if it is null."""
        value: float | None = getattr(self, name)
        return SAMPLING_DEFAULTS[name] if value is None else value
