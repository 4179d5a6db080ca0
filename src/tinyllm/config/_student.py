"""`student`: the small model, its adapters, its prompts and its prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from tinyllm.config.section import Section

ANSWER_TASK = "answer"
"""The name of the answer task. Every other task has the name of a teacher."""

CHOICES_TASK = "answer (choices)"
"""The name of the answer task in logs and counts if choices are compared. No teacher's name has a bracket."""

Layout = Literal["labelled", "release", "cloze"]


class LoraSection(Section):
    """Low-rank adapters."""

    rank: int = Field(16, ge=1, description="Rank of the adapters.")
    alpha: int = Field(32, ge=1, description="Scale of the adapters, divided by the rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    targets: tuple[str, ...] | None = Field(None, description="Names of modules; null: all linear ones, not the head.")


class PrefixesSection(Section):
    """The prefix p of each task (the paper's p_A and p_m)."""

    answer: str = Field("predict: ", description="Prefix of the answer task.")
    rationale: str = Field("explain as {teacher}: ", description="Prefix of a teacher's task; {teacher} is its name.")
    ordered: tuple[str, ...] = Field((), description="Prefixes of the first, second, … teacher; before `rationale`.")


class StudentSection(Section):
    """The small model that is trained."""

    model: str = Field(
        "google/flan-t5-small",
        description="Hub name, folder, .gguf file, a packaged model (`tinyllm models list`), or "
        "tiny-untrained, a tiny model with random weights, for dry runs.",
    )
    revision: str | None = Field(None, description="Commit, branch or tag on the hub.")
    adapter: Literal["full", "lora"] = Field("full", description="Train all weights, or low-rank adapters.")
    lora: LoraSection = Field(default_factory=LoraSection, description="Settings of `adapter: lora`.")
    prefixes: PrefixesSection = Field(default_factory=PrefixesSection, description="One prefix per task.")
    layout: Layout = Field(
        "labelled",
        description="The form of a question: with its choices (`labelled`; `release`: as in the authors' code), "
        "or without them (`cloze`), which is better for small causal students ranked by likelihood.",
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
