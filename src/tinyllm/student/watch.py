"""What is seen of a training while it runs: the log, the progress, Ctrl-C, TensorBoard."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import TrainerCallback

from tinyllm.atomic import write_jsonl
from tinyllm.errors import MissingDependencyError
from tinyllm.student.plan import StepPlan

LOG_FILE = "train_log.jsonl"

Progress = Callable[[int, int, str], None]
"""Called after each step with steps done, steps in all, and a note."""


@dataclass(frozen=True, slots=True)
class StepLosses:
    """The loss L of one optimizer step, and each task's own mean loss L_A, L_m, before its α."""

    total: float
    by_task: dict[str, float]

    @classmethod
    def of(cls, sums: Tensor, tasks: Sequence[str]) -> StepLosses:
        """Make it from the sums over all micro-batches of weight · cross-entropy and of weight, (2, tasks)."""
        pairs = zip(tasks, sums[0].tolist(), sums[1].tolist(), strict=True)
        return cls(float(sums[0].sum()), {task: loss / weight for task, loss, weight in pairs if weight > 0})


class Watched(Protocol):
    """What a trainer shows of itself: the plan, and the losses of the step just done."""

    plan: StepPlan
    losses: StepLosses


class TrainLog:
    """`train_log.jsonl`: one line a step; lines after the step that a run resumes from are dropped."""

    def __init__(self, path: Path, keep_steps: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= keep_steps]
        last = kept[-1] if kept else {}
        self.last_loss: float | None = last.get("loss")
        self.seconds: float = last.get("seconds", 0.0)
        self.target_tokens: int = last.get("target_tokens", 0)
        write_jsonl(path, kept)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one step."""
        self.last_loss, self.seconds, self.target_tokens = line["loss"], line["seconds"], line["target_tokens"]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the steps logged so far; a line that a crash cut short is left out."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
    return lines


class Watch(TrainerCallback):
    """Writes the log and tells the progress."""

    def __init__(self, trainer: Watched, log: TrainLog | None, progress: Progress | None) -> None:
        self.trainer, self.log, self.progress = trainer, log, progress
        self.seconds, self.target_tokens = (log.seconds, log.target_tokens) if log is not None else (0.0, 0)
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock, or go on where an interrupted training stopped it."""
        self.began = time.monotonic() - self.seconds

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Write a line, when the Trainer logs a step."""
        if self.log is None or logs is None or "loss" not in logs:
            return
        losses = self.trainer.losses
        self.log.add(
            {
                "step": state.global_step,
                "epoch": round(state.global_step / self.trainer.plan.steps_per_epoch, 4),
                "loss": round(losses.total, 6),
                "losses": {task: round(loss, 6) for task, loss in losses.by_task.items()},
                "learning_rate": logs.get("learning_rate"),
                "grad_norm": logs.get("grad_norm"),
                "seconds": round(time.monotonic() - self.began, 3),
                "target_tokens": self.target_tokens,
            }
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count the step's targets and tell the progress."""
        rows = (r for micro in self.trainer.plan[state.global_step - 1].micro_batches for r in micro.rows)
        self.target_tokens += sum(len(b.target) for r in rows for b in r.branches)
        if self.progress is not None:
            self.progress(state.global_step, len(self.trainer.plan), f"loss {self.trainer.losses.total:.3f}")


class _StopWhenAsked(TrainerCallback):
    """Saves a checkpoint and stops after the step in which Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop here if it was pressed."""
        if self.asked:
            control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def interruptible(trainer: Any) -> Iterator[None]:
    """Let the first Ctrl-C end the training after its step, with a checkpoint; the second stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _StopWhenAsked()
    trainer.add_callback(watch)

    def on_interrupt(*_: object) -> None:
        watch.asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if watch.asked and trainer.state.global_step < len(trainer.plan):
        raise KeyboardInterrupt


def tensorboard(folder: Path) -> TrainerCallback:
    """Log to the run folder; by itself it would log into the checkpoints, which go when training is done."""
    from transformers.integrations import TensorBoardCallback

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            "train.report_to: tensorboard is not installed: pip install 'tinyllm-distill[tensorboard]'"
        ) from None
    return TensorBoardCallback(SummaryWriter(log_dir=str(folder / "tensorboard")))
