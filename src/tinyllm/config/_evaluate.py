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
        description="How the student's answer is found. `likelihood`: the choice with the highest likelihood. "
        "`generation`: the student writes an answer, which is matched with the choices.",
    )
    before: bool = Field(True, description="Also score the untrained student.")
    max_new_tokens: int = Field(
        48,
        ge=1,
        description="Maximum length of a generated answer, in tokens. It is at least that of the longest choice.",
    )
    batch_tokens: int = Field(
        4096,
        ge=16,
        description="Number of tokens in one forward pass, including padding. On a CPU, choices are ranked in passes "
        "of at most 512, which are as fast.",
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Numeric precision. bf16 uses autocast.")
    rationales: int = Field(
        8, ge=0, description="Number of test questions for which the student also writes rationales."
    )
    train_questions: int = Field(
        32,
        ge=0,
        description="Number of training questions that the student answers for the report. They do not count in any "
        "result.",
    )
    max_rationale_tokens: int = Field(96, ge=1, description="Maximum length of a generated rationale, in tokens.")
