"""Write questions in our format: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyllm.errors import DataError
from tinyllm.questions.types import Question
from tinyllm.system.files import write_text


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write a questions file whole or not at all: to a temporary file beside it, then by renaming that.

    Raises:
        DataError: the file cannot be written (no rights, disk full); what was there before is untouched.
    """
    text = "".join(json.dumps(to_record(q), ensure_ascii=False) + "\n" for q in questions)
    # Half a character (a lone surrogate) has no UTF-8; it becomes U+FFFD, which the check of encoding finds.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    try:
        write_text(path, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be written: {reason}; make room or give another folder") from None


def to_record(question: Question) -> dict[str, Any]:
    """Return a question as a row of a questions file; what is absent has no key."""
    record: dict[str, Any] = {"id": question.id}
    if question.context is not None:
        record["context"] = question.context
    record |= {"question": question.question, "choices": list(question.choices), "answer": question.answer}
    if question.rationales:
        record["rationales"] = dict(question.rationales)
    if question.opinions:
        record["opinions"] = {teacher: list(scores) for teacher, scores in question.opinions.items()}
    return record
