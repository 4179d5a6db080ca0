"""`opinions`: which teachers are asked for their own answer, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tinyllm.config.section import Section

Way = Literal["letters", "texts", "votes", "given"]


def _ways(value: Any) -> Any:
    """Accept a list of teachers instead of a mapping from teacher to way."""
    return dict.fromkeys(value, "auto") if isinstance(value, list | tuple) else value


class OpinionsSection(Section):
    """What the teachers themselves would answer, asked without the answer: one probability per choice."""

    teachers: Annotated[dict[str, Way | Literal["auto"]], BeforeValidator(_ways)] = Field(
        default_factory=dict,
        description="Which teachers are asked, and how, as in `{qwen: letters, gpt: votes}`; a list of names: each in "
        "its best way. `letters`: log-probabilities of the choices' letters. `texts`: likelihood of the choices. "
        "`votes`: replies are counted. `given`: scores that come with the questions.",
    )
    splits: tuple[Literal["train", "valid"], ...] = Field(
        ("train",),
        min_length=1,
        description="The questions that are asked. Never the test questions. With `train.soft` also those of "
        "`data.more`, and the validation questions where weights or trust are learned on them.",
    )
    orders: int = Field(
        2,
        ge=1,
        le=24,
        description="Orders in which the choices are listed, for `letters` and `votes`; the mean over them removes a "
        "teacher's preference for a place.",
    )
    votes: int = Field(8, ge=1, le=100, description="Replies that are counted, for `votes`, over all orders.")
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of `votes`.")
    max_tokens: int = Field(16, ge=1, description="Longest reply of `votes`, without `thinking_tokens`.")
    seed: int = Field(0, ge=0, description="Seed of the orders and of `votes`.")


def ways_of(kind: str) -> tuple[Way, ...]:
    """Return the ways to ask a kind of teacher for its opinion, the best first."""
    ways: Mapping[str, tuple[Way, ...]] = {
        "openai": ("letters", "votes"), "llamacpp": ("letters", "votes"), "vllm": ("letters", "votes"),
        "transformers": ("texts", "letters", "votes"), "given": ("given",), "student": ("texts",),
    }  # fmt: skip
    return ways.get(kind, ("votes",))
