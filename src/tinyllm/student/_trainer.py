"""`transformers.Trainer` over a step plan. The loop is the Trainer's; batches, loss and checkpoints are ours.

One item of the data loader is one whole optimizer step. `training_step` runs its micro-batches. Their token weights
include α and the normalisers of the whole step, so the losses are summed, and nothing depends on how a step is cut.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tinyllm.errors import NonFiniteLossError
from tinyllm.student._batch import to_device
from tinyllm.student._checkpoints import WEIGHTS_FILE, load_weights, trained_weights, write_weights
from tinyllm.student._loss import sums_by_task
from tinyllm.student._steps import Size
from tinyllm.student.learner import Learner
from tinyllm.student.plan import StepPlan
from tinyllm.system.machine import forget_peak_resident, peak_resident_bytes

_LITTLE_SPACE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The figures of one optimizer step, over all processes.

    Attributes:
        loss: L of the step.
        losses: the mean loss of each task, L_A and L_m, without α.
        tokens, padding: computed tokens, and those of them that are padding.
        target_tokens: tokens that are learnt.
        seconds: the time to compute the gradient.
    """

    loss: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    padding: int = 0
    target_tokens: int = 0
    seconds: float = 0.0

    def as_logs(self) -> dict[str, float]:
        """Return what loggers receive besides the loss and the learning rate."""
        return {
            **{f"loss_{task}": loss for task, loss in self.losses.items()},
            "tokens_per_second": self.tokens / self.seconds if self.seconds else 0.0,
            "padding_fraction": self.padding / self.tokens if self.tokens else 0.0,
            "memory_bytes": float(peak_memory_bytes()),
        }


class PlanTrainer(Trainer):
    """`transformers.Trainer` over a step plan. Its `model` is a `Learner`.

    Attributes:
        figures: of the last step.
        accuracy: on the validation questions, if it was measured after this step.
    """

    def __init__(self, learner: Learner, plan: StepPlan, tasks: Sequence[str], arguments: TrainingArguments) -> None:
        super().__init__(model=learner, args=arguments)
        self.plan, self.tasks = plan, tuple(tasks)
        self.figures = StepFigures()
        self.accuracy: float | None = None
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    @property
    def learner(self) -> Learner:
        """The learner, without the wrapper that distributes it."""
        learner: Learner = self.accelerator.unwrap_model(self.model)
        return learner

    def any_process(self, wish: bool) -> bool:
        """Return whether the value is true in any process. All processes must call this."""
        if self.args.world_size == 1:
            return wish
        wishes = torch.tensor(float(wish), device=self.args.device)
        return bool(torch.as_tensor(self.accelerator.reduce(wishes, reduction="sum")) > 0)

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Return a loader whose every item is this process's share of one optimizer step.

        It does not go through Accelerate, which would give whole steps to single processes.
        """
        steps = _Steps(self.plan, self.model, self.tasks, self.args.process_index, self.args.world_size)
        return DataLoader(steps, batch_size=1, collate_fn=itemgetter(0))

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:  # noqa: ARG002
        """Run one optimizer step's micro-batches, forward and backward; return L.

        DDP averages the gradients of the processes, but their shares must be summed. So the loss is multiplied.
        """
        began = time.monotonic()
        model.train()
        batches, size = inputs["micro_batches"], inputs["size"]
        sums = torch.zeros(2, len(self.tasks), device=self.args.device)  # of losses, of weights
        bad: int | None = None
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                part = to_device(batch, self.args.device)
                with self.compute_loss_context_manager():
                    loss, each = model(part)
                self.accelerator.backward(loss * self.args.world_size)
            bad = place if bad is None and not math.isfinite(float(loss.detach())) else bad
            sums += sums_by_task(each, part["weights"], part["task_ids"], len(self.tasks), part.get("choices"))
        sums = torch.as_tensor(self.accelerator.reduce(sums, reduction="sum"))
        total = float(sums[0].sum())
        if not math.isfinite(total):
            raise self._non_finite(bad, total)
        pairs = zip(self.tasks, sums[0].tolist(), sums[1].tolist(), strict=True)
        losses = {task: loss / weight for task, loss, weight in pairs if weight > 0}
        self.accuracy = None
        self.figures = StepFigures(
            total, losses, size.computed, size.computed - size.real, inputs["target_tokens"], time.monotonic() - began
        )
        return sums[0].sum()

    def _non_finite(self, place: int | None, loss: float) -> NonFiniteLossError:
        step = self.plan[self.state.global_step]
        where = "on questions of another process"
        if place is not None:
            micro = step.share(self.args.process_index, self.args.world_size)[place]
            where = "on the questions " + ", ".join(dict.fromkeys(row.question_id for row in micro.rows))
        return NonFiniteLossError(
            f"The loss is {loss} at step {step.index + 1} of {len(self.plan)}, {where}. "
            "The last checkpoint is kept. Lower train.learning_rate, set train.max_grad_norm, use "
            "train.precision: fp32, or look at these questions' targets."
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our figures to those that all loggers receive."""
        if "loss" in logs:
            logs |= self.figures.as_logs() | ({} if self.accuracy is None else {"valid_accuracy": self.accuracy})
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The optimizer's state is twice as large as the weights, and nothing continues from the end.
        self.args.save_only_model = self.state.global_step >= len(self.plan)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch and safetensors tell of a full disk each in its own way, or only that a position is unexpected.
            if shutil.disk_usage(Path(self.args.output_dir)).free < _LITTLE_SPACE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.args.output_dir) from error
            raise

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Save only the trained weights: all weights, or the adapters. No pickled arguments."""
        weights = trained_weights(self.learner, state_dict)
        write_weights(weights, Path(output_dir or self.args.output_dir) / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        load_weights(self.learner, Path(resume_from_checkpoint) / WEIGHTS_FILE)


def peak_memory_bytes() -> int:
    """Return the peak memory since `reset_peak_memory`: of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return peak_resident_bytes()


def reset_peak_memory() -> None:
    """Reset the peak, so that a process that trains several students reports the peak of each."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    forget_peak_resident()


class _Steps(Dataset[dict[str, Any]]):
    """Optimizer steps as one process computes them."""

    def __init__(self, plan: StepPlan, learner: Any, tasks: Sequence[str], rank: int, processes: int) -> None:
        self.plan, self.learner, self.tasks, self.rank, self.processes = plan, learner, tasks, rank, processes

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, Any]:
        step = self.plan[index]
        sizes = [self.plan.shape.size(micro.rows) for micro in step.micro_batches]
        return {
            "micro_batches": [self.learner.collate(m, self.tasks) for m in step.share(self.rank, self.processes)],
            "size": Size(sum(s.real for s in sizes), sum(s.computed for s in sizes), sum(s.scores for s in sizes)),
            "target_tokens": sum(micro.target_tokens for micro in step.micro_batches),
        }
