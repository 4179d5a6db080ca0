"""The ONNX format: a writer, and a runtime that computes the export with onnxruntime.

The file of a causal student takes one question at a time: the prompt, and then all choices in one row. The mask lets a
choice see the prompt and itself, so the prompt is computed once for all choices. The file of an encoder-decoder takes
the prompt once, and the choices as rows of the decoder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import MissingDependencyError, StudentError
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Branch, Encoder
from tinyllm.student.model import Student, StudentCard

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


def write_onnx(student: Student, file: Path, quantise: str) -> None:
    """Write a student as an ONNX file.

    Args:
        quantise: fp32, or int8 (the weights of matrix products have 8 bits).

    Raises:
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
        StudentError: torch cannot trace this model.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    model = student.model.eval().cpu()
    model.set_attn_implementation("eager")
    long = torch.int64
    dim = torch.export.Dim
    module: nn.Module
    if student.is_encoder_decoder:
        module = _EncoderDecoder(model)
        given: tuple[Tensor, ...] = (torch.ones(1, 7, dtype=long), torch.ones(3, 5, dtype=long))
        names = ["input_ids", "decoder_input_ids"]
        shapes: dict[str, Any] = {
            "input_ids": {1: dim("tokens", min=2)},
            "decoder_input_ids": {0: dim("choices", min=2), 1: dim("length", min=2)},
        }
    else:
        module = _Causal(model)
        given = (
            torch.ones(1, 7, dtype=long), torch.arange(7)[None], torch.zeros(1, 1, 7, 7), torch.arange(3),
        )  # fmt: skip
        names = ["input_ids", "position_ids", "mask", "at"]
        tokens = dim("tokens", min=2)
        shapes = {
            "input_ids": {1: tokens}, "position_ids": {1: tokens}, "mask": {2: tokens, 3: tokens},
            "at": {0: dim("targets", min=2)},
        }  # fmt: skip
    try:
        with _without_warnings(), torch.no_grad():
            program = torch.onnx.export(
                module, given, input_names=names, output_names=["log_probabilities"], dynamic_shapes=shapes,
                dynamo=True, verbose=False,
            )  # fmt: skip
            assert program is not None  # noqa: S101 - None is returned without dynamo only
            program.save(str(file), external_data=True)
    except Exception as error:  # the exporter raises errors of many types
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StudentError(f"torch cannot export this model to ONNX: {first}. Use --to merged.") from error
    if quantise == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        whole = file.with_name(f"whole-{file.name}")
        file.rename(whole)
        with _without_warnings():
            quantize_dynamic(whole, file, weight_type=QuantType.QInt8, use_external_data_format=False)
        for left in (whole, file.with_name(f"{file.name}.data")):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide the warnings of torch's exporter and of the quantiser until the block ends.

    They are about packages that are not needed (torchvision) and about other ways to export. `_parity` tests the file.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxRuntime:
    """An ONNX file that onnxruntime computes on the CPU."""

    name = "onnxruntime"

    def __init__(self, file: Path, card: StudentCard, encoder: Encoder, *, start: int | None) -> None:
        """Load the file.

        Args:
            start: the first decoder token of an encoder-decoder; None for a causal student.
        """
        _require("onnxruntime")
        import onnxruntime

        self.card, self.encoder, self._start = card, encoder, start
        try:
            self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise StudentError(f"onnxruntime cannot load {file}: {error}. Export the student again.") from error

    def scores(self, questions: Sequence[Question]) -> list[OptionScores]:
        """Return the scores. Questions are computed one after the other."""
        return [self._scored(question) for question in questions]

    def texts(self, questions: Sequence[Question], teacher: str, max_new_tokens: int) -> list[str]:
        """Return the texts from greedy decoding. This is slow for long texts, because the file has no cache."""
        return [self._written(q, self.card.prefixes[teacher], max_new_tokens) for q in questions]

    def _scored(self, question: Question) -> OptionScores:
        rows = self.encoder.options(question, self.card.prefixes[ANSWER_TASK])
        branches = [b for row in rows for b in row.branches]
        each = self._log_probabilities(rows[0].prompt, branches)
        of_choice = {int(n): of for b, of in zip(branches, each, strict=True) for n in b.task.split()}
        found = [of_choice[n] for n in range(len(question.choices))]
        return OptionScores(
            total=tuple(float(np.float32(of.sum())) for of in found),
            mean=tuple(float(np.float32(of.mean())) for of in found),
            unended=tuple(float(np.float32(of[:-1].sum())) for of in found),
            characters=tuple(map(len, question.choices)),
        )

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
                fed = _two([[self._start, *written, 0]])  # the file takes at least two tokens, so one is added
                found = self._run(input_ids=[list(prompt)], decoder_input_ids=fed)[0, len(written)]
            else:
                found = self._branched([*prompt, *written], [(end,), (end,)])[0]
            written.append(int(found.argmax()))
            if written[-1] == end:
                break
        return self.encoder.read(written)

    def _run(self, **given: Any) -> Any:
        feed = {k: v if isinstance(v, np.ndarray) else np.array(v, np.int64) for k, v in given.items()}
        return self._session.run(None, feed)[0]


def _two(rows: list[list[int]]) -> list[list[int]]:
    """Return at least two rows of at least two tokens. The file does not take fewer."""
    wide = [row if len(row) > 1 else [*row, 0] for row in rows]
    return wide if len(wide) > 1 else wide * 2


def _require(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"An ONNX export needs the package {package}: pip install 'tinyllm-distill[onnx]'"
            )
