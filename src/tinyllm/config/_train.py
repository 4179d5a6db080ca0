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
    """Pooled opinions as soft targets. Target of a question = (1 - weight) · right answer + weight · pooled opinion."""

    weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the pooled opinion in the target of a question with an answer. Without an answer, the "
        "target is the pooled opinion alone. 1: the answers of training questions are not used, as if they were "
        "unknown.",
    )
    temperature: float = Field(
        1.0, gt=0, description="Temperature of the pooled opinion. Above 1 it is flatter, below 1 sharper."
    )
    teachers: Literal["pooled"] | dict[str, float] = Field(
        "pooled",
        description="Weights of the teachers. The pooled opinion is proportional to the product of the teachers' "
        "opinions, each to the power of its weight. `pooled`: weights are learnt on the validation questions with an "
        "answer. If these are too few, on the training questions with an answer. If these are too few as well, from "
        "how often the teachers agree.",
    )
    trust: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="A question without an answer is learnt only if the pooled opinion gives one choice at least this "
        "probability. 0: all are learnt; 1: none is. `auto`: chosen on validation questions; if fewer than ten of "
        "these have an answer, all questions are learnt.",
    )
    shuffle: bool = Field(
        False,
        description="Control experiment: each question gets the pooled opinion on another question with the same "
        "number of choices.",
    )


class TrainSection(Section):
    """What the student learns, and how."""

    method: Method = Field(
        "tinyllm",
        description="Which targets the student learns, and with which weights. `auto` tries several settings of this "
        "section and keeps the student that does best on validation questions; see `auto`.",
    )
    answer: AnswerKind = Field(
        "text",
        description="How the student learns the answer. `text`: it learns to write it. `choices`: it learns to "
        "compare the choices as evaluation does, with the cross-entropy of the softmax over their log-likelihoods. "
        "`both`: both, with equal weight.",
    )
    soft: SoftSection | None = Field(
        None,
        description="Also learn from the teachers' opinions. A question with an answer has a mixture of answer and "
        "opinion as its target, a question without an answer the opinion alone. With `answer: text`, opinions only "
        "supply the missing answers. null: learn from answers only.",
    )
    rationales: RationaleUse = Field(
        "target",
        description="How the student uses rationales. `target`: it learns to write them, as tasks beside the answer "
        "(the paper). `before`: it learns to write a rationale and then the answer. In evaluation it does the same. "
        "`input`: it reads the rationale with the question. The rationale gets shorter with each step, and is gone in "
        "the steps of `answers_only` (SKIntern).",
    )
    teacher: str | None = Field(None, description="The teacher of `method: step-by-step`. null: the only one there is.")
    alpha: float | dict[str, float] = Field(
        1.0,
        description="α_m, the weight of each teacher's loss: one number for all teachers, or one per teacher. 0 "
        "leaves a teacher out.",
    )
    alpha_schedule: AlphaSchedule | dict[str, AlphaSchedule] = Field(
        "constant",
        description="How α_m changes during training: `constant`, or `linear` down to 0 (rationales first, answers "
        "last). One for all teachers, or one per teacher.",
    )
    answers_only: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Fraction of the optimizer steps, at the end of training, that train on answers only.",
    )
    normalisation: Literal["tokens", "examples"] = Field(
        "examples",
        description="How the loss of a task is averaged. `tokens`: over all target tokens of the batch. `examples`: "
        "over the tokens of each example, then over examples.",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate. null: 5e-5 for `adapter: full`, 2e-4 for `adapter: lora`."
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="Learning rate schedule after the warm-up."
    )
    warmup_steps: int = Field(0, ge=0, description="Number of optimizer steps of linear warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm. 0: no clipping.")
    batch_size: int = Field(16, ge=1, description="Number of questions in one optimizer step.")
    micro_batch_tokens: int = Field(
        2048,
        ge=16,
        description="Memory budget of one forward pass, in tokens. It includes the memory of attention. It changes "
        "memory and speed, not results.",
    )
    max_input_tokens: int = Field(
        1024, ge=16, description="Maximum length of the input, in the student's tokens. Only the context is cut to fit."
    )
    max_target_tokens: int = Field(
        256, ge=1, description="Maximum length of a target, in the student's tokens. Longer targets are cut."
    )
    epochs: int = Field(1, ge=1, description="Number of passes over the training questions.")
    max_steps: int | None = Field(None, ge=1, description="Stop after this many optimizer steps. null: after `epochs`.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="Numeric precision. bf16 and fp16 use autocast."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass. It saves memory and costs time."
    )
    compile: bool = Field(
        False, description="Compile the student's layers (torch.compile). It pays off in long training on a GPU."
    )
    validate_steps: int | None = Field(
        None,
        ge=1,
        description="Number of optimizer steps between two validations. null: no validation. The accuracy is by "
        "likelihood; with `student.layout: cloze` by likelihood per token.",
    )
    validate_questions: int = Field(200, ge=1, description="Maximum number of questions in one validation.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many validations without improvement; null: never."
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="Which student to keep: the last one, or the one with the best validation accuracy. Test "
        "questions are never used for this.",
    )
    save_steps: int | None = Field(
        None, ge=1, description="Number of optimizer steps between checkpoints. null: about every two minutes."
    )
    logging_steps: int = Field(1, ge=1, description="Number of optimizer steps between two lines of the training log.")
    report_to: tuple[str, ...] = Field((), description="Loggers of transformers: tensorboard, wandb, mlflow, trackio…")
    seed: int = Field(0, ge=0, description="Random seed of the order of questions, of dropout and of new weights.")


class AutoSection(Section):
    """The search of `train.method: auto`: successive halving on validation questions, never on test questions."""

    candidates: tuple[dict[str, Any], ...] = Field(
        (),
        description="Settings of `train` to try. Each candidate replaces settings of that section, as in "
        "`[{answer: choices, epochs: 3}, {method: tinyllm, alpha: 0.1}]`. A candidate without a method uses "
        "fine-tuning. Empty: a list that depends on the teachers (`tinyllm check` shows it).",
    )
    rungs: int = Field(
        3,
        ge=1,
        le=6,
        description="Number of rounds. After each round, the worse candidates stop. The last round trains to the end.",
    )
    keep: int = Field(
        3,
        ge=2,
        le=10,
        description="After each round, one in `keep` candidates goes on, with `keep` times as many optimizer steps.",
    )
    budget: float = Field(
        4.0,
        ge=1,
        description="Maximum number of optimizer steps of the whole search, as a multiple of the steps of the longest "
        "candidate. Candidates at the end of the list are left out until the others fit.",
    )
