"""The format of CTranslate2, for T5 students: a writer, and a runtime that computes the export."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import MissingDependencyError, StudentError
from tinyllm.export._scores import Progress, option_scores, silence
from tinyllm.questions.types import Question
from tinyllm.scoring.predictions import OptionScores
from tinyllm.student.encode import Branch, Encoder
from tinyllm.student.model import Student, StudentCard

_QUANTISED = {"fp32": "float32", "int8": "int8"}
_BATCH_TOKENS = 4096
_AT_ONCE = 32  # questions between two reports of progress


def write_ctranslate2(student: Student, folder: Path, quantise: str) -> None:
    """Write a T5 student in CTranslate2's format.

    Raises:
        MissingDependencyError: ctranslate2 is not installed.
        StudentError: the student is not an encoder-decoder, or CTranslate2 does not know its architecture.
    """
    _require()
    if not student.is_encoder_decoder:
        raise StudentError(
            "This student is a causal model, and ctranslate2 exports take encoder-decoders (T5) only. Use --to gguf, "
            "onnx, openvino or merged."
        )
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_model(self, *names: Any, **options: Any) -> Any:
            model = super().load_model(*names, **options)
            # CTranslate2 reads `tie_word_embeddings`. In transformers 5 it is always true for T5, and
            # `scale_decoder_outputs` has the value that CTranslate2 needs.
            tied = model.config.tie_word_embeddings
            model.config.tie_word_embeddings = getattr(model.config, "scale_decoder_outputs", tied)
            return model

    with tempfile.TemporaryDirectory() as plain:
        student.model.save_pretrained(plain)
        student.tokenizer.save_pretrained(plain)
        try:
            Converter(plain).convert(str(folder), quantization=_QUANTISED[quantise])
        except ValueError as error:
            raise StudentError(
                f"CTranslate2 cannot convert this model: {error}. Use --to onnx, openvino or merged."
            ) from None


class CTranslate2Runtime:
    """A folder in CTranslate2's format, computed on the CPU."""

    name = "ctranslate2"

    def __init__(self, folder: Path, card: StudentCard, encoder: Encoder) -> None:
        _require()
        import ctranslate2

        self.card, self.encoder = card, encoder
        try:
            self._model = ctranslate2.Translator(str(folder), device="cpu")
        except RuntimeError as error:
            raise StudentError(f"CTranslate2 cannot load {folder}: {error}. Export the student again.") from None

    def scores(self, questions: Sequence[Question], progress: Progress = silence) -> list[OptionScores]:
        """Return the scores. CTranslate2 makes batches of similar lengths from the choices of several questions."""
        found: list[OptionScores] = []
        for start in range(0, len(questions), _AT_ONCE):
            found += self._scored(questions[start : start + _AT_ONCE])
            progress(len(found), len(questions), "")
        return found

    def _scored(self, questions: Sequence[Question]) -> list[OptionScores]:
        rows = [
            (n, branch, row.prompt)
            for n, question in enumerate(questions)
            for row in self.encoder.options(question, self.card.prefixes[ANSWER_TASK])
            for branch in row.branches
        ]
        # CTranslate2 adds and scores the end-of-text token itself.
        scored = self._model.score_batch(
            [self._words(prompt) for _, _, prompt in rows],
            [self._words(branch.target[:-1]) for _, branch, _ in rows],
            max_batch_size=_BATCH_TOKENS,
            batch_type="tokens",
        )
        found: list[list[tuple[Branch, Sequence[float]]]] = [[] for _ in questions]
        for (n, branch, _), result in zip(rows, scored, strict=True):
            if len(result.log_probs) != len(branch.target):
                raise StudentError(
                    f"CTranslate2 scored {len(result.log_probs)} tokens of a choice, expected {len(branch.target)}. "
                    "Export the student to onnx, openvino or merged."
                )
            found[n].append((branch, result.log_probs))
        return list(map(option_scores, questions, found))

    def texts(
        self, questions: Sequence[Question], teacher: str, max_new_tokens: int, progress: Progress = silence
    ) -> list[str]:
        """Return the texts from greedy decoding."""
        prompts = [self._words(self.encoder.generation_prompt(q, self.card.prefixes[teacher])) for q in questions]
        to_ids, texts = self.encoder.tokenizer.convert_tokens_to_ids, list[str]()
        for start in range(0, len(prompts), _AT_ONCE):
            written = self._model.translate_batch(
                prompts[start : start + _AT_ONCE], beam_size=1, max_decoding_length=max_new_tokens
            )
            texts += [self.card.own_rationale(self.encoder.read(to_ids(r.hypotheses[0]))) for r in written]
            progress(len(texts), len(prompts), f"writing as {teacher}")
        return texts

    def _words(self, tokens: Sequence[int]) -> list[str]:
        words: list[str] = self.encoder.tokenizer.convert_ids_to_tokens(list(tokens))
        return words


def _require() -> None:
    if importlib.util.find_spec("ctranslate2") is None:
        raise MissingDependencyError("This export needs ctranslate2: pip install 'tinyllm-distill[ctranslate2]'")
