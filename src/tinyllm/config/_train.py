"""`train` and `auto`: what the student learns, and how; and the search among several settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tinyllm.config.section import Section

Method = Literal[
    "fine-tuning", "step-by-step", "tinyllm",
    "shuffled", "keywords",  # controls
    "one-random", "shortest", "similarity", "student-likelihood",  # routers
    "auto",  # whichever of several does best on validation questions
]  # fmt: skip
AlphaSchedule = Literal["constant", "linear"]
AnswerKind = Literal["text", "choices", "both"]
RationaleUse = Literal["target", "before", "input"]


class SoftSection(Section):
    """Pooled opinions as targets: (1 - weight) · the right answer + weight · what the teachers think."""

    weight: float = Field(
        0.5, ge=0, le=1, description="Share of the pooled opinion where the answer is known; elsewhere it is all."
    )
    temperature: float = Field(1.0, gt=0, description="Of the pooled opinion: above 1 flatter, below 1 sharper.")
    teachers: Literal["pooled"] | dict[str, float] = Field(
        "pooled",
        description="Weights of the teachers: the pooled opinion is proportional to the product of theirs, each to the "
        "power of its weight. `pooled`: learned on the validation questions whose answer is known; of training "
        "questions where there are too few; else by how often the teachers agree.",
    )
    trust: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="Questions without an answer are learnt where the pooled opinion gives one choice at least this "
        "probability. `auto`: decided on validation questions; without answers there, all are learnt.",
    )
    shuffle: bool = Field(
        False, description="A control: each question gets the pooled opinion on another one with as many choices."
    )


class TrainSection(Section):
    """What the student is trained on, and how."""

    method: Method = Field(
        "tinyllm",
        description="The mixture: which targets the student sees, with what weight. `auto` tries several settings of "
        "this section and keeps the student that does best on validation questions; see `auto`.",
    )
    answer: AnswerKind = Field(
        "text",
        description="How the answer is learnt: as a text to write (`text`), by comparing the choices as evaluation "
        "does (`choices`: cross-entropy of the softmax over their log-likelihoods), or by both, with equal weight.",
    )
    soft: SoftSection | None = Field(
        None,
        description="Learn from the teachers' opinions, too: on questions with an answer beside it, on others alone. "
        "With `answer: text` they only say what the answer of a question without one is. null: answers only.",
    )
    rationales: RationaleUse = Field(
        "target",
        description="What the student does with a rationale. `target`: it learns to write it, beside the answer (the "
        "paper). `before`: it learns to write it and then to answer, and does so when it is asked. `input`: it reads "
        "it with the question, less of it in each step, and nothing in the share `answers_only` (SKIntern).",
    )
    teacher: str | None = Field(None, description="The one teacher of `step-by-step`; null: the only one there is.")
    alpha: float | dict[str, float] = Field(
        1.0,
        description="α_m, the weight of each teacher's loss; one for all, or one per teacher; 0 leaves a teacher out.",
    )
    alpha_schedule: AlphaSchedule | dict[str, AlphaSchedule] = Field(
        "constant",
        description="How α_m changes during training: `constant`, or `linear` down to 0 (rationales first, answers "
        "last); one for all teachers, or one per teacher.",
    )
    answers_only: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps, at the end, that train on answers only."
    )
    normalisation: Literal["tokens", "examples"] = Field(
        "examples",
        description="Each L is the mean over all target tokens of the batch, or over examples of the mean over tokens.",
    )
    learning_rate: float | None = Field(None, gt=0, description="Peak rate; null: 5e-5 for full, 2e-4 for lora.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Rate after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Optimizer steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradient clipping; 0: none.")
    batch_size: int = Field(16, ge=1, description="Questions in one optimizer step.")
    micro_batch_tokens: int = Field(
        2048,
        ge=16,
        description="Tokens in one forward pass, including the memory of attention. Changes memory, not results.",
    )
    max_input_tokens: int = Field(1024, ge=16, description="Longest input; only the context is cut to fit.")
    max_target_tokens: int = Field(
        256, ge=1, description="Longest target, in the student's tokens; longer ones are cut."
    )
    epochs: int = Field(1, ge=1, description="Passes over the training questions.")
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps.")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="Precision; bf16 and fp16 use autocast.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, more time.")
    compile: bool = Field(
        False, description="Compile the student's layers (torch.compile), for long training on a GPU."
    )
    validate_steps: int | None = Field(
        None,
        ge=1,
        description="Optimizer steps between two validations; null: no validation. The accuracy is by likelihood; with "
        "`student.layout: cloze` by likelihood per token.",
    )
    validate_questions: int = Field(200, ge=1, description="Maximum number of questions per validation.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many validations without improvement; null: never."
    )
    keep: Literal["last", "best"] = Field(
        "last", description="The student to keep: the last, or the best by validation accuracy (never by test)."
    )
    save_steps: int | None = Field(
        None, ge=1, description="Optimizer steps between checkpoints; null: every two minutes or so."
    )
    logging_steps: int = Field(1, ge=1, description="Optimizer steps between lines of the training log.")
    report_to: tuple[str, ...] = Field((), description="Loggers of transformers: tensorboard, wandb, mlflow, trackio…")
    seed: int = Field(0, ge=0, description="Seed of the order of questions, of dropout and of new weights.")


class AutoSection(Section):
    """The search of `train.method: auto`: successive halving on validation questions, never on test questions."""

    candidates: tuple[dict[str, Any], ...] = Field(
        (),
        description="Settings of `train` to try, each laid over that section, as in `[{answer: choices, epochs: 3}, "
        "{method: tinyllm, alpha: 0.1}]`; the method is fine-tuning where none is given. Empty: a list that goes by "
        "the teachers (`tinyllm check` shows it).",
    )
    rungs: int = Field(
        3, ge=1, le=6, description="Looks at the candidates: after each, the worse ones stop. The last ends a training."
    )
    keep: int = Field(
        3, ge=2, le=10, description="One in so many candidates goes on, with so many times the optimizer steps."
    )
    budget: float = Field(
        4.0,
        ge=1,
        description="Optimizer steps that the search may take in all, as a multiple of those of the longest candidate. "
        "The last candidates of the list are left out until it suffices.",
    )
