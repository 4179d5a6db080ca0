"""A student as a graph without a cache, which ONNX and OpenVINO share: its inputs, and how it ranks choices.

The graph of a causal student takes one question at a time: the prompt, and then all choices in one row. The mask lets a
choice see the prompt and itself, so the prompt is computed once for all choices. The graph of an encoder-decoder takes
the prompt once, and the choices as rows of the decoder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import MissingDependencyError, StudentError, first_line
from tinyllm.export._scores import Progress, counted, option_scores, silence
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Branch, Encoder
from tinyllm.student.model import Student, StudentCard

OUTPUT = "log_probabilities"
_UNSEEN = -1e9  # added to the attention score of a token that is masked


class _Causal(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        """Return the log-probabilities (N, V) of the next token after each of the tokens at `at`."""
        logits = self.model(
            input_ids=input_ids, position_ids=position_ids, attention_mask=mask, use_cache=False, logits_to_keep=at
        ).logits
        return torch.log_softmax(logits[0].float(), -1)


class _EncoderDecoder(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return the log-probabilities (C, L, V) of the next token after each decoder token."""
        states = self.model.get_encoder()(input_ids=input_ids).last_hidden_state
        states = states.expand(decoder_input_ids.shape[0], -1, -1)
        logits = self.model(encoder_outputs=(states,), decoder_input_ids=decoder_input_ids, use_cache=False).logits
        return torch.log_softmax(logits.float(), -1)


@dataclass(frozen=True, slots=True)
class Graph:
    """What is traced.

    Attributes:
        shapes: the inputs by name, and which of their dimensions vary.
    """

    module: nn.Module
    given: tuple[Tensor, ...]
    shapes: Mapping[str, Mapping[int, Any]]


def graph(student: Student) -> Graph:
    """Return the graph of a student."""
    model = student.model.eval().cpu()
    model.set_attn_implementation("eager")
    dim = torch.export.Dim
    tokens = dim("tokens", min=2)
    if student.is_encoder_decoder:
        rows = {0: dim("choices", min=2), 1: dim("length", min=2)}
        return Graph(
            _EncoderDecoder(model),
            (torch.ones(1, 7, dtype=torch.int64), torch.ones(3, 5, dtype=torch.int64)),
            {"input_ids": {1: tokens}, "decoder_input_ids": rows},
        )
    return Graph(
        _Causal(model),
        (torch.ones(1, 7, dtype=torch.int64), torch.arange(7)[None], torch.zeros(1, 1, 7, 7), torch.arange(3)),
        {
            "input_ids": {1: tokens}, "position_ids": {1: tokens}, "mask": {2: tokens, 3: tokens},
            "at": {0: dim("targets", min=2)},
        },
    )  # fmt: skip


@contextlib.contextmanager
def exporting(to: str) -> Iterator[None]:
    """Trace without gradients, and turn any error of the exporter into one message.

    Warnings of torch's exporter and of quantisers are hidden until the block ends. They are about packages that are not
    needed (torchvision) and about other ways to export. `_parity` tests the file.

    Raises:
        StudentError: the exporter cannot trace this model.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # exporters raise errors of many types
        raise StudentError(f"torch cannot export this model to {to}: {first_line(error)}. Use --to merged.") from error
    finally:
        logging.disable(before)


class GraphRuntime(ABC):
    """A graph that some program computes."""

    name: str

    def __init__(self, card: StudentCard, encoder: Encoder, *, start: int | None) -> None:
        """Remember how the student is asked.

        Args:
            start: the first decoder token of an encoder-decoder; None for a causal student.
        """
        self.card, self.encoder, self._start = card, encoder, start

    @abstractmethod
    def compute(self, inputs: Mapping[str, Any]) -> Any:
        """Return the log-probabilities for the arrays of all inputs."""

    def scores(self, questions: Sequence[Question], progress: Progress = silence) -> list[OptionScores]:
        """Return the scores. Questions are computed one after the other."""
        return list(counted(map(self._scored, questions), len(questions), progress))

    def texts(
        self, questions: Sequence[Question], teacher: str, max_new_tokens: int, progress: Progress = silence
    ) -> list[str]:
        """Return the texts from greedy decoding. This is slow for long texts, because the graph has no cache."""
        written = (self._written(q, self.card.prefixes[teacher], max_new_tokens) for q in questions)
        return list(counted(written, len(questions), progress, f"writing as {teacher}"))

    def _scored(self, question: Question) -> OptionScores:
        rows = self.encoder.options(question, self.card.prefixes[ANSWER_TASK])
        branches = [b for row in rows for b in row.branches]
        each = self._log_probabilities(rows[0].prompt, branches)
        return option_scores(question, zip(branches, each, strict=True))

    def _log_probabilities(self, prompt: Sequence[int], branches: Sequence[Branch]) -> list[Any]:
        """Return the log-probability of each target token of each branch, in float64."""
        targets = [b.target for b in branches]
        if self._start is not None:
            width = max(map(len, targets))
            fed = [[self._start, *t[:-1], *[0] * (width - len(t))] for t in targets]
            found = self._run(input_ids=[list(prompt)], decoder_input_ids=_two(fed))
            return [found[n, range(len(t)), list(t)].astype(np.float64) for n, t in enumerate(targets)]
        found, at = self._branched(prompt, targets), 0
        parts = []
        for target in targets:
            parts.append(found[range(at, at + len(target)), list(target)].astype(np.float64))
            at += len(target)
        return parts

    def _branched(self, prompt: Sequence[int], targets: Sequence[Sequence[int]]) -> Any:
        """Return the log-probabilities (N, V) of all target tokens. All branches follow one prompt in one row."""
        tokens, positions, owners, at = list(prompt), list(range(len(prompt))), [0] * len(prompt), list[int]()
        for owner, target in enumerate(targets, 1):
            at += [len(prompt) - 1, *range(len(tokens), len(tokens) + len(target) - 1)]
            positions += range(len(prompt), len(prompt) + len(target) - 1)
            owners += [owner] * (len(target) - 1)
            tokens += target[:-1]
        owner_of = np.array(owners)
        seen = (owner_of[None, :] == 0) | (owner_of[None, :] == owner_of[:, None])
        seen &= np.tri(len(tokens), dtype=bool)
        mask = np.where(seen, 0.0, _UNSEEN).astype(np.float32)[None, None]
        return self._run(input_ids=[tokens], position_ids=[positions], mask=mask, at=at)

    def _written(self, question: Question, prefix: str, most: int) -> str:
        prompt, end = self.encoder.generation_prompt(question, prefix), self.encoder.end
        written: list[int] = []
        while len(written) < most:
            if self._start is not None:
                fed = _two([[self._start, *written, 0]])  # the graph takes at least two tokens, so one is added
                found = self._run(input_ids=[list(prompt)], decoder_input_ids=fed)[0, len(written)]
            else:
                found = self._branched([*prompt, *written], [(end,), (end,)])[0]
            written.append(int(found.argmax()))
            if written[-1] == end or self.card.has_ended(self.encoder.read(written)):
                break
        return self.card.own_rationale(self.encoder.read(written))

    def _run(self, **given: Any) -> Any:
        return self.compute({k: v if isinstance(v, np.ndarray) else np.array(v, np.int64) for k, v in given.items()})


def _two(rows: list[list[int]]) -> list[list[int]]:
    """Return at least two rows of at least two tokens. The graph does not take fewer."""
    wide = [row if len(row) > 1 else [*row, 0] for row in rows]
    return wide if len(wide) > 1 else wide * 2


def require(extra: str, *packages: str) -> None:
    """Check that the packages of a format are installed.

    Raises:
        MissingDependencyError: one of them is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"An export to {extra} needs the package {package}: pip install 'tinyllm-distill[{extra}]'"
            )
