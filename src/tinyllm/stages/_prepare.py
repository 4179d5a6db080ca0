"""The student of a run, and what it is about to learn: loaded and planned here, trained by `student.train`."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyllm.config import ANSWER_TASK, Config, teachers_in_use
from tinyllm.config.read import SPEED_ONLY
from tinyllm.questions.types import Question, Splits
from tinyllm.stages._soft import soft_lines, taught, uses_answers
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import Prepared, student_card
from tinyllm.system.files import read_json, write_json
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.rationales.types import Rationale
    from tinyllm.student.encode import Encoder
    from tinyllm.student.learner import Learner
    from tinyllm.student.mixture import Target
    from tinyllm.student.model import Student
    from tinyllm.student.train import TrainResult

Advance = Callable[[int, int, str], None]
"""Takes the steps or questions done, their number in all, and a note."""

_LEAST = 1e-12  # of a probability, so that its logarithm is one
_STUDENT_BYTES = 4  # of a parameter, in float32
_TRAINED_BYTES = 2 * 3 * 4  # of a parameter in two checkpoints, each with its value and the two moments of AdamW


def prepare_training(config: Config, run: RunFolder, news: News, splits: Splits, *, processes: int = 1) -> Prepared:
    """Load the student, and plan what it learns from the rationales of the run; trains nothing."""
    from tinyllm.rationales.files import read_rationales
    from tinyllm.student.mixture import MixtureSettings, mix
    from tinyllm.student.train import plan_steps, tokenise

    rationales = read_rationales(run.path) if teachers_in_use(config) else ()
    learnt = taught(config, run, splits)
    if rationales:  # of questions that are left out here nothing is learnt, not even under another question
        learnt_from = {q.id for q in learnt.questions}
        tells = uses_answers(config)  # a rationale of a known answer tells it
        rationales = tuple(r for r in rationales if r.question_id in learnt_from and (tells or r.pooled))
    settings = MixtureSettings.of(config, learnt.shares)
    with news.task(f"Loading the student {config.student.model}"):
        student = _loaded(config)
        learner = student.learner(config.train.max_input_tokens + config.train.max_target_tokens)
    if config.train.method == "student-likelihood":
        known = _rationale_likelihoods(config, run, news, student, learner, learnt.questions, rationales)
        settings = replace(settings, likelihoods=known)
    targets = mix(config.train.method, learnt.questions, rationales, settings)
    encoder = student.encoder(max_target_tokens=config.train.max_target_tokens, share_prompt=learner.share_prompt)
    with news.task("Planning"):
        plan = plan_steps(
            tokenise(encoder, learnt.questions, targets),
            config.train,
            learner.shape(config.train.micro_batch_tokens),
            teachers=tuple(settings.alpha),
            processes=processes,
        )
    notes = [*soft_lines(learnt.figures), *learner.notes(), *cut_targets(encoder, targets)]
    if config.train.max_steps is not None and config.train.max_steps > len(plan):
        notes.append(f"train.max_steps: {config.train.max_steps} is not reached; train.epochs ends after {len(plan)}")
    if teachers_in_use(config) and not rationales:
        notes.insert(
            0, f"no question has a rationale, so answers alone are learnt, by {config.train.method} as by fine-tuning"
        )
    return Prepared(plan, student, learner, dict(Counter(t.learnt for t in targets)), learnt.figures, tuple(notes))


def train_prepared(
    config: Config, prepared: Prepared, splits: Splits, folder: Path, progress: Advance, until: int | None = None
) -> TrainResult:
    """Train a student by its plan, and measure its accuracy on the validation questions if there are any."""
    from tinyllm.student.train import train

    return train(
        prepared.student,
        prepared.learner,
        prepared.plan,
        config.train,
        tasks=tuple(dict.fromkeys((ANSWER_TASK, *(t.name for t in teachers_in_use(config)), *prepared.targets))),
        folder=folder,
        progress=progress,
        validate=validation(config, prepared.student, prepared.learner, splits),
        until=until,
    )


def give_back_memory() -> None:
    """Give the system back the memory of a training: what reference cycles hold, and the freed blocks that are kept.

    Without it, a process that has trained on long texts holds several times the memory that it needs to evaluate.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def cut_targets(encoder: Encoder, targets: Sequence[Target]) -> list[str]:
    """Say, by task, how many targets are longer than the longest target."""
    cut = Counter(t.task for t in targets if encoder.is_cut(t.text))
    return [
        f"{number} × target of {task} cut to train.max_target_tokens ({encoder.max_target_tokens})"
        for task, number in cut.items()
    ]


def _rationale_likelihoods(
    config: Config,
    run: RunFolder,
    news: News,
    student: Student,
    learner: Learner,
    questions: Sequence[Question],
    rationales: Sequence[Rationale],
) -> dict[tuple[str, str], float]:
    """Return how likely the untrained student finds each rationale, by (question id, teacher).

    Measured once for a set of questions and rationales, and kept in the run folder (`likelihoods.json`).
    """
    from tinyllm.scoring.predictions import CONVENTION
    from tinyllm.scoring.score import arithmetic, score_targets
    from tinyllm.student.mixture import MixtureSettings, tinyllm

    written = replace(MixtureSettings.of(config), rationales="target")
    targets = [t for t in tinyllm(questions, rationales, written) if t.task != ANSWER_TASK]
    section = config.evaluate
    read = (
        config.student.model, config.student.revision, student_card(config), config.train.max_target_tokens,
        section.precision, CONVENTION,
    )  # fmt: skip
    asked = [(q.id, q.question, q.choices, q.context) for q in questions]
    taught = [(t.question_id, t.prefix, t.text) for t in targets]
    key = hashlib.sha256(repr((read, asked, taught)).encode("utf-8", "surrogatepass")).hexdigest()
    file = run.likelihoods
    kept = read_json(file) if file.is_file() else {}
    if kept.get("fingerprint") == key:
        return {(question, teacher): value for question, teacher, value in kept["likelihoods"]}
    said = "Reading the rationales as the untrained student"
    with news.task(said, len(questions)) as task, arithmetic(learner, section.precision):
        found = score_targets(
            student, learner, questions, targets,
            max_target_tokens=config.train.max_target_tokens,
            batch_tokens=section.batch_tokens,
            progress=task.update,
        )  # fmt: skip
    listed = [(question, teacher, round(value, 6)) for (question, teacher), value in found.items()]
    write_json(file, {"fingerprint": key, "likelihoods": listed})
    return {(question, teacher): value for question, teacher, value in listed}


def whole_student(config: Config, trained: Prepared) -> Student:
    """Return the trained student with all weights in this process, where several hold it as shards (FSDP).

    Every process has to call this.
    """
    from tinyllm.student import gathered_weights, put_weights

    weights = gathered_weights(trained.learner)
    if weights is None:
        return trained.student
    student = _loaded(config)
    put_weights(student.learner(learns=False), weights)
    return student


def _loaded(config: Config) -> Student:
    """Load the student that is to learn, with its adapters."""
    from tinyllm.student.model import add_lora, load_student

    student = load_student(config.student, student_card(config))
    if config.student.adapter == "lora":
        add_lora(student, config.student.lora, config.train.seed)
    return student


def needs_validation(config: Config) -> bool:
    """Whether a student is picked by validation questions, so that there must be some."""
    return config.train.validate_steps is not None or config.train.method == "auto"


def validation_fingerprint(config: Config, splits: Splits) -> str:
    """Return a hash of the validation questions that checkpoints are chosen by, and probabilities calibrated with."""
    asked = [(q.id, q.question, q.choices, q.context, q.answer) for q in looked_at(config, splits)]
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogatepass")).hexdigest()


def training_fingerprint(splits: Splits) -> str:
    """Return a hash of the questions that are learnt from."""
    digest = hashlib.sha256()
    for q in chain(splits.train, splits.more):
        digest.update(repr((q.id, q.question, q.choices, q.context, q.answer)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def made_of(config: Config, run: RunFolder, splits: Splits, chose: str = "") -> str:
    """Return a hash of everything that a training depends on. It needs no student, unlike the hash of the plan.

    Args:
        chose: the candidate of a search.
    """
    train = config.train.model_dump(exclude=set(SPEED_ONLY))
    told = (config.student.model_dump(), train, config.evaluate.precision, [t.name for t in config.teachers], chose)
    digest = hashlib.sha256(repr(told).encode("utf-8", "surrogatepass"))
    digest.update(f"{training_fingerprint(splits)} {validation_fingerprint(config, splits)}".encode())
    for q in splits.valid:  # they weigh opinions
        digest.update(repr((q.id, q.answer)).encode("utf-8", "surrogatepass"))
    for name in ("rationales.parquet", "opinions.parquet"):
        file = run.path / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def looked_at(config: Config, splits: Splits) -> list[Question]:
    """Return the validation questions that a student is picked by."""
    count = min(len(splits.valid), config.train.validate_questions)
    # Spread evenly: a file may be sorted by topic.
    return [splits.valid[place * len(splits.valid) // count] for place in range(count)]


def validation(config: Config, student: Student, learner: Learner, splits: Splits) -> Callable[[], float] | None:
    """Return what measures the accuracy on validation questions by likelihood; None where there are none."""
    from tinyllm.scoring.predictions import credit

    asked = looked_at(config, splits)
    if not asked:
        return None

    def accuracy() -> float:
        ranked = _rankings(config, student, learner, asked)
        return sum(credit(r, q.known_answer) for r, q in zip(ranked, asked, strict=True)) / len(asked)

    return accuracy


def calibration(
    config: Config, student: Student, learner: Learner, splits: Splits, progress: Advance
) -> tuple[float, float | None]:
    """Return the temperature of the trained student's probabilities, by the validation questions, and its accuracy.

    Without a known answer these are 1 and None. Every process has to call this.
    """
    from tinyllm.scoring.calibration import fit_temperature
    from tinyllm.scoring.predictions import credit

    asked = [q for q in looked_at(config, splits) if q.answer is not None]
    if not asked:
        return 1.0, None
    answers, ranked = [q.known_answer for q in asked], _rankings(config, student, learner, asked, progress)
    return fit_temperature(ranked, answers), sum(map(credit, ranked, answers)) / len(asked)


def validation_scores(config: Config, student: Student, learner: Learner, splits: Splits) -> tuple[float, float]:
    """Return the accuracy on validation questions, and the mean log-loss at the temperature that fits them best.

    Every process has to call this.
    """
    from tinyllm.scoring.calibration import fit_temperature, probabilities
    from tinyllm.scoring.predictions import credit

    asked = looked_at(config, splits)
    answers, ranked = [q.known_answer for q in asked], _rankings(config, student, learner, asked)
    temperature = fit_temperature(ranked, answers)
    pairs = list(zip(ranked, answers, strict=True))
    loss = -sum(math.log(max(probabilities(of, temperature)[answer], _LEAST)) for of, answer in pairs)
    return sum(credit(of, answer) for of, answer in pairs) / len(pairs), loss / len(pairs)


def _rankings(
    config: Config,
    student: Student,
    learner: Learner,
    asked: Sequence[Question],
    progress: Advance = lambda *_: None,
) -> list[tuple[float, ...]]:
    """Return what each question's choices are ranked by."""
    from tinyllm.scoring.score import arithmetic, score_options

    section = config.evaluate
    with arithmetic(learner, section.precision):
        scores = score_options(student, learner, asked, batch_tokens=section.batch_tokens, progress=progress)
    return [s.ranking(config.student.layout) for s in scores]


def little_space(config: Config, model_config: Any, run: RunFolder) -> str:
    """Return a warning if the disk of a run has less space than its training may take; empty otherwise."""
    from tinyllm.student.model import parameters_in_use

    if run.is_trained or any(run.path.glob("**/checkpoints/checkpoint-*")):  # what it takes is there already
        return ""
    try:
        body, head = parameters_in_use(model_config)
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
        return ""  # a model without the usual parts: how large it is shows when it is loaded
    parameters = body + (head if getattr(model_config, "tie_word_embeddings", True) else 2 * head)
    needed = parameters * (_STUDENT_BYTES + (_TRAINED_BYTES if config.student.adapter == "full" else 0))
    path = run.path.absolute()
    free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.is_dir())).free
    if free >= needed:
        return ""
    about = "at least" if config.train.method == "auto" else "about"
    return (
        f"the disk of {run.path} has {free / 1e9:.1f} GB of space, and training may take {about} {needed / 1e9:.1f} GB "
        "of it, for checkpoints and the student. Free some space, or name a folder on another disk with --run-dir"
    )
