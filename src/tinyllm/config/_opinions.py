"""`opinions`: which teachers are asked for their own answer, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tinyllm.config.section import Section

Way = Literal["letters", "texts", "votes", "given"]
_Wish = Literal["letters", "texts", "votes", "given", "auto"]


def _ways(value: Any) -> Any:
    """Accept a list of teachers instead of a mapping from teacher to way."""
    return dict.fromkeys(value, "auto") if isinstance(value, list | tuple) else value


class OpinionsSection(Section):
    """Opinions: what teachers answer themselves, without being told the right answer. An opinion has one probability
    per choice. null: nobody is asked.
    """

    teachers: Annotated[dict[str, _Wish], BeforeValidator(_ways)] = Field(
        default_factory=dict,
        description="Which teachers are asked, and how, as in `{qwen: letters, gpt: votes}`. A list of names, or "
        "`auto`: the best way for each teacher. `letters`: log-probabilities of the choices' letters. `texts`: "
        "likelihoods of the choices' texts. `votes`: replies are sampled and counted. `given`: scores that come with "
        "the questions.",
    )
    splits: tuple[Literal["train", "valid"], ...] = Field(
        ("train",),
        min_length=1,
        description="Splits whose questions are asked. Test questions are never asked. With `train.soft`, the "
        "questions of `data.more` are asked too, and so are validation questions if weights or trust are learnt on "
        "them.",
    )
    orders: int = Field(
        2,
        ge=1,
        le=24,
        description="Number of orders in which the choices are listed, for `letters` and `votes`. The mean over the "
        "orders reduces a teacher's position bias.",
    )
    votes: int = Field(
        8, ge=1, le=100, description="Number of replies per question for `votes`, over all orders together."
    )
    temperature: float = Field(1.0, gt=0, description="Sampling temperature of `votes`.")
    max_tokens: int = Field(16, ge=1, description="Maximum length of a reply for `votes`, without `thinking_tokens`.")
    seed: int = Field(0, ge=0, description="Random seed of the orders and of `votes`.")

    @model_validator(mode="before")
    @classmethod
    def _accept_null(cls, value: Any) -> Any:
        return {} if value is None else value


def ways_of(kind: str) -> tuple[Way, ...]:
    """Return the ways to ask a kind of teacher for its opinion, the best first."""
    ways: Mapping[str, tuple[Way, ...]] = {
        "openai": ("letters", "votes"), "llamacpp": ("letters", "votes"), "vllm": ("letters", "votes"),
        "transformers": ("texts", "letters", "votes"), "given": ("given",), "student": ("texts",),
    }  # fmt: skip
    return ways.get(kind, ("votes",))
