"""Scoring: rank the choices by likelihood, or generate the answer and match it.

The two differ. Likelihood asks which choice the student finds likeliest, and always gets an answer. Generation asks
what the student writes, and may get nothing that is a choice (counted as unparsed, and wrong). The paper reports the
second; part of a gain in it is the gain of learning the format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import StudentError
from tinyllm.questions.types import Question
from tinyllm.student.batch import to_device
from tinyllm.student.encode import Encoder, Row
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import Target
from tinyllm.student.model import Student
from tinyllm.student.plan import cut

Progress = Callable[[int, int, str], None]
"""Called with questions done, questions in all, and a note."""


def _silence(done: int, total: int, note: str) -> None:
    """Tell nobody."""


def arithmetic(learner: Learner, precision: Literal["fp32", "bf16"]) -> torch.autocast:
    """Return a context in which a student answers in this precision; its weights stay as they are."""
    return torch.autocast(learner.device.type, torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True, slots=True)
class OptionScores:
    """Log-likelihoods (natural logarithm) of the choices of one question, end-of-text token left out.

    Attributes:
        total: sum over the tokens of each choice.
        mean: the same divided by its number of tokens.
    """

    total: tuple[float, ...]
    mean: tuple[float, ...]

    @property
    def best(self) -> int:
        """The likeliest choice by total log-likelihood."""
        return max(range(len(self.total)), key=self.total.__getitem__)

    @property
    def best_normalised(self) -> int:
        """The likeliest choice by log-likelihood a token."""
        return max(range(len(self.mean)), key=self.mean.__getitem__)


@dataclass(frozen=True, slots=True)
class Generated:
    """What the student wrote, and the choice it is; `choice` is None where it is none (unparsed)."""

    text: str
    choice: int | None


@torch.no_grad()
def score_options(
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    *,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
) -> list[OptionScores]:
    """Return the log-likelihood of every choice of every question under the answering prefix.

    All choices of a question share one pass over its prompt, and questions are batched by length.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt)
    prefix = student.card.prefixes[ANSWER_TASK]
    rows = [encoder.options(q, prefix) for q in questions]
    found = branch_scores(learner, rows, batch_tokens, progress or _silence, "ranking the choices")
    if broken := next(
        (q.id for q, of in zip(questions, found, strict=True) if any(map(math.isnan, (t for t, _ in of.values())))),
        None,
    ):
        raise StudentError(
            f"The student's scores of question '{broken}' are not a number: its weights are spoilt, or its arithmetic "
            "overflows. Train it with a smaller learning rate, or set evaluate.precision to fp32."
        )
    return [_scores([of[str(i)] for i in range(len(of))]) for of in found]


@torch.no_grad()
def score_targets(
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    targets: Sequence[Target],
    *,
    max_target_tokens: int = 256,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
) -> dict[tuple[str, str], float]:
    """Return the mean log-likelihood a token of each target, end-of-text token included, by question id and task.

    Args:
        questions: with ids of their own, as training questions have.
    """
    encoder = student.encoder(share_prompt=learner.share_prompt, max_target_tokens=max_target_tokens)
    of_question: dict[str, list[Target]] = {}
    for target in targets:
        of_question.setdefault(target.question_id, []).append(target)
    asked = [q for q in questions if q.id in of_question]
    rows = [encoder.rows(q, of_question[q.id]) for q in asked]
    found = branch_scores(learner, rows, batch_tokens, progress or _silence, "reading the rationales")
    return {(q.id, task): t / max(1, n) for q, of in zip(asked, found, strict=True) for task, (t, n) in of.items()}


@torch.no_grad()
def branch_scores(
    learner: Learner,
    rows: Sequence[Sequence[Row]],
    batch_tokens: int,
    tell: Progress = _silence,
    what: str = "",
) -> list[dict[str, tuple[float, int]]]:
    """Return, for the rows of each question, the log-likelihood of each branch and its tokens, by task."""
    learner.eval()
    found: list[dict[str, tuple[float, int]]] = [{} for _ in rows]
    # Ids need not be unique here (several splits at once), so a row is named by its question's place.
    flat = [replace(row, question_id=str(place)) for place, of in enumerate(rows) for row in of]
    weights = [tuple(1.0 for _ in row.branches) for row in flat]
    tell(0, len(rows), what)
    done = 0
    for micro in cut(flat, weights, learner.shape(batch_tokens)):
        batch = to_device(learner.collate(micro, ()), learner.device)
        branches = [(int(row.question_id), b) for row in micro.rows for b in row.branches]
        _, each = learner(batch)
        sums = torch.zeros(len(branches), device=learner.device).index_add_(0, batch["branch_ids"], -each)
        for (place, branch), value in zip(branches, sums.tolist(), strict=True):
            found[place][branch.task] = value, len(branch.target)
        done += len(micro.rows)
        tell(done * len(rows) // len(flat), len(rows), what)
    return found


def _scores(choices: Sequence[tuple[float, int]]) -> OptionScores:
    return OptionScores(tuple(t for t, _ in choices), tuple(t / max(1, n) for t, n in choices))


@torch.no_grad()
def generate_texts(
    student: Student,
    questions: Sequence[Question],
    *,
    task: str = ANSWER_TASK,
    max_new_tokens: int = 48,
    batch_tokens: int = 4096,
    progress: Progress | None = None,
) -> list[str]:
    """Return what the student writes for one task, greedily: its answer, or a rationale in a teacher's manner."""
    student.model.eval()
    encoder = student.encoder()
    prompts = [encoder.generation_prompt(q, student.card.prefixes[task]) for q in questions]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]), reverse=True)
    texts, done = [""] * len(prompts), 0
    tell, what = progress or _silence, "writing answers" if task == ANSWER_TASK else f"writing as {task}"
    tell(0, len(prompts), what)
    for group in _groups(order, prompts, max_new_tokens, batch_tokens):
        for i, text in zip(
            group, _generate(student, encoder, [prompts[i] for i in group], max_new_tokens), strict=True
        ):
            texts[i] = text
        done += len(group)
        tell(done, len(prompts), what)
    return texts


def _groups(
    order: Sequence[int], prompts: Sequence[Sequence[int]], new_tokens: int, budget: int
) -> Iterator[Sequence[int]]:
    """Cut an order of prompts, longest first, into batches of at most `budget` tokens, new ones included."""
    start = 0
    while start < len(order):
        size = max(1, budget // (len(prompts[order[start]]) + new_tokens))
        yield order[start : start + size]
        start += size


def _generate(student: Student, encoder: Encoder, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    width = max(map(len, prompts))
    pad = int(student.tokenizer.pad_token_id)
    # A causal student writes on from the right edge, so its padding goes to the left.
    left = not student.is_encoder_decoder
    ids = torch.tensor([_padded(p, width, pad, left) for p in prompts], device=student.model.device)
    mask = torch.tensor([_padded([1] * len(p), width, 0, left) for p in prompts], device=student.model.device)
    output = student.model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad,
        eos_token_id=encoder.end,
    )
    new = output if student.is_encoder_decoder else output[:, width:]
    return [text.strip() for text in student.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _padded(values: Sequence[int], width: int, value: int, left: bool) -> list[int]:
    padding = [value] * (width - len(values))
    return [*padding, *values] if left else [*values, *padding]


def match_choice(text: str, choices: Sequence[str]) -> Generated:
    """Find the choice that a generated answer is: equal after `normalise`, or its letter alone or before its text.

    Two choices that are the same after normalisation match neither.
    """
    said = normalise(text)
    known = [normalise(c) for c in choices]
    letter = re.fullmatch(r"\(?([a-z])\)?", said)
    if said in known:
        hits = [i for i, c in enumerate(known) if c == said]
    elif letter is not None:
        hits = [ord(letter[1]) - ord("a")]
    else:
        hits = [i for i, c in enumerate(known) if re.fullmatch(rf"\(?{chr(ord('a') + i)}\)?[.:]? {re.escape(c)}", said)]
    valid = [i for i in hits if i < len(choices)]
    return Generated(text, valid[0] if len(valid) == 1 else None)


def normalise(text: str) -> str:
    """Lower the case, fold white space, and strip quotation marks and a final full stop, comma or the like."""
    folded = " ".join(text.casefold().split())
    return folded.strip(" \"'“”‘’").rstrip(".,;:!").strip(" \"'“”‘’")
