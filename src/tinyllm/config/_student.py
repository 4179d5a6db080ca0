"""`student`: the small model, its adapters, its prompts and its prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tinyllm.config.section import Section

ANSWER_TASK = "answer"
"""The name of the answer task. Every other task has the name of a teacher."""

CHOICES_TASK = "answer (choices)"
"""The name of the answer task in logs and counts if the student compares choices. A teacher's name has no brackets."""

Layout = Literal["labelled", "release", "cloze"]


class LoraSection(Section):
    """Low-rank adapters."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(
        32, ge=1, description="Scaling factor: the output of the adapters is multiplied by `alpha` / `rank`."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    targets: tuple[str, ...] | None = Field(
        None, description="Names of the modules that get adapters. null: all linear layers except the head."
    )


class PrefixesSection(Section):
    """The prefix p of each task (the paper's p_A and p_m)."""

    answer: str = Field("predict: ", description="Prefix of the answer task.")
    rationale: str = Field("explain as {teacher}: ", description="Prefix of a teacher's task; {teacher} is its name.")
    ordered: tuple[str, ...] = Field(
        (), description="Prefixes of the first, second, … teacher. They replace `rationale` for these teachers."
    )


class StudentSection(Section):
    """The small model that is trained."""

    model: str = Field(
        "google/flan-t5-small",
        description="Hub name, folder, .gguf file or packaged model (`tinyllm models list`); or tiny-untrained, a "
        "tiny model with random weights, for dry runs.",
    )
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    adapter: Literal["full", "lora"] = Field("full", description="Train all weights, or low-rank adapters.")
    lora: LoraSection = Field(default_factory=LoraSection, description="Settings of `adapter: lora`.")
    prefixes: PrefixesSection = Field(default_factory=PrefixesSection, description="One prefix per task.")
    layout: Layout = Field(
        "labelled",
        description="Form of the prompt. `labelled`: the question with its labelled choices. `release`: with its "
        "choices as in the authors' code. `cloze`: the question without its choices, which is better for small causal "
        "students that are scored by likelihood.",
    )


def task_prefixes(prefixes: PrefixesSection, teachers: Sequence[str]) -> dict[str, str]:
    """Return the prefix of every task: p_A for answering, p_m for each teacher (the paper's notation)."""
    named = {ANSWER_TASK: prefixes.answer}
    for index, teacher in enumerate(teachers):
        ordered = prefixes.ordered[index] if index < len(prefixes.ordered) else None
        named[teacher] = prefixes.rationale.replace("{teacher}", teacher) if ordered is None else ordered
    return named


def compares_by_token(layout: Layout) -> bool:
    """Tell whether choices are compared by mean log-likelihood per token, or by the total (decisions 13 and 17).

    The total decreases with every token. A student that sees the choices knows which texts are possible, so the total
    is right. A student that does not see them would choose the shortest.
    """
    return layout == "cloze"
