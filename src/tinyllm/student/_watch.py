"""Callbacks of a training: its log, the progress, Ctrl-C, validation, and other loggers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tinyllm.student._checkpoints import Best, trained_weights, write_weights
from tinyllm.system.files import write_jsonl

if TYPE_CHECKING:
    from tinyllm.student._trainer import PlanTrainer

LOG_FILE = "train_log.jsonl"
SAVE_EVERY_S = 120.0

Progress = Callable[[int, int, str], None]
"""Called after each step with steps done, steps in all, and a note."""

Validate = Callable[[], float]
"""Returns the current accuracy of the student on the validation questions."""


class TrainLog:
    """`train_log.jsonl`, with one line per step. Lines after the step from which a run resumes are dropped."""

    def __init__(self, path: Path, keep_steps: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= keep_steps]
        none: dict[str, Any] = {"loss": None, "seconds": 0.0, "target_tokens": 0, "tokens": 0}
        self.last: Mapping[str, Any] = none | (kept[-1] if kept else {})
        write_jsonl(path, kept)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one step."""
        self.last = line
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the steps logged so far, without a line that a crash cut off."""
    lines = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(ValueError):
                lines.append(json.loads(text))
    return lines


class Watch(TrainerCallback):
    """Writes the log and reports the progress."""

    def __init__(self, trainer: PlanTrainer, log: TrainLog, progress: Progress) -> None:
        self.trainer, self.log, self.progress = trainer, log, progress
        self.target_tokens, self.tokens = log.last["target_tokens"], log.last["tokens"]
        self.began = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the clock. A resumed training continues its earlier time."""
        self.began = time.monotonic() - self.log.last["seconds"]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Count the tokens of the step and report the progress."""
        figures = self.trainer.figures
        self.target_tokens += figures.target_tokens
        self.tokens += figures.tokens
        note = f"loss {figures.loss:.3f} · {figures.tokens / max(figures.seconds, 1e-9):,.0f} tokens/s"
        self.progress(state.global_step, len(self.trainer.plan), note)
        if state.global_step >= len(self.trainer.plan):
            control.should_log = True  # the last step, whatever `logging_steps` is: the figures of a training end there

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **_: Any) -> None:  # noqa: ARG002
        """Write a line when the Trainer logs a step."""
        if logs is None or "loss" not in logs:
            return
        figures = self.trainer.figures
        line = {
            "step": state.global_step,
            "epoch": round(state.global_step / self.trainer.plan.steps_per_epoch, 4),
            "loss": round(figures.loss, 6),
            "losses": {task: round(loss, 6) for task, loss in figures.losses.items()},
            "learning_rate": logs.get("learning_rate"),
            "grad_norm": logs.get("grad_norm"),
            "seconds": round(time.monotonic() - self.began, 3),
            "target_tokens": self.target_tokens,
            "tokens": self.tokens,
            "tokens_per_second": round(logs["tokens_per_second"], 1),
            "padding_fraction": round(logs["padding_fraction"], 4),
            "memory_bytes": int(logs["memory_bytes"]),
        }
        if self.trainer.accuracy is not None:
            line["valid_accuracy"] = self.trainer.accuracy
        self.log.add(line)


class Saving(TrainerCallback):
    """Requests checkpoints while the training goes on. After the last step none is needed: the student itself is saved.

    Args:
        every_steps: optimizer steps between two checkpoints; None: an interval in seconds, because a number of steps
            can take a second or an hour.
    """

    def __init__(
        self, trainer: PlanTrainer, every_steps: int | None, progress: Progress, every_s: float = SAVE_EVERY_S
    ) -> None:
        self.trainer, self.every_steps, self.progress, self.every_s = trainer, every_steps, progress, every_s
        self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Begin to count."""
        self.saved = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Request a checkpoint if the interval is over in any process."""
        if control.should_training_stop:
            return
        if self.every_steps is None:
            is_time = self.trainer.any_process(time.monotonic() - self.saved >= self.every_s)
        else:
            is_time = state.global_step % self.every_steps == 0
        if is_time:
            control.should_log = control.should_save = True  # what is resumed counts on from the log

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Say that a checkpoint is written next, because it can take many seconds."""
        if control.should_save:
            self.progress(state.global_step, len(self.trainer.plan), "saving a checkpoint")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Start the interval after the checkpoint is written, so that a slow disk leaves time to train."""
        self.saved = time.monotonic()
        self.progress(state.global_step, len(self.trainer.plan), "")


class Validation(TrainerCallback):
    """Measures the validation accuracy at regular steps and after the last one, keeps the best weights, stops early.

    Every process measures it, so that all stop at the same step.

    Args:
        every: optimizer steps between two measurements.
        patience: stop after so many measurements in a row without improvement; None: never.
        keep: whether the best weights are needed at the end.
    """

    def __init__(
        self,
        trainer: PlanTrainer,
        validate: Validate,
        best: Best,
        progress: Progress,
        *,
        every: int,
        patience: int | None,
        keep: bool,
    ) -> None:
        self.trainer, self.validate, self.best, self.progress = trainer, validate, best, progress
        self.every, self.patience, self.keep = every, patience, keep

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Measure, keep the best weights, and stop if the accuracy has stopped improving."""
        step = state.global_step
        if step % self.every and step < len(self.trainer.plan):
            return
        self.progress(step, len(self.trainer.plan), "answering the validation questions")
        self.trainer.accuracy = self.validate()
        is_best = self.best.note(step, self.trainer.accuracy)
        weights = trained_weights(self.trainer.learner) if is_best and self.keep else None
        if state.is_world_process_zero:
            if weights is not None:
                write_weights(weights, self.best.weights)
            self.best.save()
        self.progress(step, len(self.trainer.plan), "")
        control.should_log = True
        if self.patience is not None and self.best.worse_since(step) >= self.patience:
            control.should_training_stop = True


class StopAt(TrainerCallback):
    """Saves a checkpoint and stops after a step, or when another callback stops. The training can continue later."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop here if this is the step."""
        if state.global_step >= self.step or control.should_training_stop:
            control.should_log = control.should_save = control.should_training_stop = True


class _StopWhenAsked(TrainerCallback):
    """Saves a checkpoint and stops after the step in which Ctrl-C was pressed."""

    def __init__(self, trainer: PlanTrainer) -> None:
        self.trainer = trainer
        self.asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Stop here if it was pressed in any process."""
        self.asked = self.trainer.any_process(self.asked)
        if self.asked:
            control.should_log = control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def interruptible(trainer: PlanTrainer) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the training after its step, with a checkpoint; a second Ctrl-C at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _StopWhenAsked(trainer)
    trainer.add_callback(watch)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hear(*_: object) -> None:
        watch.asked = True
        if trainer.is_world_process_zero():  # not by print, which cannot be entered twice
            os.write(2, b"\n  Finishing this step and saving it; Ctrl-C again stops at once.\n")
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if watch.asked and trainer.state.global_step < len(trainer.plan):
        raise KeyboardInterrupt


# --- loggers ------------------------------------------------------------------------------------------------------


def tensorboard(folder: Path) -> TrainerCallback:
    """Log to the run folder. By default it would log to the checkpoints, which are deleted after training."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(log_dir=str(folder / "tensorboard")))
