"""Check: the questions of a run, held against its student, and what the run will take; nothing is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinyllm.config import ANSWER_TASK, Config, PromptedTeacher, task_prefixes, teachers_in_use
from tinyllm.errors import DataError, TinyLLMError
from tinyllm.questions import HeldOut, answered, leave_out, with_answers
from tinyllm.questions.types import Dropped, Question, Splits
from tinyllm.stages._auto import Search, few_to_choose_by, search_of
from tinyllm.stages._prepare import cut_targets, little_space, needs_validation
from tinyllm.stages._soft import learnable, supposed, uses_answers
from tinyllm.stages.asking import opened_asking
from tinyllm.stages.effort import Effort
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.opinions import opinion_forecasts
from tinyllm.stages.student import given_rationales, most_targets, student_card
from tinyllm.system.machine import peak_flops
from tinyllm.system.news import News, Task
from tinyllm.system.packaged import known_models

if TYPE_CHECKING:
    from tinyllm.rationales.forecast import Forecast
    from tinyllm.student.encode import Encoder

_SHOWN = 20
_NAMED = 3  # pairs of a test question and a training question that are alike
_ENOUGH_TEACHERS = 3  # from so many on, their agreement weighs them (opinions/_weights.py)
_SPLITS = ("train", "valid", "test", "more")
_Unfit = Literal["too long", "indistinct"]
_CHUNK = 1000  # questions measured between two looks at the progress


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found: all that can be said before anything is spent.

    Attributes:
        scored: test questions with an answer.
        forecasts: what asking each teacher will take.
        given: rationales that the data have, by teacher.
        steps: optimizer steps of the training, at most: `unsure` questions may drop out. With `method: auto` those of
            the whole search.
        unsure: questions without an answer, of which those are learnt whose pooled opinion reaches `train.soft.trust`.
        seconds: what training and evaluation will take on this machine, at most; None if it cannot be told.
        search: what `method: auto` will try.
        missing_keys: what each teacher lacks to be asked.
    """

    questions: dict[str, int]
    scored: int
    dropped: int
    warnings: dict[str, int]
    forecasts: tuple[Forecast, ...]
    given: dict[str, int]
    steps: int
    unsure: int = 0
    seconds: float | None = None
    search: Search | None = None
    missing_keys: tuple[str, ...] = ()


def _load_questions(config: Config, news: News, problems: list[TinyLLMError], *, test: bool) -> Splits:
    """Read the questions of a run and say what was left out. Bad rows are added to the problems."""
    from tinyllm.questions import load_splits

    with news.task("Reading questions") as task:
        splits = load_splits(config.data, test=test, problems=problems)
        task.note = f"{len(splits.train)} train"
        if splits.warnings.get("no answer") and (known := sum(q.answer is not None for q in splits.train)):
            task.note += f" ({known} with an answer)" if known < len(splits.train) else ""
        task.note += f", {len(splits.valid)} valid"
        task.note += f", {len(splits.test)} test" if test else ""
        known = sum(q.answer is not None for q in splits.test)
        task.note += f" ({known} with an answer)" if known < len(splits.test) else ""
        task.note += f", {len(splits.more)} more to train on" if len(splits.more) else ""
        met = HeldOut(splits.test).met(splits.train) if len(splits.test) else {}
    if met:
        pairs = ", ".join(f"'{tested}' and '{learnt}'" for tested, learnt in islice(met.items(), _NAMED))
        more = ", …" if len(met) > _NAMED else ""
        text = f"test question that is nearly, or exactly, a training question ({pairs}{more}): leave out one of each"
        splits = replace(splits, warnings={**splits.warnings, text: len(met)})
    for text, count in splits.warnings.items():
        news.say(f"  note: {count} × {text}")
    for how, number in splits.overlaps.items():
        news.say(f"  note: {number} question{'s' if number > 1 else ''} of data.more left out: {how}")
    copies = splits.warnings.get("copy of a validation or test question, left out", 0)
    if rows := len(splits.dropped) - sum(splits.overlaps.values()) - copies:
        words = f"{rows} row{'s' if rows > 1 else ''}"
        news.say(f"  note: {words} left out, as data.on_invalid: drop asks; the report names them")
    return splits


def _fit_questions(
    splits: Splits, encoder: Encoder, prefixes: Mapping[str, str], on_invalid: str, news: News
) -> Splits:
    """Settle what to do about questions that the student cannot be asked; count the contexts that are cut to fit.

    It cannot be asked a question that is too long even without its context, nor one with choices that are nothing, or
    the same, in its tokens. What is left out depends on no method: training questions must fit under the prefix of
    every teacher, the others under that of answering. So figures of different methods are of the same questions.
    """
    learnt, asked = tuple(prefixes.values()), (prefixes[ANSWER_TASK],)
    needed = {"train": learnt, "more": learnt, "valid": asked, "test": asked}
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
    return Splits(**kept, dropped=(*splits.dropped, *dropped), warnings=warnings, overlaps=splits.overlaps)


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
    questions: Sequence[Question], encoder: Encoder, prefixes: Sequence[str], task: Task, cut: Counter[str], split: str
) -> Iterator[tuple[int, Question, _Unfit, str]]:
    """Yield the place of each question that the student cannot be asked, and why; count the others' cut contexts."""
    for start in range(0, len(questions), _CHUNK):
        chunk = questions[start : start + _CHUNK]
        fit = encoder.fit(chunk, prefixes)
        task.update(task.done + len(chunk))
        for place, question in enumerate(chunk, start):
            if (tokens := fit.too_long.get(question.id)) is not None:
                allowed = f"{encoder.max_input_tokens} allowed"
                yield place, question, "too long", f"{tokens} tokens of question and choices, {allowed}"
            elif reason := encoder.indistinct(question.choices, learnt=split in ("train", "more")):
                yield place, question, "indistinct", reason
            elif question.id in fit.cut:
                cut[split] += 1


def check_run(config: Config, run: RunFolder, news: News, *, pilot: int = 0, dry_run: bool = False) -> Checked:
    """Find every problem that can be found without spending anything, and say what a run will take.

    Args:
        pilot: questions that each teacher is asked, to measure what it is like; the replies are kept.
        dry_run: ask nobody; with a pilot, forecast what the pilot will take.
    """
    from tinyllm.rationales.ray_engine import check_engine

    of_folder: list[TinyLLMError] = []
    with _collected(of_folder):
        run.check(config)
    problems: list[TinyLLMError] = []
    with _collected(problems):
        check_engine(config.rationales.engine)
    unset: list[TinyLLMError] = []
    with _collected(problems):
        _check_models(config, run, unset)
    forecasts: tuple[Forecast, ...] = ()
    missing_keys: tuple[str, ...] = ()
    with _collected(problems):
        can_ask = not problems
        splits, encoder = checked_questions(config, news, run=run)
        if text := few_to_choose_by(config, splits):
            news.say(f"  warning: {text}")
        if can_ask:
            forecasts, missing_keys = _forecasts(config, run, splits, news, 0 if of_folder else pilot, dry_run)
    if problems:  # so nobody looked whether the store has every reply, and the keys are not needed
        told = "\n".join(map(str, problems))
        problems += [error for error in unset if str(error) not in told]
    elif of_folder:
        problems += map(TinyLLMError, missing_keys)
    _raise_all([*problems, *of_folder], "")  # a folder often differs by the mistake that is told before it
    questions = supposed(config, splits)
    given = given_rationales(config, questions if config.rationales.pooled else splits.train)
    search = search_of(config, len(questions)) if config.train.method == "auto" else None
    learnt, targets = most_targets(config, questions, given)
    for note in cut_targets(encoder, targets):
        news.say(f"  note: {note}")
    from tinyllm.student.plan import Shape  # PyTorch is imported by now, in a task that says so
    from tinyllm.student.train import plan_steps, tokenise

    rows = tokenise(encoder, questions, targets)
    shape = Shape(config.train.micro_batch_tokens, encoder_decoder=encoder.is_encoder_decoder)
    is_sifted = config.train.soft is not None and config.train.soft.trust != 0
    plan = plan_steps(rows, learnt.train, shape, teachers=[t.name for t in teachers_in_use(learnt)])
    return Checked(
        questions={
            name: len(questions) for name in _SPLITS if len(questions := getattr(splits, name)) or name != "more"
        },
        scored=len(answered(splits.test)),
        dropped=len(splits.dropped),
        warnings=dict(splits.warnings),
        forecasts=forecasts,
        given=dict(Counter(r.teacher for r in given)),
        steps=len(plan) if search is None else search.most_steps,
        unsure=sum(q.answer is None for q in learnable(config, splits)) if is_sifted else 0,
        seconds=_seconds(config, splits, news),
        search=search,
        missing_keys=missing_keys,
    )


def _seconds(config: Config, splits: Splits, news: News) -> float | None:
    with news.task("Measuring this machine"):
        try:
            effort = Effort.of(config, splits)
        except (TypeError, ValueError, RuntimeError, AttributeError, LookupError):
            return None  # a model without the usual parts: how large it is shows when it is loaded
        times = 1 + config.evaluate.before if answered(splits.test) else 0
        return effort.seconds(peak_flops, reads=times, writes=times)


def _check_models(config: Config, run: RunFolder, unset: list[TinyLLMError]) -> None:
    """Check that the models of the teachers that will be asked are there, whatever is wrong with the questions.

    Args:
        unset: missing keys are added to it.
    """
    from tinyllm.teachers import make_teachers

    used = teachers_in_use(config)
    asked = [t for t in config.teachers if t in used or t.name in config.opinions.teachers]
    specs = [t for t in asked if isinstance(t, PromptedTeacher)]
    make_teachers(specs, (), run.path, is_needed=lambda _: False, missing_keys=unset)


def _forecasts(
    config: Config, run: RunFolder, splits: Splits, news: News, pilot: int, dry_run: bool
) -> tuple[tuple[Forecast, ...], tuple[str, ...]]:
    known = splits.train
    if config.train.soft is not None:
        known = answered(splits.train) if uses_answers(config) else ()
    asked = known if pilot or not config.rationales.pooled else supposed(config, splits)
    first = pilot if dry_run and pilot else None
    pilot = 0 if dry_run else pilot
    needs_keys = pilot > 0
    with opened_asking(config, run, asked, examples=known, may_write=needs_keys, needs_keys=needs_keys) as asking:
        if pilot:
            asking.ask(news, "Pilot", first=pilot)
        forecasts = asking.forecasts(news, first=first)
        missing = asking.missing_keys
    opinions = opinion_forecasts(
        config, run, splits, news, pilot, first=first, missing_keys=None if needs_keys else missing
    )
    told = tuple(dict.fromkeys(map(str, missing)))
    return (*forecasts, *(replace(f, teacher=f"{f.teacher} (opinions)") for f in opinions)), told


def checked_questions(
    config: Config,
    news: News,
    answers: Collection[str] = ("train",),
    *,
    test: bool = True,
    run: RunFolder | None = None,
) -> tuple[Splits, Encoder]:
    """Read the questions and hold them against the student's tokenizer, before anything is spent.

    Args:
        answers: the splits whose answers are needed; `valid` is one of them where training looks at its accuracy.
        test: False: without the test questions, whose file is not opened.
        run: if given, warn if its disk has too little space for training.

    Raises:
        TinyLLMError: all that is wrong, in one message: bad rows, missing answers, a student that cannot be taken,
            questions that it cannot be asked.
    """
    problems: list[TinyLLMError] = []
    splits = _load_questions(config, news, problems, test=test)
    looked_at = ("valid",) if needs_validation(config) else ()
    needed = {*answers, *looked_at}
    if config.train.soft is not None:  # opinions stand in for answers
        needed -= {"train"}
    with _collected(problems):
        splits = with_answers(splits, needed, drop=config.data.on_invalid == "drop")
        for line in _soft_notes(config, splits):
            news.say(f"  note: {line}")
        if text := _unproven_teachers(config, splits):
            news.say(f"  warning: {text}")
    if needs_validation(config) and not len(splits.valid):
        what = "method: auto" if config.train.method == "auto" else "validate_steps"
        text = f"train.{what} needs validation questions: give data.valid, or data.cut."
        problems.append(DataError(text, page="training.md"))
    prefixes = task_prefixes(config.student.prefixes, [t.name for t in config.teachers])
    with _collected(problems):
        encoder, model_config = _student_encoder(config, news)
        splits = _fit_questions(splits, encoder, prefixes, config.data.on_invalid, news)
    _raise_all(problems, "questions.md")
    _check_lengths(config, model_config, encoder, splits, prefixes, news)
    if run is not None and (text := little_space(config, model_config, run)):
        news.say(f"  warning: {text}")
    learnt = dict(_learnt_before(config, splits.test))
    for text, number in learnt.items():
        news.say(f"  warning: {number} × {text}. The accuracy on the test questions is too high")
    return replace(splits, warnings={**splits.warnings, **learnt}), encoder


def _learnt_before(config: Config, test: Sequence[Question]) -> Iterator[tuple[str, int]]:
    """Yield how many test questions were learnt by each student that this one learns from, or starts from."""
    students = {
        f"test question that the teacher '{t.name}' was trained or tuned on": t.run
        for t in config.teachers
        if t.kind == "student" and config.train.soft is not None and t.name in config.opinions.teachers
    }
    students["test question that the student was trained or tuned on before"] = Path(config.student.model)
    for text, folder in students.items():
        place = folder.expanduser()
        runs = (place, place.parent) if len(test) and place.is_dir() else ()  # it is RUN or RUN/student
        records = (record for run in runs if (record := Splits.read_learnt(run)) is not None)
        if (is_learnt := next(records, None)) is not None and (number := sum(map(is_learnt, test))):
            yield text, number


@contextmanager
def _collected(problems: list[TinyLLMError]) -> Iterator[None]:
    """Add an error of the block to the problems instead of raising it."""
    try:
        yield
    except TinyLLMError as error:
        problems.append(error)


def _raise_all(problems: Sequence[TinyLLMError], page: str) -> None:
    """Raise the problem, or one error with all of them and a page that helps; nothing without any."""
    if problems:
        raise problems[0] if len(problems) == 1 else DataError("\n".join(map(str, problems)), page=page)


def _student_encoder(config: Config, news: News) -> tuple[Encoder, Any]:
    """Return what turns questions into the student's tokens, and the configuration of its model."""
    with news.task("Reading the student's tokenizer and configuration" + _from_hub(config.student.model)):
        # Seconds pass while PyTorch and transformers are imported, so it happens inside the task.
        from tinyllm.student.model import load_tokenizer
        from tinyllm.student.train import check_training

        tokenizer, model_config = load_tokenizer(config.student)
    check_training(model_config.model_type, config.train)
    encoder = student_card(config).encoder(
        tokenizer,
        is_encoder_decoder=bool(model_config.is_encoder_decoder),
        max_target_tokens=config.train.max_target_tokens,
    )
    return encoder, model_config


def _from_hub(model: str) -> str:
    """Say that the hub is asked, which may take long; nothing for a model of this machine."""
    is_here = Path(model).expanduser().exists() or model in (*known_models(), "tiny-untrained")
    is_here = is_here or model.startswith((".", "/", "~")) or model.endswith(".gguf")
    return "" if is_here else f", asking the Hugging Face hub for {model}"


def _soft_notes(config: Config, splits: Splits) -> Iterator[str]:
    """Say what is learnt from opinions, and what is not."""
    blank = sum(q.answer is None for q in chain(splits.train, splits.more)) if splits.warnings.get("no answer") else 0
    if config.train.soft is None:
        if blank:
            yield f"{blank} questions of data.more have no answer and are not learnt, since train.soft is not set"
        return
    if blank:
        yield f"{blank} questions without an answer are learnt from the teachers' pooled opinions, where trusted"
    if config.train.answer == "text" and config.train.method != "auto":
        yield (
            "train.answer: text learns only the likeliest choice of the pooled opinion, and only where there is no "
            "answer. `choices` and `both` learn its probabilities, for all questions"
        )


def _unproven_teachers(config: Config, splits: Splits) -> str:
    """Return a warning if nothing can show whether the teachers' opinions are right; empty otherwise."""
    soft, count = config.train.soft, len(config.opinions.teachers)
    if soft is None or count >= _ENOUGH_TEACHERS or any(q.answer is not None for q in splits.valid):
        return ""
    if any(q.answer is not None for q in splits.train) and soft.weight < 1:
        return ""
    return (
        f"no answer is known, and {'one teacher gives' if count == 1 else f'{count} teachers give'} opinions. So "
        "nothing shows that the teachers know anything, and the student learns their opinions as they are. Answer some "
        "questions yourself (data.valid; 40 or more), or ask at least three teachers, so that their agreement tells"
    )


def _check_lengths(
    config: Config, model_config: Any, encoder: Encoder, splits: Splits, prefixes: Mapping[str, str], news: News
) -> None:
    """Refuse a student that cannot read rows as long as the questions ask for, before teachers are paid."""
    from tinyllm.student.sketch import check_architecture

    with news.task("Looking at the student's architecture"):
        positions = check_architecture(model_config)
    trained = None if positions.shortest else getattr(model_config, "max_position_embeddings", None)
    limit = positions.prompt or trained
    target, beside = config.train.max_target_tokens, 0 if encoder.is_encoder_decoder else 1
    fits = limit is None or config.train.max_input_tokens + beside * (target - 1) <= limit
    if fits and (positions.target is None or target <= positions.target):
        return  # nearly always, without measuring anything
    asked = (splits.train, splits.more, splits.valid, splits.test)
    if not teachers_in_use(config):
        answers = (encoder.answer_length(c) for q in chain(*asked) for c in q.choices)
        target = min(target, max(answers, default=1))
    # The last token of a target is predicted, and never read.
    after = beside * (target - 1)
    prompt = 0
    if limit is not None:
        prompt = encoder.longest_prompt(chain(*asked), max(prefixes.values(), key=len), limit - after)
        if config.train.rationales != "target":  # how long they are is not known yet
            prompt = config.train.max_input_tokens
    if trained is None:
        positions.check(prompt + after if prompt else 0, target)
    elif prompt + after > trained:
        news.say(
            f"  note: rows may have {prompt + after} tokens, and the student was trained with {trained} at most "
            "(max_position_embeddings): expect worse answers beyond, or lower train.max_input_tokens"
        )
