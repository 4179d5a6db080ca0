"""`evaluate`: how the student is scored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tinyllm.config.section import Section


class EvaluateSection(Section):
    """How the student is scored."""

    scorers: tuple[Literal["likelihood", "generation"], ...] = Field(
        ("likelihood", "generation"),
        min_length=1,
        description="Rank the choices by likelihood; generate the answer and match it.",
    )
    before: bool = Field(True, description="Score the untrained student too.")
    max_new_tokens: int = Field(
        48, ge=1, description="Longest generated answer, in tokens; at least as long as the longest choice."
    )
    batch_tokens: int = Field(4096, ge=16, description="Padded tokens in one forward pass.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Precision; bf16 uses autocast.")
    rationales: int = Field(8, ge=0, description="Test questions for which the student also writes rationales.")
    train_questions: int = Field(
        32, ge=0, description="Training questions that are answered for the report; they never count in a result."
    )
    max_rationale_tokens: int = Field(96, ge=1, description="Longest generated rationale.")
