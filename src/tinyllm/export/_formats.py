"""An export's folder: written whole, and opened by what its `tinyllm.json` says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tinyllm.config import ANSWER_TASK
from tinyllm.errors import StudentError
from tinyllm.export._readme import modelfile, readme
from tinyllm.questions.types import Question
from tinyllm.scoring.runtime import Runtime, TorchRuntime
from tinyllm.student.model import CARD_FILE, Student, StudentCard, check_files, checksums, read_student

_FILES = {"gguf": "student.gguf", "onnx": "student.onnx", "ctranslate2": "ctranslate2"}


def write_export(student: Student, folder: Path, kind: str, precision: str, name: str, example: Question) -> None:
    """Write a student in another format to a folder that is not there yet.

    Args:
        kind, precision: one of `FORMATS`, and one of its precisions.
        name: of the run.
        example: that the README shows.

    Raises:
        StudentError: the student cannot be written so.
        MissingDependencyError: a package that writes the format is not installed.
    """
    if student.card.reasons_as and kind != "merged":
        raise StudentError(
            "This student writes a rationale before it answers (train.rationales: before), and the program of the "
            f"format '{kind}' compares the choices at once. Export it as `merged`."
        )
    folder.mkdir(parents=True)
    encoder = student.encoder()
    with _without_bars():
        _write_model(student, folder, kind, precision, name)
        student.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(readme(name, kind, precision, student, encoder, example), encoding="utf-8")
    about: dict[str, Any] = {
        "format": kind,
        "precision": precision,
        "name": name,
        "is_encoder_decoder": student.is_encoder_decoder,
    }
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

        prefix = student.card.prefixes[ANSWER_TASK]
        write_gguf(student, folder / _FILES[kind], precision, name, prefix)
        (folder / "Modelfile").write_text(modelfile(_FILES[kind], prefix), encoding="utf-8")
    elif kind == "ctranslate2":
        from tinyllm.export._ctranslate2 import write_ctranslate2

        write_ctranslate2(student, folder / _FILES[kind], precision)
    else:
        from tinyllm.export._onnx import write_onnx

        write_onnx(student, folder / _FILES[kind], precision)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for each file that it writes."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def open_export(folder: Path) -> Runtime:
    """Load a student from its own folder, or from that of an export.

    Raises:
        StudentError: the folder holds none, or a file is damaged or was replaced.
        MissingDependencyError: the program that computes this format is not installed.
    """
    try:
        raw: dict[str, Any] = dict(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raw = {}  # `read_student` says what is wrong
    about: dict[str, Any] = raw.get("export", {"format": "merged"})
    if about["format"] == "merged":
        return TorchRuntime(read_student(folder))
    check_files(folder, raw.get("sha256", {}))
    known = {k: raw[k] for k in ("prefixes", "layout", "max_input_tokens", "temperature") if k in raw}
    card = StudentCard(**known)
    encoder = card.encoder(_tokenizer(folder), is_encoder_decoder=bool(about.get("is_encoder_decoder")))
    file = folder / _FILES.get(about["format"], "")
    if about["format"] == "gguf":
        from tinyllm.export._llamacpp import LlamaCppRuntime

        return LlamaCppRuntime(file, card, encoder)
    if about["format"] == "onnx":
        from tinyllm.export._onnx import OnnxRuntime

        return OnnxRuntime(file, card, encoder, start=about.get("decoder_start"))
    if about["format"] == "ctranslate2":
        from tinyllm.export._ctranslate2 import CTranslate2Runtime

        return CTranslate2Runtime(file, card, encoder)
    raise StudentError(f"{folder}: unknown export format '{about['format']}'; known: merged, {', '.join(_FILES)}.")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
