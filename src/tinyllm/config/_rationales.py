"""`rationales`: how rationales are requested, checked and stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from tinyllm.config.section import Section

CheckName = Literal["refused", "empty", "cut_off", "runs_on", "repeats", "wrong_answer", "encoding"]
SAMPLING_DEFAULTS: Mapping[str, float] = {"temperature": 0.7, "top_p": 0.95, "seed": 0}
"""The meaning of null in `rationales`, unless an endpoint does not accept the parameter."""


class ExamplesSection(Section):
    """The in-context examples before the question in a teacher's prompt."""

    strategy: Literal["random", "similar", "diverse", "fixed", "none"] = Field(
        "random",
        description="Which training questions are shown: random ones (the paper), the most similar by BM25, similar "
        "ones that differ from each other, the same ones for all questions, or none.",
    )
    count: int = Field(2, ge=0, le=32, description="Examples per prompt.")
    worked: str | None = Field(
        "worked",
        description="Pick from the questions that have a rationale under this key, and show it; "
        "null, or none in the data: examples show only question, choices and answer.",
    )
    ids: tuple[str, ...] = Field((), description="Training questions to show, for `fixed`; empty: drawn by the seed.")
    scope: Literal["question", "block"] = Field(
        "question",
        description="Pick examples for each question, or for a block of consecutive questions. The prompts of a block "
        "begin alike, which is faster on servers with a prefix cache.",
    )
    block: int = Field(32, ge=2, description="Questions in a block; at most half of all questions.")
    seed: int = Field(0, description="Seed of the pick.")


class BudgetSection(Section):
    """Limits of what a run may spend in total, also if it is interrupted. Requests count before they are sent."""

    usd: float | None = Field(None, ge=0, description="US dollars, by the teachers' prices.")
    tokens: int | None = Field(None, ge=0, description="Tokens of prompts and replies.")
    hours: float | None = Field(None, ge=0, description="Hours of requests; requests already sent are awaited.")


class RationalesSection(Section):
    """How rationales are requested, checked and stored."""

    examples: ExamplesSection = Field(default_factory=ExamplesSection, description="In-context examples.")
    teacher_forcing: bool = Field(True, description="Tell the teacher the right answer and ask why (the paper).")
    max_tokens: int = Field(
        256, ge=1, description="Longest rationale, in the teacher's tokens, without its `thinking_tokens`."
    )
    temperature: float | None = Field(
        None, ge=0, description="Sampling temperature; 0: greedy. null: 0.7, or none if an endpoint does not accept it."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Nucleus sampling. null: 0.95, or none if an endpoint does not accept it."
    )
    seed: int | None = Field(None, description="Sampling seed. null: 0, or none if an endpoint does not accept it.")
    samples: int = Field(
        3,
        ge=1,
        le=100,
        description="Attempts per question and teacher until a reply passes the checks; greedy: 1.",
    )
    several: int = Field(
        1,
        ge=1,
        le=100,
        description="Rationales that each teacher writes for a question (SCoTD), each with `samples` tries. Those that "
        "come with the questions are one.",
    )
    checks: tuple[CheckName, ...] = Field(
        get_args(CheckName),
        description="Checks that a rationale must pass; others are counted and left out.",
    )
    repair: bool = Field(
        True, description="Before the checks, cut a text after its last good sentence if it is cut off or runs on."
    )
    store: Path | None = Field(
        None,
        description="Database of replies; null: replies.sqlite beside the run folder (beside its target, if the "
        "folder is a symbolic link).",
    )
    pooled: bool = Field(
        False,
        description="Also explain questions without an answer, and those of `data.more`; a question without an answer "
        "is explained as if the pooled opinion (`train.soft`) were right, and its rationale is marked.",
    )
    budget: BudgetSection = Field(default_factory=BudgetSection, description="A hard limit on the spending.")
    engine: Literal["local", "ray"] = Field("local", description="Send requests from this process, or from Ray.")
    ray_address: str | None = Field(None, description="Address of a Ray cluster, or `auto`; null: Ray on this machine.")
    ray_workers: int = Field(1, ge=1, description="Workers per teacher; the workers of an endpoint share its limits.")

    @property
    def written(self) -> frozenset[str]:
        """The sampling parameters that the user has set."""
        return frozenset(name for name in SAMPLING_DEFAULTS if getattr(self, name) is not None)

    def sampling(self, name: Literal["temperature", "top_p", "seed"]) -> float:
        """Return a sampling parameter, or the meaning of null."""
        value: float | None = getattr(self, name)
        return SAMPLING_DEFAULTS[name] if value is None else value
