"""Training: `transformers.Trainer` runs the loop; batches and loss are ours.

One item of the data loader is one whole optimizer step. `training_step` runs its micro-batches; their token weights
already hold α and the normalisers of the whole step, so the losses are summed, and nothing depends on the cut.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from tinyllm.atomic import write_text
from tinyllm.config import TrainSection
from tinyllm.errors import NonFiniteLossError, StudentError
from tinyllm.questions.types import Question
from tinyllm.student.batch import Batch
from tinyllm.student.encode import Encoder, Row
from tinyllm.student.learner import Learner, weighted_loss
from tinyllm.student.mixture import Target
from tinyllm.student.model import Student
from tinyllm.student.plan import StepPlan
from tinyllm.student.watch import LOG_FILE, Progress, StepLosses, TrainLog, Watch, interruptible, tensorboard

WEIGHTS_FILE = "trained.safetensors"
_LITTLE_SPACE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Figures of a whole training, also if it was interrupted and resumed.

    Attributes:
        seconds: spent in optimizer steps.
        target_tokens: learnt, over all steps.
        fingerprint: of everything that was learnt; see `fingerprint`.
    """

    steps: int
    seconds: float
    examples_per_second: float
    target_tokens: int
    padding_fraction: float
    peak_memory_bytes: int
    final_loss: float | None
    shared_prompts: bool
    fingerprint: str


def tokenise(encoder: Encoder, questions: Sequence[Question], targets: Sequence[Target]) -> list[list[Row]]:
    """Return the rows of each question, in the order of the questions; a question without targets has none."""
    of_question: dict[str, list[Target]] = {}
    for target in targets:
        of_question.setdefault(target.question_id, []).append(target)
    rows = (encoder.rows(q, of_question.get(q.id, ())) for q in questions)
    return [r for r in rows if r]


def plan_steps(rows: Sequence[Sequence[Row]], section: TrainSection) -> StepPlan:
    """Return the step plan that the configuration asks for."""
    return StepPlan(
        rows,
        batch_size=section.batch_size,
        epochs=section.epochs,
        seed=section.seed,
        normalisation=section.normalisation,
        micro_batch_tokens=section.micro_batch_tokens,
        max_steps=section.max_steps,
    )


def train(
    student: Student,
    learner: Learner,
    plan: StepPlan,
    section: TrainSection,
    *,
    tasks: Sequence[str],
    folder: Path,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a student in place, resuming from the newest whole checkpoint in `folder/checkpoints`.

    Args:
        tasks: `answer` and the teachers, for the losses in the log.
        folder: gets `checkpoints/` while training, and `train_log.jsonl`.

    Raises:
        StudentError: fp16 with T5; precision that this machine lacks.
        NonFiniteLossError: the loss is infinite or not a number; says at which step, on which questions.
    """
    check_precision(student.model.config.model_type, section)
    checkpoints = folder / "checkpoints"
    arguments = _arguments(student, plan, section, checkpoints)
    with arguments.main_process_first(local=False):  # the folder is shared by all processes
        if arguments.process_index == 0:
            _keep_only_checkpoints_of(checkpoints, fingerprint(plan))
        resume = newest_checkpoint(checkpoints)
        log = TrainLog(folder / LOG_FILE, keep_steps=_steps_done(resume))
    trainer = PlanTrainer(learner, plan, tasks, arguments, log, progress)
    if "tensorboard" in section.report_to:
        trainer.add_callback(tensorboard(folder))
    if resume is not None and progress is not None:
        progress(_steps_done(resume), len(plan), "going on from a checkpoint")
    with interruptible(trainer):
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    questions = sum(len(step.question_ids) for step in plan)
    return TrainResult(
        steps=len(plan),
        seconds=log.seconds,
        examples_per_second=questions / log.seconds if log.seconds else 0.0,
        target_tokens=log.target_tokens,
        padding_fraction=plan.padding().fraction,
        peak_memory_bytes=peak_memory_bytes(),
        final_loss=log.last_loss,
        shared_prompts=learner.share_prompt,
        fingerprint=fingerprint(plan),
    )


def fingerprint(plan: StepPlan) -> str:
    """Return a hash of everything that is learnt, in its order: another one means another training."""
    digest = hashlib.sha256(repr((plan.batch_size, plan.seed, plan.normalisation, len(plan))).encode())
    for rows in plan.questions:
        digest.update(repr(rows).encode())
    return digest.hexdigest()


def _keep_only_checkpoints_of(folder: Path, key: str) -> None:
    """Discard checkpoints of a training on other targets; going on from them would mix the two."""
    note = folder / "fingerprint"
    if folder.is_dir() and (not note.is_file() or note.read_text(encoding="utf-8") != key):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(note, key)


class PlanTrainer(Trainer):
    """`transformers.Trainer` over a step plan. Its `model` is a `Learner`."""

    def __init__(
        self,
        learner: Learner,
        plan: StepPlan,
        tasks: Sequence[str],
        arguments: TrainingArguments,
        log: TrainLog | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(model=learner, args=arguments)
        self.plan, self.tasks = plan, tuple(tasks)
        self.losses = StepLosses(0.0, {})
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        if self.is_world_process_zero():
            self.add_callback(Watch(self, log, progress))

    def get_train_dataloader(self) -> DataLoader[dict[str, list[Batch]]]:
        """Return a loader whose every item is this process's share of one optimizer step.

        It is not handed to Accelerate, which would deal whole steps out to the processes.
        """
        steps = _Steps(self.plan, self.model, self.tasks, self.args.process_index, self.args.world_size)
        return DataLoader(steps, batch_size=1, collate_fn=itemgetter(0))

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:  # noqa: ARG002
        """Run one optimizer step's micro-batches, forward and backward; return L.

        DDP averages the gradients of its processes; their shares are to be summed, hence the factor.
        """
        model.train()
        batches = self._prepare_inputs(inputs)["micro_batches"]
        processes = self.args.world_size
        sums = torch.zeros(2, len(self.tasks), device=self.args.device)  # of losses, of weights
        for place, batch in enumerate(batches):
            last = place == len(batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss, parts = weighted_loss(model(batch), batch, len(self.tasks))
                if not torch.isfinite(loss):
                    raise self._non_finite(place, loss)
                self.accelerator.backward(loss * processes)
            sums += parts
        sums = torch.as_tensor(self.accelerator.reduce(sums, reduction="sum"))
        self.losses = StepLosses.of(sums, self.tasks)
        return sums[0].sum()

    def _non_finite(self, place: int, loss: Tensor) -> NonFiniteLossError:
        step = self.plan[self.state.global_step]
        micro = step.share(self.args.process_index, self.args.world_size)[place]
        ids = ", ".join(dict.fromkeys(row.question_id for row in micro.rows))
        return NonFiniteLossError(
            f"The loss is {loss.item()} at step {step.index + 1} of {len(self.plan)}, on the questions {ids}. "
            "The last checkpoint is kept. Lower train.learning_rate, set train.max_grad_norm, use "
            "train.precision: fp32, or look at these questions' targets."
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            # torch and safetensors tell of a full disk each in its own way, or only that a position is unexpected.
            if shutil.disk_usage(Path(self.args.output_dir)).free < _LITTLE_SPACE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.args.output_dir) from error
            raise

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Tensor] | None = None) -> None:  # noqa: ARG002
        """Save what is trained and nothing else: all weights, or the adapters. No pickled arguments."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: p.detach().contiguous().cpu() for n, p in self._learner().named_parameters() if p.requires_grad}
        save_file(weights, folder / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ARG002
        weights = load_file(Path(resume_from_checkpoint) / WEIGHTS_FILE)
        with torch.no_grad():
            for name, parameter in self._learner().named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])

    def _learner(self) -> Learner:
        learner: Learner = self.accelerator.unwrap_model(self.model)
        return learner


class _Steps(Dataset[dict[str, list[Batch]]]):
    """Optimizer steps as one process computes them."""

    def __init__(self, plan: StepPlan, learner: Any, tasks: Sequence[str], rank: int, processes: int) -> None:
        self.plan, self.learner, self.tasks, self.rank, self.processes = plan, learner, tasks, rank, processes

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> dict[str, list[Batch]]:
        share = self.plan[index].share(self.rank, self.processes)
        return {"micro_batches": [self.learner.collate(micro, self.tasks) for micro in share]}


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; one cut short by a crash lacks the state that is written last."""
    whole = [c for c in folder.glob("checkpoint-*") if _steps_done(c) > 0]
    return max(whole, key=_steps_done, default=None)


def discard_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def peak_memory_bytes() -> int:
    """Return the most memory in use so far: on the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # not on this operating system
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _steps_done(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError):
        return 0


def check_precision(model_type: str, section: TrainSection) -> None:
    """Refuse arithmetic that the model or this machine cannot do.

    Raises:
        StudentError: fp16 with T5, fp16 without a GPU, bf16 on a GPU that lacks it.
    """
    if section.precision == "fp16" and model_type in {"t5", "mt5", "umt5", "longt5"}:
        raise StudentError(
            "train.precision: fp16 makes T5 overflow to NaN (it was pre-trained in bfloat16, with larger activations "
            "than fp16 can hold). Use bf16 where the hardware has it, else fp32."
        )
    if section.precision == "fp16" and not torch.cuda.is_available():
        raise StudentError("train.precision: fp16 needs a GPU, and this machine has none in reach; use fp32 or bf16.")
    if section.precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise StudentError("train.precision: this GPU has no bfloat16 arithmetic; use fp32, or fp16 (not for T5).")


def _arguments(student: Student, plan: StepPlan, section: TrainSection, checkpoints: Path) -> TrainingArguments:
    is_lora = hasattr(student.model, "peft_config")
    if section.gradient_checkpointing:
        student.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if is_lora:
            student.model.enable_input_require_grads()
    schedule = "constant_with_warmup" if section.schedule == "constant" else section.schedule
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=len(plan),
        per_device_train_batch_size=1,
        learning_rate=section.learning_rate or (2e-4 if is_lora else 5e-5),
        lr_scheduler_type=schedule,
        warmup_steps=section.warmup_steps,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=section.precision == "bf16",
        fp16=section.precision == "fp16",
        seed=section.seed,
        logging_steps=section.logging_steps,
        logging_nan_inf_filter=False,  # a loss that is not finite stops the run
        save_steps=section.save_steps,
        save_total_limit=2,
        report_to=[r for r in section.report_to if r != "tensorboard"],  # see `watch.tensorboard`
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    # Several GPUs in one process would split a batch's tensors apart (DataParallel); several processes are the way.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
