"""The folder of an export. Its `tinyllm.json` says how to open it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyllm.errors import StudentError
from tinyllm.export._readme import around_a_message, modelfile, readme
from tinyllm.questions.types import Question
from tinyllm.scoring.runtime import Runtime, TorchRuntime
from tinyllm.student.model import CARD_FILE, Student, StudentCard, check_files, checksums, read_student

_FILES = {"gguf": "student.gguf", "onnx": "student.onnx", "openvino": "student.xml", "ctranslate2": "ctranslate2"}


def write_export(student: Student, folder: Path, kind: str, precision: str, name: str, example: Question) -> None:
    """Write a student in another format to a new folder.

    Args:
        kind, precision: a format in `FORMATS`, and one of its precisions.
        example: the question that the README of the folder shows.

    Raises:
        StudentError: the student cannot be written in this format.
        MissingDependencyError: a package for this format is not installed.
    """
    if student.card.reasons_as and kind != "merged":
        raise StudentError(
            "This student writes a rationale before it answers (train.rationales: before). An export to "
            f"'{kind}' cannot do that. Use --to merged."
        )
    folder.mkdir(parents=True)
    encoder = student.encoder()
    with _without_bars():
        _write_model(student, folder, kind, precision, name)
        student.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(readme(name, kind, precision, student, encoder, example), encoding="utf-8")
    about = {"format": kind, "precision": precision, "name": name, "is_encoder_decoder": student.is_encoder_decoder}
    if student.is_encoder_decoder:
        about["decoder_start"] = int(student.model.config.decoder_start_token_id)
    card = asdict(student.card) | {"export": about, "sha256": checksums(folder)}
    (folder / CARD_FILE).write_text(json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8")


def _write_model(student: Student, folder: Path, kind: str, precision: str, name: str) -> None:
    if kind == "merged":
        model = student.model.to(torch.bfloat16) if precision == "bf16" else student.model
        model.save_pretrained(folder, safe_serialization=True)
    elif kind == "gguf":
        from tinyllm.export._gguf import write_gguf

        around = around_a_message(student.card)
        write_gguf(student, folder / _FILES[kind], precision, name, around)
        (folder / "Modelfile").write_text(modelfile(_FILES[kind], *around), encoding="utf-8")
    elif kind == "ctranslate2":
        from tinyllm.export._ctranslate2 import write_ctranslate2

        write_ctranslate2(student, folder / _FILES[kind], precision)
    elif kind == "openvino":
        from tinyllm.export._openvino import write_openvino

        write_openvino(student, folder / _FILES[kind], precision)
    elif kind == "onnx":
        from tinyllm.export._onnx import write_onnx

        write_onnx(student, folder / _FILES[kind], precision)
    else:
        raise NotImplementedError(kind)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Switch off the progress bars of transformers until the block ends."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def open_export(folder: Path) -> Runtime:
    """Load a student from its own folder or from the folder of an export.

    Raises:
        StudentError: the folder holds no student, or a file is damaged or was replaced.
        MissingDependencyError: a package for this format is not installed.
    """
    try:
        raw: dict[str, Any] = dict(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raw = {}  # `read_student` reports what is wrong
    about: Any = raw.get("export", {"format": "merged"})
    if isinstance(about, dict) and about.get("format") == "merged":
        return TorchRuntime(read_student(folder))
    try:
        kind = about["format"]
        if kind not in _FILES:
            raise StudentError(
                f"{folder} has the unknown export format '{kind}'. Known: merged, {', '.join(_FILES)}. Export it again."
            )
        checked = raw["sha256"]
        card = StudentCard(**{k: raw[k] for k in ("prefixes", "layout", "max_input_tokens", "temperature")})
    except (KeyError, TypeError) as error:
        raise StudentError(
            f"{folder / CARD_FILE} is damaged ({type(error).__name__}: {error}). Export the student again."
        ) from None
    check_files(folder, checked)
    encoder = card.encoder(_tokenizer(folder), is_encoder_decoder=bool(about.get("is_encoder_decoder")))
    file = folder / _FILES[kind]
    if kind == "gguf":
        from tinyllm.export._llamacpp import LlamaCppRuntime

        return LlamaCppRuntime(file, card, encoder)
    if kind == "onnx":
        from tinyllm.export._onnx import OnnxRuntime

        return OnnxRuntime(file, card, encoder, start=about.get("decoder_start"))
    if kind == "openvino":
        from tinyllm.export._openvino import OpenVinoRuntime

        return OpenVinoRuntime(file, card, encoder, start=about.get("decoder_start"))
    if kind == "ctranslate2":
        from tinyllm.export._ctranslate2 import CTranslate2Runtime

        return CTranslate2Runtime(file, card, encoder)
    raise NotImplementedError(kind)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
