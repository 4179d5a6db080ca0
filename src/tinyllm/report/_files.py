"""Reading a run folder. A file that is not there yet is None; one that is there and damaged is an error.

An unknown key is ignored. A last line without its newline is one that is being written, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from tinyllm.config.yaml_file import NotYamlError, parse_yaml
from tinyllm.errors import RunFolderError
from tinyllm.rationales.types import Rationale, Rejection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihoods of the choices, whole and per token, and the choices with the highest ones.

    Attributes:
        tied, tied_normalised: the choices that share the highest one, where several do.
    """

    pred: int
    pred_normalised: int
    total: tuple[float, ...]
    mean: tuple[float, ...]
    tied: tuple[int, ...] = ()
    tied_normalised: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """What the student wrote, and the choice it was read as; None if it was none."""

    text: str
    pred: int | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """The student's answer to one question, before or after training. `rationales` are its own, by task."""

    stage: Literal["before", "after"]
    split: str
    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    context: str | None = None
    likelihood: Likelihood | None = None
    generation: Generated | None = None
    rationales: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One optimizer step; `losses` by task."""

    step: int
    losses: Mapping[str, float]
    loss: float | None
    learning_rate: float | None
    grad_norm: float | None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run folder holds so far; None for a file that is not there."""

    folder: Path
    config_text: str | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any] | None
    metrics: Mapping[str, Any] | None
    yields: Mapping[str, Any] | None
    opinions: Mapping[str, Any] | None
    search: Mapping[str, Any] | None
    log: tuple[LogLine, ...] | None
    predictions: tuple[Prediction, ...] | None
    rationales: tuple[Rationale, ...] | None
    rejected: tuple[Rejection, ...] | None


def read_run(folder: Path) -> RunFiles:
    """Read what a run folder holds.

    Raises:
        RunFolderError: there is no such folder, or one of its files is damaged.
    """
    if not folder.is_dir():
        raise RunFolderError(f"No run folder at {folder}. `tinyllm run CONFIG` makes one.")
    config_text = _read_text(folder / "config.yaml")
    return RunFiles(
        folder=folder,
        config_text=config_text,
        config=_read_config(folder / "config.yaml", config_text),
        environment=_read_mapping(folder / "environment.json", "run"),
        metrics=_read_mapping(folder / "metrics.json", "evaluate"),
        yields=_read_mapping(folder / "yields.json", "generate"),
        opinions=_read_mapping(folder / "opinions.json", "generate"),
        search=_read_mapping(folder / "auto.json", "train"),
        log=_read_lines(folder / "train_log.jsonl", _log_line, "train"),
        predictions=_read_lines(folder / "predictions.jsonl", _prediction, "evaluate"),
        rationales=_read_rationales(folder),
        rejected=_read_lines(folder / "rejected.jsonl", _rejection, "generate"),
    )


def _damaged(path: Path, where: str, what: object, command: str) -> RunFolderError:
    return RunFolderError(
        f"{path}{where}: {what}. The file is damaged; `tinyllm {command} {path.parent}` writes it anew."
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path}: not UTF-8 (byte {error.start}). The file is damaged.") from None
    except OSError as error:
        raise RunFolderError(f"Cannot read {path}: {error.strerror or error}.") from None


def _read_config(path: Path, text: str | None) -> Mapping[str, Any]:
    try:
        tree, _ = parse_yaml(text or "")
    except NotYamlError as error:
        raise RunFolderError(f"{path}: not YAML: {error}.") from None
    if tree is not None and not isinstance(tree, dict):
        raise RunFolderError(f"{path}: expected a mapping, got {type(tree).__name__}.")
    return tree or {}


def _read_mapping(path: Path, command: str) -> Mapping[str, Any] | None:
    text = _read_text(path)
    if text is None:
        return None
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise _damaged(path, f", line {error.lineno}", f"not JSON: {error.msg}", command) from None
    if not isinstance(tree, dict):
        raise _damaged(path, "", f"expected a mapping, got {type(tree).__name__}", command)
    return tree


def _read_lines(path: Path, parse: Callable[[Any], T], command: str) -> tuple[T, ...] | None:
    text = _read_text(path)
    if text is None:
        return None
    lines = text.split("\n")  # not splitlines(): JSON leaves U+2028 unescaped, and that ends no line
    parsed: list[T] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            parsed.append(parse(json.loads(line)))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break  # being written just now
            raise _damaged(path, f", line {number}", f"not JSON: {error.msg}", command) from None
        except KeyError as error:
            raise _damaged(path, f", line {number}", f"no {error}", command) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f", line {number}", error, command) from None
    return tuple(parsed)


def _log_line(row: Any) -> LogLine:
    losses = {str(task): float(loss) for task, loss in (row.get("losses") or {}).items() if loss is not None}
    return LogLine(
        step=int(row["step"]),
        losses=losses,
        loss=_float(row.get("loss")),
        learning_rate=_float(row.get("learning_rate")),
        grad_norm=_float(row.get("grad_norm")),
    )


def _prediction(row: Any) -> Prediction:
    choices = tuple(str(choice) for choice in row["choices"])
    answer = _choice(row["answer"], choices)
    if row["stage"] not in ("before", "after"):
        raise ValueError(f"stage is 'before' or 'after', got {row['stage']!r}")
    likelihood, generation = row.get("likelihood"), row.get("generation")
    return Prediction(
        stage=row["stage"],
        split=str(row["split"]),
        id=str(row["id"]),
        question=str(row["question"]),
        choices=choices,
        answer=answer,
        context=None if row.get("context") is None else str(row["context"]),
        likelihood=None if likelihood is None else _likelihood(likelihood, choices),
        generation=None if generation is None else _generated(generation, choices),
        rationales={str(task): str(text) for task, text in (row.get("rationales") or {}).items()},
    )


def _likelihood(row: Any, choices: tuple[str, ...]) -> Likelihood:
    total, mean = (_floats(row[key], len(choices)) for key in ("total", "mean"))
    best = max(range(len(mean)), key=mean.__getitem__) if row.get("pred_normalised") is None else row["pred_normalised"]
    tied, tied_normalised = (
        tuple(_choice(i, choices) for i in row.get(key) or ()) for key in ("tied", "tied_normalised")
    )
    return Likelihood(_choice(row["pred"], choices), _choice(best, choices), total, mean, tied, tied_normalised)


def _generated(row: Any, choices: tuple[str, ...]) -> Generated:
    return Generated(str(row["text"]), None if row.get("pred") is None else _choice(row["pred"], choices))


def _rejection(row: Any) -> Rejection:
    return Rejection(str(row["question_id"]), str(row["teacher"]), str(row["reason"]), str(row.get("text") or ""))


def _read_rationales(folder: Path) -> tuple[Rationale, ...] | None:
    from tinyllm.rationales.files import RATIONALES, read_rationales

    return read_rationales(folder) if (folder / RATIONALES).exists() else None


def _choice(value: Any, choices: tuple[str, ...]) -> int:
    index = int(value)
    if not 0 <= index < len(choices):
        raise ValueError(f"choice {index} of {len(choices)}")
    return index


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def _floats(values: Any, number: int) -> tuple[float, ...]:
    # A log-likelihood of minus infinity is null in strict JSON.
    floats = tuple(float("-inf") if v is None else float(v) for v in values)
    if len(floats) != number:
        raise ValueError(f"{len(floats)} log-likelihoods for {number} choices")
    return floats
