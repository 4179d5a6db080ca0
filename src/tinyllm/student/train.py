"""Training a student: from targets to rows, from rows to a plan, and the training by the plan."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from tinyllm.config import TrainSection
from tinyllm.errors import MissingDependencyError, StudentError
from tinyllm.questions.types import Question
from tinyllm.student._checkpoints import (
    FOLDER,
    WEIGHTS_FILE,
    Best,
    keep_only_checkpoints_of,
    load_weights,
    newest_checkpoint,
    steps_done,
    whole,
)
from tinyllm.student._steps import Schedule
from tinyllm.student._trainer import PlanTrainer, peak_memory_bytes, reset_peak_memory
from tinyllm.student._watch import (
    LOG_FILE,
    Progress,
    Saving,
    StopAt,
    TrainLog,
    Validate,
    Validation,
    Watch,
    interruptible,
    tensorboard,
)
from tinyllm.student.encode import Encoder, Row
from tinyllm.student.learner import Learner
from tinyllm.student.mixture import Target
from tinyllm.student.model import Student
from tinyllm.student.plan import Shape, StepPlan
from tinyllm.system.machine import keep_freed_memory

_LOGGERS = ("wandb", "mlflow", "trackio", "comet_ml", "swanlab")  # the names of their packages, too


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The figures of a whole training, also if it was interrupted and resumed.

    Attributes:
        steps: optimizer steps that were done; fewer than planned if it stopped early.
        best_step: the step of the weights that were kept; None: the last one.
        seconds: time of optimizer steps and validation.
        tokens, target_tokens: tokens that were computed and tokens that were learnt, over all steps.
        valid_accuracy: the validation accuracy, by step.
        fingerprint: see `fingerprint`.
    """

    steps: int
    best_step: int | None
    seconds: float
    examples_per_second: float
    tokens: int
    target_tokens: int
    padding_fraction: float
    peak_memory_bytes: int
    final_loss: float | None
    valid_accuracy: dict[int, float]
    packed: bool
    shared_prompts: bool
    fingerprint: str


def tokenise(encoder: Encoder, questions: Sequence[Question], targets: Sequence[Target]) -> list[list[Row]]:
    """Return the rows of each question, in the order of the questions. A question without targets is left out."""
    of_question: dict[str, list[Target]] = {}
    for target in targets:
        of_question.setdefault(target.question_id, []).append(target)
    rows = (encoder.rows(q, of_question.get(q.id, ())) for q in questions)
    return [r for r in rows if r]


def plan_steps(
    rows: Sequence[Sequence[Row]], section: TrainSection, shape: Shape, *, teachers: Sequence[str], processes: int = 1
) -> StepPlan:
    """Return the step plan that the configuration asks for.

    Args:
        teachers: the teachers whose α has a schedule.
    """
    kinds = section.alpha_schedule
    of_teacher = {t: kinds.get(t, "constant") if isinstance(kinds, dict) else kinds for t in teachers}
    return StepPlan(
        rows,
        batch_size=section.batch_size,
        epochs=section.epochs,
        seed=section.seed,
        normalisation=section.normalisation,
        schedule=Schedule(of_teacher, section.answers_only),
        max_steps=section.max_steps,
        shape=shape,
        processes=processes,
    )


def train(
    student: Student,
    learner: Learner,
    plan: StepPlan,
    section: TrainSection,
    *,
    tasks: Sequence[str],
    folder: Path,
    progress: Progress = lambda *_: None,
    validate: Validate | None = None,
    until: int | None = None,
) -> TrainResult:
    """Train a student in place. Resume from the newest complete checkpoint in `folder/checkpoints`.

    With several processes (`torchrun`, `accelerate launch`), each of them calls this with the same arguments.

    Args:
        tasks: `answer` and the teachers, for the losses in the log.
        folder: gets `checkpoints/` while training, and `train_log.jsonl`. All processes must see it.
        validate: returns the accuracy on validation questions; required if the section asks for validation.
        until: stop after this optimizer step with a checkpoint, to continue later; None: after the last step, without
            one. The learning rate follows the whole plan. A training that stops here keeps its last weights, not the
            best.

    Raises:
        StudentError: fp16 with T5; precision or a compiler that this machine lacks; no weight has changed.
        NonFiniteLossError: the loss is infinite or not a number. The message names the step and the questions.
        MissingDependencyError: a logger is not installed.
    """
    check_training(student.model.config.model_type, section)
    _check_compiler(section)
    if section.validate_steps is not None and validate is None:
        raise StudentError("train.validate_steps needs validation questions: give data.valid, or data.cut.")
    keep_freed_memory()
    reset_peak_memory()
    checkpoints, key = folder / FOLDER, fingerprint(plan)
    arguments = _training_arguments(student.model, plan, section, checkpoints)
    with arguments.main_process_first(local=False):  # the folder is shared by all processes
        if arguments.process_index == 0:
            keep_only_checkpoints_of(checkpoints, key)
        resume = newest_checkpoint(checkpoints)
        log = TrainLog(folder / LOG_FILE, keep_steps=steps_done(resume))
        best = Best(checkpoints)
    trainer = PlanTrainer(learner, plan, tasks, arguments)
    _add_callbacks(trainer, section, log, best, folder, progress, validate)
    if resume is not None:
        progress(steps_done(resume), len(plan), "going on from a checkpoint")
    if section.compile:
        progress(steps_done(resume), len(plan), "compiling the layers first: half a minute or so")
    before, steps, stop = _sums(learner), steps_done(resume), len(plan) if until is None else min(until, len(plan))
    ran_out = section.patience is not None and best.worse_since(steps) >= section.patience
    if resume is not None and (steps >= stop or ran_out):
        load_weights(learner, resume / WEIGHTS_FILE)
    else:
        if until is not None:
            trainer.add_callback(StopAt(stop))
        with interruptible(trainer), learner.compiled() if section.compile else contextlib.nullcontext():
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        steps = trainer.state.global_step
    if stop == len(plan) and _sums(learner) == before:  # a first part may be shorter than the warm-up
        raise StudentError(
            "No weight has moved in training. Raise train.learning_rate; with LoRA, look at student.lora.targets."
        )
    best_step = None
    if section.keep == "best" and stop == len(plan):
        best_step = best.best_step()
        load_weights(learner, best.weights)
    done = plan.totals(steps)
    return TrainResult(
        steps=steps,
        best_step=best_step,
        seconds=log.last["seconds"],
        examples_per_second=done.questions / log.last["seconds"] if log.last["seconds"] else 0.0,
        tokens=done.computed,
        target_tokens=done.target_tokens,
        padding_fraction=done.padding_fraction,
        peak_memory_bytes=peak_memory_bytes(),
        final_loss=log.last["loss"],
        valid_accuracy={s: a for s, a in sorted(best.accuracies.items()) if s <= steps},
        packed=learner.way.packed,
        shared_prompts=learner.share_prompt,
        fingerprint=key,
    )


def _add_callbacks(
    trainer: PlanTrainer,
    section: TrainSection,
    log: TrainLog,
    best: Best,
    folder: Path,
    progress: Progress,
    validate: Validate | None,
) -> None:
    if trainer.is_world_process_zero():
        trainer.add_callback(Watch(trainer, log, progress))
        if "tensorboard" in section.report_to:
            trainer.add_callback(tensorboard(folder))
    if section.validate_steps is not None and validate is not None:
        trainer.add_callback(
            Validation(
                trainer, validate, best, progress,
                every=section.validate_steps, patience=section.patience, keep=section.keep == "best",
            )
        )  # fmt: skip
    trainer.add_callback(Saving(trainer, section.save_steps, progress))  # after all that can end the training


def _sums(learner: Learner) -> list[float]:
    """Return the sum of each trained tensor, to find out whether any has changed."""
    return [float(whole(p.detach().double().sum())) for p in learner.parameters() if p.requires_grad]


def fingerprint(plan: StepPlan) -> str:
    """Return a hash of everything that is learnt, in order. Another hash means another training."""
    schedule = (sorted(plan.schedule.kinds.items()), plan.schedule.answers_only)
    settings = (plan.batch_size, plan.seed, plan.normalisation, len(plan), schedule)
    digest = hashlib.sha256(repr(settings).encode())
    for rows in plan.questions:
        digest.update(repr(rows).encode())
        if fading := [row.fading for row in rows if row.fading[1]]:
            digest.update(repr(fading).encode())
    return digest.hexdigest()


def check_training(model_type: str, section: TrainSection) -> None:
    """Check that the model and this machine support the precision, and that the loggers are installed.

    Raises:
        StudentError: fp16 with T5, fp16 without a GPU, bf16 on a GPU that lacks it.
        MissingDependencyError: loggers are not installed. One message names all of them.
    """
    missing = [n for n in section.report_to if n in _LOGGERS and importlib.util.find_spec(n) is None]
    if "tensorboard" in section.report_to and importlib.util.find_spec("tensorboard") is None:
        missing.append("'tinyllm-distill[tensorboard]'")
    if missing:
        raise MissingDependencyError(f"train.report_to: not installed: pip install {' '.join(missing)}")
    if section.precision == "fp16" and model_type in {"t5", "mt5", "umt5", "longt5"}:
        raise StudentError(
            "train.precision: fp16 makes T5 overflow to NaN (it was pre-trained in bfloat16, with larger activations "
            "than fp16 can hold). Use bf16 where the hardware has it, else fp32."
        )
    if section.precision == "fp16" and not torch.cuda.is_available():
        raise StudentError("train.precision: fp16 needs a GPU, and this machine has none in reach; use fp32 or bf16.")
    if section.precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        raise StudentError("train.precision: this GPU has no bfloat16 arithmetic; use fp32, or fp16 (not for T5).")


def _check_compiler(section: TrainSection) -> None:
    """Check that this machine can compile a model, if the section asks for it."""
    named = os.environ.get("CXX")
    if section.compile and not torch.cuda.is_available() and not any(map(shutil.which, (named or "g++", "clang++"))):
        raise StudentError(
            "train.compile: on a CPU it takes a C++ compiler, and there is none (g++, clang++, or what CXX names). "
            "Install one (Debian: apt-get install g++), or set it to false."
        )


def _training_arguments(model: Any, plan: StepPlan, section: TrainSection, checkpoints: Path) -> TrainingArguments:
    """Return the arguments of `transformers.Trainer`. Also switch on gradient checkpointing, if the section asks."""
    is_lora = hasattr(model, "peft_config")
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if is_lora:
            model.enable_input_require_grads()
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
        save_strategy="no",  # see `_watch.Saving`; the Trainer would also save after the last step
        save_total_limit=2,
        report_to=[r for r in section.report_to if r != "tensorboard"],  # see `_watch.tensorboard`
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    # Several GPUs in one process would split a batch's tensors apart (DataParallel); several processes are the way.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
