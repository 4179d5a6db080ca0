"""Rows: a prompt and what continues it, in tokens; what `encode` makes and `plan` puts into steps."""

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
    """A branch that is compared with the other choices of its question, those of the same task.

    All of them are computed in one forward pass: the loss of one depends on the others.

    Attributes:
        share: the probability that is to go to it.
        scale: what its log-likelihood is multiplied by before the comparison: 1, or 1 / tokens for the mean.
        text: α of the same tokens as a text, where they are learnt as one, too. In a step of the plan: the weight of
            each token as a text, divided by that of the question.
    """

    share: float = 0.0
    scale: float = 1.0
    text: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and the branches that continue it; an encoder-decoder's row has exactly one, with an empty prefix.

    Attributes:
        fading: where in the prompt the rationale begins and ends that is dropped step by step; nothing: (0, 0).
    """

    question_id: str
    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]
    fading: tuple[int, int] = field(default=(0, 0), repr=False)

    @property
    def target_length(self) -> int:
        """Tokens of all branches that a decoder is fed."""
        return sum(len(b.prefix) + len(b.target) for b in self.branches)

    @property
    def length(self) -> int:
        """Tokens of prompt and branches."""
        return len(self.prompt) + self.target_length

    def apart(self) -> list[Row]:
        """Return one row a branch, for models that cannot take the mask of a shared prompt."""
        return [replace(self, branches=(branch,)) for branch in self.branches]

    def faded(self, share: float) -> Row:
        """Return the row with this share of the rationale in its input."""
        start, end = self.fading
        kept = shortened(self.prompt[start:end], round(share * (end - start)))
        return replace(self, prompt=(*self.prompt[:start], *kept, *self.prompt[end:]), fading=(0, 0))


def shortened(line: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """Return so many tokens of a line; of a causal student's prompt the last one, which is kept, ends the line."""
    return line if tokens >= len(line) else (*line[: tokens - 1], line[-1]) if tokens > 0 else ()
