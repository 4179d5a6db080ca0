"""Train: the student learns the answers, and the rationales that its method takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tinyllm.config import ANSWER_TASK, Config
from tinyllm.questions.types import Splits
from tinyllm.stages._auto import chosen, chosen_in
from tinyllm.stages._prepare import (
    calibration,
    give_back_memory,
    made_of,
    prepare_training,
    train_prepared,
    training_fingerprint,
    validation_fingerprint,
    whole_student,
)
from tinyllm.stages._soft import weak_teachers
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.student import Prepared
from tinyllm.system.files import read_json, write_json
from tinyllm.system.news import News

if TYPE_CHECKING:
    from tinyllm.student.learner import Learner
    from tinyllm.student.model import Student

_FEW_TO_CALIBRATE = 40  # with fewer validation questions, the temperature often misses (docs/using.md#probabilities)


def plan_run(config: Config, run: RunFolder, news: News, *, processes: int = 1) -> Prepared:
    """Load the student and plan what it learns from the rationales of the run; train nothing.

    Args:
        processes: that would share each step.
    """
    splits, _ = checked_questions(config, news)
    if config.train.method == "auto":
        config = chosen(config, run, news, splits, may_search=False)
        news.say(f"  chosen: {chosen_in(run)['name']}")
    return prepare_training(config, run, news, splits, processes=processes)


def train_run(config: Config, run: RunFolder, news: News, splits: Splits | None = None) -> dict[str, Any]:
    """Train the student on answers and rationales, resuming from a checkpoint if there is one.

    A student that is trained on exactly these targets is left as it is; if questions or rationales have changed
    since, it is trained again. With `method: auto` its settings are searched for first (`auto`). The test questions are
    not read. Several processes (`torchrun`, `accelerate launch`, `--nproc`) all call this; the first
    of them writes. Writes `student/`, `learnt.npy`, `train_log.jsonl`, `plan.json`, `train_result.json`.
    """
    from tinyllm.student import checkpoint_of_another, discard_checkpoints
    from tinyllm.student.card import model_card
    from tinyllm.student.model import save_student
    from tinyllm.student.processes import Processes
    from tinyllm.student.train import fingerprint

    splits = splits or checked_questions(config, news, test=False)[0]
    searches = config.train.method == "auto"
    config = chosen(config, run, news, splits) if searches else config
    processes = Processes.joined()
    chose = dict(chosen_in(run)) if searches else {}
    inputs = made_of(config, run, splits, str(chose.get("name", "")))
    figures = read_json(run.train_result) if run.is_trained else {}
    processes.wait()  # until everyone has looked
    if figures.get("made_of") == inputs:
        news.say(f"✓ The student is already trained ({run.student})")
        return figures
    prepared = prepare_training(config, run, news, splits, processes=processes.count)
    plan = prepared.plan
    calibrates_with = validation_fingerprint(config, splits)
    looked_at = calibrates_with if config.train.validate_steps is not None else ""
    plan_file = run.path / "plan.json"
    was_looked_at = read_json(plan_file).get("validation") if plan_file.is_file() else None
    is_same = was_looked_at in (None, looked_at)  # an older plan does not say
    done = run.is_trained and is_same and _is_this_training(read_json(run.train_result), fingerprint(plan), chose)
    processes.wait()  # until everyone has looked
    if done:
        news.say(f"✓ The student is already trained ({run.student})")
        figures = read_json(run.train_result)
        now = figures | {"calibrated_with": calibrates_with, "made_of": inputs}
        if figures.get("calibrated_with", calibrates_with) != calibrates_with:  # an older result does not say
            _calibrate_again(config, run, news, splits, now)
        elif processes.is_first:
            write_json(run.train_result, now)
        if processes.is_first:
            discard_checkpoints(run.path)  # a search that chose the same again has handed one over
        processes.wait()
        return read_json(run.train_result)
    if processes.is_first:
        if not is_same:
            news.say(
                "  note: the validation questions have changed since, by which the student is picked: it trains anew"
            )
            discard_checkpoints(run.path)
        elif other := checkpoint_of_another(run.path, fingerprint(plan)):
            news.say(f"  note: questions or rationales have changed since step {other}, so training begins anew")
        elif run.is_trained:
            news.say(
                "  note: questions, rationales or chosen settings have changed since the student was trained: it is "
                "trained again"
            )
        write_json(plan_file, plan.as_json() | ({"validation": looked_at} if looked_at else {}))
    processes.wait()
    news.say("  targets: " + ", ".join(f"{n} {task}" for task, n in prepared.targets.items()))
    for note in prepared.notes:
        news.say(f"  note: {note}")
    with news.task("Training", len(plan)) as task:
        result = train_prepared(config, prepared, splits, run.path, task.update)
        task.note = f"loss {result.final_loss:.3f}" if result.final_loss is not None else ""
    if result.steps < len(plan):
        news.say(f"  stopped early, after {result.steps} of {len(plan)} steps")
    if result.best_step is not None:
        news.say(f"  kept the student of step {result.best_step}, the best on the validation questions")
    temperature, valid_accuracy = _calibration(config, news, prepared.student, prepared.learner, splits)
    figures = {**asdict(result), "targets": prepared.targets, "temperature": temperature}
    figures["final_valid_accuracy"] = valid_accuracy
    for note in weak_teachers(prepared.soft, valid_accuracy):
        news.say(f"  note: {note}")
    figures |= {"calibrated_with": calibrates_with, "made_of": inputs}
    if prepared.soft:
        figures["soft"] = prepared.soft
    if searches:
        figures["chosen"] = chose
    figures["questions"] = training_fingerprint(splits)
    with news.task("Saving the student"):
        student = whole_student(config, prepared)
        # A teacher that gave no rationale was not learnt, so the student does not write as it.
        learnt = {ANSWER_TASK, student.card.reasons_as, *(t for t, n in prepared.targets.items() if n)}
        prefixes = {task: prefix for task, prefix in student.card.prefixes.items() if task in learnt}
        student.card = replace(student.card, temperature=temperature, prefixes=prefixes)
        if processes.is_first:
            run.forget_training()  # a student of other targets stays until this one is done
            splits.write_learnt(run.path)
            save_student(student, run.student, model_card(config, figures))
            write_json(run.train_result, figures)
            discard_checkpoints(run.path)
        processes.wait()
    del prepared, student
    give_back_memory()
    return figures


def _is_this_training(done: Mapping[str, Any], plan: str, chose: Mapping[str, Any]) -> bool:
    """Return whether a finished training is the one that is wanted.

    Two candidates of a search can have the same plan: the learning rate, for example, is not in it.

    Args:
        done: the figures of the finished training.
        plan: the fingerprint of the wanted plan.
        chose: what the search has chosen; empty without a search.
    """
    return done.get("fingerprint") == plan and done.get("chosen", {}).get("name") == chose.get("name")


def _calibration(
    config: Config, news: News, student: Student, learner: Learner, splits: Splits
) -> tuple[float, float | None]:
    if not len(splits.valid):
        return 1.0, None
    with news.task("Calibrating its probabilities on validation questions") as task:
        temperature, accuracy = calibration(config, student, learner, splits, task.update)
        task.note = f"temperature {temperature:.2f}"
        if (known := sum(q.answer is not None for q in splits.valid)) < _FEW_TO_CALIBRATE:
            task.note += f", a guess from {known} question{'s' if known > 1 else ''}"
    return temperature, accuracy


def _calibrate_again(config: Config, run: RunFolder, news: News, splits: Splits, figures: dict[str, Any]) -> None:
    """Fit the temperature of a trained student to other validation questions. Every process has to call this."""
    from tinyllm.student.model import CARD_FILE, read_student
    from tinyllm.student.processes import Processes

    news.say("  note: the validation questions have changed since: its probabilities are calibrated again")
    student = read_student(run.student)
    temperature, accuracy = _calibration(config, news, student, student.learner(learns=False), splits)
    processes = Processes.joined()
    if processes.is_first:
        run.metrics.unlink(missing_ok=True)  # they have the probabilities of before
        card = run.student / CARD_FILE
        write_json(card, read_json(card) | {"temperature": temperature})
        write_json(run.train_result, figures | {"temperature": temperature, "final_valid_accuracy": accuracy})
    processes.wait()
