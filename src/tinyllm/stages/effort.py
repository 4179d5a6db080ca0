"""How long a student's training and evaluation take, before they begin.

Operations: 6 P for each token that is trained on (4 P with LoRA, whose frozen weights need no gradient), 2 P for each
token that is read. P is the number of parameters without embeddings and head. The head is counted at target tokens
only. The speed is that of a matrix product on this machine, times the share of it that training and evaluation reach.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyllm.config import ANSWER_TASK, Config, teachers_in_use
from tinyllm.questions.types import Splits
from tinyllm.stages._auto import search_of
from tinyllm.stages._soft import supposed
from tinyllm.stages.student import given_rationales, most_targets, student_card

if TYPE_CHECKING:
    from tinyllm.rationales.types import Rationale

_SAMPLE = 64  # questions that are tokenised for the estimate
# Shares of the matrix product's speed. In bf16 the product itself is faster, so that everything else weighs more.
_TRAINING, _ASKING = {"fp32": 0.6, "bf16": 0.3, "fp16": 0.3}, {"fp32": 0.45, "bf16": 0.25, "fp16": 0.25}
_WRITING = 0.08
_ENDS_AT = 0.5  # share of the longest rationale at which one ends on average
_START_S = 3.0  # loading, planning, saving


@dataclass(frozen=True, slots=True)
class Effort:
    """The amount of work of a training and an evaluation.

    Attributes:
        head: the parameters that compute logits.
        learnt, targets: tokens of the training over all steps, and those of them with logits.
        read, written: tokens of one evaluation, with all looks at the validation questions.
        read_again: tokens that are read each time that the test questions are read again.
        shown: tokens of the rationales that the student writes for the report.
    """

    parameters: int
    head: int
    learnt: float
    targets: float
    read: float
    read_again: float
    written: float
    shown: float
    is_lora: bool
    trains_in: str
    answers_in: str

    @classmethod
    def of(
        cls,
        config: Config,
        splits: Splits,
        rationales: Sequence[Rationale] | None = None,
        *,
        trains: bool = True,
    ) -> Effort:
        """Estimate the work of a run from a sample of its questions.

        Args:
            rationales: None: those that come with the questions; all others are supposed to be half as long as allowed.
            trains: False: the student is only evaluated.

        Raises:
            TypeError, ValueError, RuntimeError, AttributeError, LookupError: the student's model lacks a usual part.
        """
        from tinyllm.student.model import load_tokenizer, parameters_in_use
        from tinyllm.student.train import tokenise

        tokenizer, model_config = load_tokenizer(config.student)
        card = student_card(config)
        is_encoder_decoder = bool(model_config.is_encoder_decoder)
        longest = config.train.max_target_tokens
        encoder = card.encoder(tokenizer, is_encoder_decoder=is_encoder_decoder, max_target_tokens=longest)
        sample = list(supposed(config, splits)[:_SAMPLE])
        known = {q.id for q in sample}
        given = given_rationales(config, sample) if rationales is None else rationales
        likely, targets = most_targets(config, sample, [r for r in given if r.question_id in known])
        rows = [r for of in tokenise(encoder, sample, targets) for r in of]
        count = max(1, len(sample))
        coming = 0.0
        if rationales is None:
            writers = sum(t.kind != "given" for t in teachers_in_use(likely))
            coming = _ENDS_AT * writers * min(config.rationales.max_tokens, longest)
        passed = _questions_passed(config, splits) if trains else 0
        tested, looked_at = len(splits.test), min(len(splits.valid), config.train.validate_questions)
        asked = splits.test[:_SAMPLE] or splits.valid[:_SAMPLE]
        mean = sum(r.length for q in asked for r in encoder.options(q, card.prefixes[ANSWER_TASK])) / max(1, len(asked))
        steps = passed / config.train.batch_size
        looks = 1 + int(steps / config.train.validate_steps) if config.train.validate_steps else 1
        section = config.evaluate
        written = tested * section.max_new_tokens if "generation" in section.scorers else 0
        if config.train.rationales == "before":
            written += (tested + len(splits.valid)) * section.max_rationale_tokens
        parameters, head = parameters_in_use(model_config)
        return cls(
            parameters=parameters,
            head=head,
            learnt=passed * (sum(r.length for r in rows) / count + coming),
            targets=passed * (sum(len(b.target) for r in rows for b in r.branches) / count + coming),
            read=mean * (tested + looks * looked_at),
            read_again=mean * tested,
            written=float(written),
            shown=_ENDS_AT * 2 * section.rationales * section.max_rationale_tokens * len(teachers_in_use(likely)),
            is_lora=config.student.adapter == "lora",
            trains_in=config.train.precision,
            answers_in=section.precision,
        )

    def seconds(self, peak: Callable[[str], float], *, reads: int = 1, writes: int = 1) -> float:
        """Return the duration at this peak speed, in operations a second.

        Args:
            reads: times that the test questions are read: in several views, or before and after training.
            writes: times that the student writes its answers.
        """
        p, training, answering = self.parameters, peak(self.trains_in), peak(self.answers_in)
        learning = (4 if self.is_lora else 6) * (p * self.learnt + self.head * self.targets)
        train = learning / (_TRAINING[self.trains_in] * training)
        ask = 2 * p * (self.read + self.read_again * (reads - 1)) / (_ASKING[self.answers_in] * answering)
        write = 2 * p * (self.written * writes + self.shown) / (_WRITING * answering)
        return train + ask + write + _START_S


def _questions_passed(config: Config, splits: Splits) -> int:
    """Return how many questions a training goes through, at most; each counts once a pass (an epoch)."""
    questions = len(supposed(config, splits))
    if config.train.method == "auto":
        return search_of(config, questions).most_steps * config.train.batch_size
    passed = config.train.epochs * questions
    most = config.train.max_steps
    return passed if most is None else min(passed, most * config.train.batch_size)
