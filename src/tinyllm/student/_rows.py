"""Rows: a prompt and its continuations, in tokens. `encode` makes them, and `plan` puts them into steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Branch:
    """One task of a row, in tokens: `prefix` is given, `target` is learnt.

    Attributes:
        weight: α of the task.
        mean: as of a `Target`.
    """

    task: str
    prefix: tuple[int, ...]
    target: tuple[int, ...]
    weight: float = 1.0
    mean: str = ""


@dataclass(frozen=True, slots=True)
class Choice(Branch):
    """A branch that is compared with the other choices of its question in the same task.

    All of them are computed in one forward pass, because the loss of one depends on the others.

    Attributes:
        share: its target probability.
        scale: the factor of its log-likelihood in the comparison: 1, or 1 / tokens for the mean.
        text: α of the same tokens as a text, if they are also learnt as a text. In a step of the plan: the weight of
            each token as a text, divided by the weight of the question.
    """

    share: float = 0.0
    scale: float = 1.0
    text: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and the branches that continue it; an encoder-decoder's row has exactly one, with an empty prefix.

    Attributes:
        fading: begin and end, in the prompt, of the rationale that is dropped step by step; (0, 0): there is none.
    """

    question_id: str
    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]
    fading: tuple[int, int] = field(default=(0, 0), repr=False)

    @property
    def target_length(self) -> int:
        """The tokens of all branches."""
        return sum(len(b.prefix) + len(b.target) for b in self.branches)

    @property
    def length(self) -> int:
        """The tokens of the prompt and all branches."""
        return len(self.prompt) + self.target_length

    def apart(self) -> list[Row]:
        """Return one row per branch, for models that do not accept the mask of a shared prompt."""
        return [replace(self, branches=(branch,)) for branch in self.branches]

    def faded(self, share: float) -> Row:
        """Return the row with only this share of the rationale in its prompt."""
        start, end = self.fading
        kept = shortened(self.prompt[start:end], round(share * (end - start)))
        return replace(self, prompt=(*self.prompt[:start], *kept, *self.prompt[end:]), fading=(0, 0))


def shortened(line: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """Return so many tokens of a line: the first ones and the last one, which ends the line."""
    return line if tokens >= len(line) else (*line[: tokens - 1], line[-1]) if tokens > 0 else ()
