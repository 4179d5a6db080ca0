"""Reading a run folder. A missing file is None. A damaged file is an error.

Unknown keys are ignored. A last line without a newline is still being written, so it is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinyllm.config.yaml_file import NotYamlError, parse_yaml
from tinyllm.errors import RunFolderError
from tinyllm.rationales.files import RATIONALES, read_rationales
from tinyllm.rationales.types import Rationale, Rejection
from tinyllm.scoring.predictions import Prediction

_T = TypeVar("_T")
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One optimizer step, with its losses by task."""

    step: int
    losses: Mapping[str, float]
    learning_rate: float | None
    grad_norm: float | None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run folder; None for a missing one."""

    folder: Path
    config_text: str | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    yields: Mapping[str, Any] | None
    opinions: Mapping[str, Any] | None
    search: Mapping[str, Any] | None
    trained: Mapping[str, Any] | None
    log: tuple[LogLine, ...] | None
    predictions: tuple[Prediction, ...] | None
    rationales: tuple[Rationale, ...] | None
    rejected: tuple[Rejection, ...] | None

    @property
    def is_unscored(self) -> bool:
        """Whether the student was not scored because no test question has an answer."""
        metrics = self.metrics or {}
        data = metrics.get("data")
        return not metrics.get("accuracy") and isinstance(data, dict) and not data.get("test")


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        RunFolderError: there is no such folder, or one of its files is damaged.
    """
    if not folder.is_dir():
        RunFolderError.check(folder)  # names what is there

    def read(name: str, parse: Callable[[str], _T], stage: str | None = None) -> _T | None:
        path = folder / name
        try:
            return parse(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"Cannot read {path}: {error.strerror or error}.") from None
        except _DAMAGE as error:
            advice = f" `tinyllm {stage} {folder}` writes a new one." if stage else ""
            raise RunFolderError(f"{path} is damaged: {error}.{advice}") from None

    return RunFiles(
        folder=folder,
        config_text=read("config.yaml", str),
        config=read("config.yaml", _yaml) or {},
        environment=read("environment.json", _mapping, "run"),
        metrics=read("metrics.json", _mapping, "evaluate"),
        yields=read("yields.json", _mapping, "generate"),
        opinions=read("opinions.json", _mapping, "generate"),
        search=read("auto.json", _mapping, "train"),
        trained=read("train_result.json", _mapping, "train"),
        log=read("train_log.jsonl", lambda text: _lines(text, _log_line), "train"),
        predictions=read("predictions.jsonl", lambda text: _lines(text, Prediction.from_json), "evaluate"),
        rationales=read_rationales(folder) if (folder / RATIONALES).exists() else None,
        rejected=read("rejected.jsonl", lambda text: _lines(text, _rejection), "generate"),
    )


def _yaml(text: str) -> Mapping[str, Any]:
    try:
        tree, _ = parse_yaml(text)
    except NotYamlError as error:
        raise ValueError(f"not YAML: {error}") from None
    return {} if tree is None else _checked(tree)


def _mapping(text: str) -> Mapping[str, Any]:
    try:
        return _checked(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} is not JSON: {error.msg}") from None


def _checked(tree: Any) -> Mapping[str, Any]:
    if not isinstance(tree, dict):
        raise TypeError(f"expected a mapping, got {type(tree).__name__}")
    return tree


def _lines(text: str, parse: Callable[[Any], _T]) -> tuple[_T, ...]:
    lines = text.split("\n")  # not splitlines(): JSON leaves U+2028 unescaped, and it does not end a line
    parsed: list[_T] = []
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                parsed.append(parse(json.loads(line)))
        except json.JSONDecodeError as error:
            if number < len(lines):  # the last line is being written
                raise ValueError(f"line {number} is not JSON: {error.msg}") from None
        except _DAMAGE as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"line {number}: {what}") from None
    return tuple(parsed)


def _log_line(row: Any) -> LogLine:
    losses = {str(task): float(loss) for task, loss in (row.get("losses") or {}).items() if loss is not None}
    rate, norm = (None if row.get(key) is None else float(row[key]) for key in ("learning_rate", "grad_norm"))
    return LogLine(int(row["step"]), losses, rate, norm)


def _rejection(row: Any) -> Rejection:
    question_id, teacher, reason = (str(row[key]) for key in ("question_id", "teacher", "reason"))
    return Rejection(question_id, teacher, reason, str(row.get("text") or ""), row.get("kind", "rationale"))
