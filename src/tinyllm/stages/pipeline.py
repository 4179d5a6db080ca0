"""The stages of a run. Each reads its input from the run folder and writes its output there, and can be run alone.

    check → generate → train → evaluate → report

`run_all` runs them in order and leaves out what is done. Stages load and save; the work itself is done by functions
that take objects (`rationales.generate`, `student.train`, `evaluation.scoring`, …).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinyllm.config import ANSWER_TASK, Config, task_prefixes, teachers_in_use
from tinyllm.errors import DataError, RunFolderError
from tinyllm.questions.known import with_answers
from tinyllm.questions.spool import leave_out
from tinyllm.questions.types import Dropped, Question, Splits
from tinyllm.stages.asking import forecast_lines, opened_asking
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.prepare import (
    Prepared,
    cut_targets,
    mixture_settings,
    prepare_training,
    student_card,
    validation,
    validation_fingerprint,
    whole_student,
)
from tinyllm.system.files import read_json, write_json, write_jsonl
from tinyllm.system.news import News, Task

if TYPE_CHECKING:
    from tinyllm.rationales.forecast import Forecast
    from tinyllm.rationales.types import TeacherYield
    from tinyllm.scoring.predict import Prediction
    from tinyllm.student.encode import Encoder
    from tinyllm.student.model import Student

_SHOWN = 20
_Unfit = Literal["too long", "indistinct"]
_CHUNK = 1000  # questions measured between two looks at the progress


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: all that can be said before anything is spent.

    Attributes:
        forecasts: what asking each teacher will take.
        given: rationales that the data have, by teacher.
    """

    questions: dict[str, int]
    dropped: int
    warnings: dict[str, int]
    forecasts: tuple[Forecast, ...]
    given: dict[str, int]
    steps: int


def load_questions(config: Config, news: News) -> Splits:
    """Read the questions of a run and say what was left out."""
    from tinyllm.questions import load_splits

    with news.task("Reading questions") as task:
        splits = load_splits(config.data)
        task.note = f"{len(splits.train)} train, {len(splits.valid)} valid, {len(splits.test)} test"
    for text, count in splits.warnings.items():
        news.say(f"  note: {count} × {text}")
    if splits.dropped:
        news.say(f"  note: {len(splits.dropped)} rows left out, as data.on_invalid: drop asks; the report names them")
    return splits


def fit_questions(splits: Splits, encoder: Encoder, prefixes: Mapping[str, str], on_invalid: str, news: News) -> Splits:
    """Settle what to do about questions that the student cannot be asked; count the contexts that are cut to fit.

    It cannot be asked a question that is too long even without its context, nor one with choices that are nothing, or
    the same, in its tokens. What is left out depends on no method: training questions must fit under the prefix of
    every teacher, the others under that of answering. So figures of different methods are of the same questions.

    Raises:
        DataError: there are some, and `on_invalid` is `error`; or no training question is left.
    """
    needed = {"train": tuple(prefixes.values()), "valid": (prefixes[ANSWER_TASK],), "test": (prefixes[ANSWER_TASK],)}
    places: dict[str, list[int]] = {name: [] for name in needed}
    dropped: list[Dropped] = []
    found: dict[_Unfit, list[Dropped]] = {"too long": [], "indistinct": []}
    cut: Counter[str] = Counter()
    with news.task("Measuring questions", sum(len(getattr(splits, name)) for name in needed)) as task:
        for name, those in needed.items():
            for place, question, kind, reason in _unfit(getattr(splits, name), encoder, those, task, cut, name):
                places[name].append(place)
                dropped.append(Dropped(name, f"question '{question.id}'", reason))
                found[kind].append(dropped[-1])
    if dropped and on_invalid == "error":
        raise DataError("\n".join(_unfit_text(kind, those) for kind, those in found.items() if those))
    warnings = dict(splits.warnings)
    for name, number in cut.items():
        text = f"{name} question whose context is cut to train.max_input_tokens ({encoder.max_input_tokens})"
        warnings[text] = number
        news.say(f"  note: {number} × {text}")
    kept = {name: leave_out(getattr(splits, name), found) for name, found in places.items()}
    if not len(kept["train"]):
        raise DataError(
            f"No training question is left: of {len(splits.train)}, all are longer than the longest input, or "
            f"have choices that the student cannot tell apart ({dropped[0].where}: {dropped[0].reason})."
            if len(splits.train)
            else "There are no training questions; data.train, or the file that data.cut cuts, holds none for training."
        )
    return Splits(**kept, dropped=(*splits.dropped, *dropped), warnings=warnings)


def _unfit_text(kind: _Unfit, those: Sequence[Dropped]) -> str:
    lines = "\n".join(f"  - {d.split}: {d.where}: {d.reason}" for d in those[:_SHOWN])
    more = f"\n  … and {len(those) - _SHOWN} more" if len(those) > _SHOWN else ""
    if kind == "too long":
        return (
            f"{len(those)} questions are longer than the longest input; only a context may be cut:\n{lines}{more}\n"
            "Raise train.max_input_tokens, shorten them, or leave them out with data.on_invalid: drop."
        )
    return (
        f"{len(those)} questions have choices that the student cannot tell apart:\n{lines}{more}\n"
        "Write the choices in characters that the student's tokenizer knows, take another student, or raise "
        "train.max_target_tokens where they only begin alike; or leave these questions out with data.on_invalid: drop."
    )


def _unfit(
    questions: Sequence[Question],
    encoder: Encoder,
    prefixes: Sequence[str],
    task: Task,
    cut: Counter[str],
    split: str,
) -> Iterator[tuple[int, Question, _Unfit, str]]:
    """Yield the place of each question that the student cannot be asked, and why; count the others' cut contexts."""
    for start in range(0, len(questions), _CHUNK):
        chunk = questions[start : start + _CHUNK]
        fit = encoder.fit(chunk, prefixes)
        long, of_context = {t.question_id: t for t in fit.too_long}, set(fit.cut)
        task.update(task.done + len(chunk))
        for place, question in enumerate(chunk, start):
            if (t := long.get(question.id)) is not None:
                yield place, question, "too long", f"{t.tokens} tokens of question and choices, {t.allowed} allowed"
            elif reason := encoder.indistinct(question.choices, learnt=split == "train"):
                yield place, question, "indistinct", reason
            elif question.id in of_context:
                cut[split] += 1


# --- check -------------------------------------------------------------------------------------------------------


def check_run(config: Config, run: RunFolder, news: News, *, pilot: int = 0) -> Checked:
    """Find every problem that can be found without spending anything, and say what a run will take.

    Args:
        pilot: questions that each teacher is asked, to measure what it is like; the replies are kept.
    """
    from tinyllm.rationales.ray_engine import check_engine
    from tinyllm.student.mixture import mix
    from tinyllm.student.plan import Shape
    from tinyllm.student.train import plan_steps, tokenise
    from tinyllm.student.watch import check_loggers

    check_loggers(config.train.report_to)
    check_engine(config.rationales.engine)
    if (run.path.exists() or run.path.is_symlink()) and not run.path.is_dir():
        raise RunFolderError(f"{run.path} is a file, so it cannot be the run's folder; choose another with --run-dir.")
    splits, encoder = checked_questions(config, news)
    forecasts = _forecasts(config, run, splits, news, pilot)
    given = _given_rationales(config, splits.train)
    # How many targets there are does not depend on which rationale is likelier, and the student is not at hand.
    likelihoods = dict.fromkeys(((r.question_id, r.teacher) for r in given), 0.0)
    settings = replace(mixture_settings(config), likelihoods=likelihoods)
    targets = mix(config.train.method, splits.train, given, settings)
    for note in cut_targets(encoder, targets):
        news.say(f"  note: {note}")
    rows = tokenise(encoder, splits.train, targets)
    shape = Shape(config.train.micro_batch_tokens, encoder_decoder=encoder.is_encoder_decoder)
    plan = plan_steps(rows, config.train, shape, teachers=tuple(settings.alpha))
    return Checked(
        questions={name: len(getattr(splits, name)) for name in ("train", "valid", "test")},
        dropped=len(splits.dropped),
        warnings=dict(splits.warnings),
        forecasts=forecasts,
        given=dict(Counter(r.teacher for r in given)),
        steps=len(plan),
    )


def _forecasts(config: Config, run: RunFolder, splits: Splits, news: News, pilot: int) -> tuple[Forecast, ...]:
    with opened_asking(config, run, splits.train, may_write=pilot > 0) as asking:
        if pilot:
            asking.ask(news, "Pilot", first=pilot)
        return asking.forecasts(news)


def checked_questions(config: Config, news: News, answers: Collection[str] = ("train",)) -> tuple[Splits, Encoder]:
    """Read the questions and hold them against the student's tokenizer, before anything is spent.

    Args:
        answers: the splits whose answers are needed; `valid` is one of them where training looks at its accuracy.
    """
    from tinyllm.student.model import load_tokenizer
    from tinyllm.student.train import check_precision

    splits = load_questions(config, news)
    looked_at = () if config.train.validate_steps is None else ("valid",)
    splits = with_answers(splits, {*answers, *looked_at}, drop=config.data.on_invalid == "drop")
    with news.task("Reading the student's tokenizer and configuration"):
        tokenizer, model_config = load_tokenizer(config.student)
    check_precision(model_config.model_type, config.train)
    if config.train.validate_steps is not None and not len(splits.valid):
        raise DataError("train.validate_steps needs validation questions: give data.valid, or data.cut.")
    card = student_card(config)
    encoder = card.encoder(
        tokenizer,
        is_encoder_decoder=bool(model_config.is_encoder_decoder),
        max_target_tokens=config.train.max_target_tokens,
    )
    prefixes = task_prefixes(config.student.prefixes, [t.name for t in config.teachers])
    return fit_questions(splits, encoder, prefixes, config.data.on_invalid, news), encoder


def _given_rationales(config: Config, questions: Sequence[Question]) -> list[Any]:
    from tinyllm.rationales.types import Rationale

    sources = {t.name: t.source or t.name for t in teachers_in_use(config) if t.kind == "given"}
    return [
        Rationale(q.id, name, q.rationales[source])
        for q in questions
        for name, source in sources.items()
        if source in q.rationales
    ]


# --- generate ----------------------------------------------------------------------------------------------------


def generate_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, TeacherYield]:
    """Have the teachers that the method learns from write rationales for the training questions.

    What the store holds is not asked again. Writes `rationales.parquet`, `rejected.jsonl`.

    Raises:
        TeacherError: a teacher can answer nothing more; the others have finished by then.
        KeyboardInterrupt: it was interrupted; every reply that came is stored.
    """
    from tinyllm.rationales.files import write_rationales

    splits = splits or checked_questions(config, news)[0]
    with opened_asking(config, run, splits.train) as asking:
        if asking.is_priced:
            for line in forecast_lines(asking.forecasts(news)):
                news.say(line)
        asking.ask(news, "Rationales")
        collection = asking.collection()
        with news.task("Checking the replies"):
            write_rationales(run.path, collection)
    for name, found in collection.yields.items():
        news.say(_yield_text(name, found))
    return collection.yields


def _yield_text(name: str, found: TeacherYield) -> str:
    rejected = ", ".join(f"{n} {reason}" for reason, n in sorted(found.rejected.items(), key=lambda i: -i[1]))
    return (
        f"  {name}: {found.rationales} rationales"
        + (f" ({sum(found.repaired.values())} repaired)" if found.repaired else "")
        + (f", {sum(found.resampled.values())} replies asked for anew" if found.resampled else "")
        + (f", {found.missing} missing" if found.missing else "")
        + (f", {found.thinking_tokens:,} tokens of thoughts" if found.thinking_tokens else "")
        + (f", rejected: {rejected}" if rejected else "")
    )


# --- train -------------------------------------------------------------------------------------------------------


def plan_run(config: Config, run: RunFolder, news: News, *, processes: int = 1) -> Prepared:
    """Load the student and plan what it learns from the rationales of the run; train nothing.

    Args:
        processes: that would share each step.
    """
    return prepare_training(config, run, news, checked_questions(config, news)[0], processes=processes)


def train_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, Any]:
    """Train the student on answers and rationales, resuming from a checkpoint if there is one.

    A student that is trained on exactly these targets is left as it is; if questions or rationales have changed
    since, it is trained again. Several processes (`torchrun`, `accelerate launch`, `--nproc`) all call this; the first
    of them writes. Writes `student/`, `train_log.jsonl`, `plan.json`, `train_result.json`.
    """
    from tinyllm.student.checkpoints import FOLDER, checkpoint_of_another, discard_checkpoints
    from tinyllm.student.model import save_student
    from tinyllm.student.processes import Processes
    from tinyllm.student.train import fingerprint, train

    splits = splits or checked_questions(config, news)[0]
    processes = Processes.joined()
    prepared = prepare_training(config, run, news, splits, processes=processes.count)
    plan, student, learner = prepared.plan, prepared.student, prepared.learner
    looked_at = validation_fingerprint(config, splits)
    plan_file = run.path / "plan.json"
    was_looked_at = read_json(plan_file).get("validation") if plan_file.is_file() else None
    is_same = was_looked_at in (None, looked_at)  # an older plan does not say
    done = run.is_trained and is_same and read_json(run.train_result).get("fingerprint") == fingerprint(plan)
    processes.wait()  # until everyone has looked
    if done:
        news.say(f"✓ The student is already trained ({run.student})")
        return read_json(run.train_result)
    if processes.is_first:
        if not is_same:
            news.say(
                "  note: the validation questions have changed since, by which the student is picked: it trains anew"
            )
            discard_checkpoints(run.path)
        elif other := checkpoint_of_another(run.path / FOLDER, fingerprint(plan)):
            news.say(f"  note: questions or rationales have changed since step {other}, so training begins anew")
        elif run.is_trained:
            news.say("  note: questions or rationales have changed since the student was trained: it is trained again")
        write_json(plan_file, {**plan.as_json(), "validation": looked_at})
    processes.wait()
    news.say("  targets: " + ", ".join(f"{n} {task}" for task, n in prepared.targets.items()))
    for note in prepared.notes:
        news.say(f"  note: {note}")
    with news.task("Training", len(plan)) as task:
        result = train(
            student,
            learner,
            plan,
            config.train,
            tasks=(ANSWER_TASK, *mixture_settings(config).alpha),
            folder=run.path,
            progress=lambda done, total, note: task.update(done, total, note),
            validate=validation(config, student, learner, splits),
        )
        task.note = f"loss {result.final_loss:.3f}" if result.final_loss is not None else ""
    if result.steps < len(plan):
        news.say(f"  stopped early, after {result.steps} of {len(plan)} steps")
    if result.best_step is not None:
        news.say(f"  kept the student of step {result.best_step}, the best on the validation questions")
    figures = {**asdict(result), "targets": prepared.targets}
    with news.task("Saving the student"):
        student = whole_student(config, prepared)
        if processes.is_first:
            run.forget_training()  # a student of other targets stays until this one is done
            save_student(student, run.student, _model_card(config, Counter(prepared.targets)))
            write_json(run.train_result, figures)
            discard_checkpoints(run.path)
        processes.wait()
    return figures


def _model_card(config: Config, targets: Counter[str]) -> str:
    from tinyllm.student.card import model_card

    return model_card(config, targets)


# --- evaluate ----------------------------------------------------------------------------------------------------


def evaluate_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, Any]:
    """Score the student before and after training on the test split.

    Writes `predictions.jsonl`, `metrics.json`.
    """
    from tinyllm.comparison.metrics import metrics
    from tinyllm.rationales.files import read_yields
    from tinyllm.scoring.predict import predict
    from tinyllm.student.model import load_student, read_student

    if not run.is_trained:
        raise RunFolderError(f"{run.path} has no trained student; run `tinyllm train` first.")
    splits = splits or checked_questions(config, news, ("train", "test"))[0]
    if not splits.test:
        raise DataError("There are no test questions to evaluate on: give data.test, or data.cut with a test share.")
    yields = read_yields(run.path) if teachers_in_use(config) else {}
    train = read_json(run.train_result)
    predictions: list[Prediction] = []
    for stage in ("before", "after") if config.evaluate.before else ("after",):
        with news.task(f"Evaluating {'the untrained student' if stage == 'before' else 'the student'}") as task:
            task.note = "loading"
            student: Student = (
                load_student(config.student, student_card(config)) if stage == "before" else read_student(run.student)
            )
            taught = splits.train[: config.evaluate.train_questions] if stage == "after" else ()
            predictions += predict(stage, student, splits.test, taught, config.evaluate, task.update)
            task.note = ""
    figures = metrics(
        config,
        splits,
        predictions,
        yields,
        train,
    )
    write_jsonl(run.predictions, [p.as_json() for p in predictions])
    write_json(run.metrics, figures)
    return figures


# --- report and the whole ------------------------------------------------------------------------------------------


def report_run(run: RunFolder, news: News) -> Path:
    """Write `report.html`, a page that opens from disk."""
    from tinyllm.report import write_report

    with news.task("Writing the report"):
        return write_report(run.path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a whole run gave.

    Attributes:
        unanswered: questions for which a teacher gave no reply at all, by teacher and reason.
    """

    metrics: dict[str, Any]
    report: Path
    unanswered: dict[str, dict[str, int]]


def run_all(config: Config, run: RunFolder, news: News) -> Outcome:
    """Run every stage that is not done yet."""
    from tinyllm.comparison.metrics import evaluation_fingerprint

    splits, _ = checked_questions(config, news, ("train", "test"))
    yields = generate_run(config, run, news, splits)
    train_run(config, run, news, splits)
    if run.metrics.is_file() and read_json(run.metrics).get("fingerprint") == evaluation_fingerprint(config, splits):
        news.say(f"✓ The student is already evaluated ({run.metrics})")
        figures = read_json(run.metrics)
    else:
        figures = evaluate_run(config, run, news, splits)
    unanswered = {name: found.unanswered for name, found in yields.items() if found.unanswered}
    return Outcome(figures, report_run(run, news), unanswered)


# --- ask ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """A student's answer to one question.

    Attributes:
        probabilities: of each choice, from the choices' log-likelihoods (they sum to 1): the totals, or the means a
            token where the student is not shown the choices.
        rationales: what the student writes in each teacher's manner.
        tied: other choices that the student finds just as likely.
        context_cut: whether the context was cut to fit the longest input.
    """

    choice: int
    text: str
    probabilities: tuple[float, ...]
    rationales: dict[str, str]
    tied: tuple[str, ...] = ()
    context_cut: bool = False


def _check_asked(question: Question) -> None:
    choices = [c.strip() for c in question.choices]
    if not question.question.strip():
        raise DataError("The question is empty.")
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise DataError(f"A question needs two or more different choices that are not empty, got {choices}.")


def ask_student(folder: Path, question: Question, *, explain: bool, max_rationale_tokens: int = 96) -> Answered:
    """Ask a trained student one question.

    A student that is not shown the choices goes by the mean log-likelihood a token, which long choices do not lower.

    Args:
        folder: a run folder, or the student's own.
        explain: also have it write a rationale in the manner of each of its teachers.
    """
    import math

    from tinyllm.scoring.score import generate_texts, leaders, score_options
    from tinyllm.student.model import read_student, student_folder

    _check_asked(question)
    if not folder.is_dir():
        raise RunFolderError(f"There is no folder {folder}; give the folder of a run, or of its student.")
    student = read_student(student_folder(folder))
    encoder = student.encoder()
    fit = encoder.fit([question], student.card.prefixes.values())
    if long := fit.too_long:
        raise DataError(
            f"The question has {long[0].tokens} tokens with its choices; the student takes {long[0].allowed}."
        )
    if alike := encoder.indistinct(question.choices):
        raise DataError(f"The student cannot choose: {alike}. Write the choices in other words.")
    score = score_options(student, student.learner(), [question])[0]
    ranked = score.ranking(student.card.layout)
    top = max(ranked)
    mass = [math.exp(v - top) for v in ranked]
    teachers = student.card.teachers if explain else ()
    rationales = {
        t: generate_texts(student, [question], task=t, max_new_tokens=max_rationale_tokens)[0] for t in teachers
    }
    best, *tied = leaders(ranked)
    probabilities = tuple(m / sum(mass) for m in mass)
    tied_texts = tuple(question.choices[i] for i in tied)
    return Answered(best, question.choices[best], probabilities, rationales, tied_texts, bool(fit.cut))
