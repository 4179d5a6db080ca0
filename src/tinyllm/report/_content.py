"""The content of a run's page, in words and numbers, from the files of the run."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from tinyllm.comparison import paired
from tinyllm.config import ANSWER_TASK
from tinyllm.errors import RunFolderError
from tinyllm.report import _browser as browser
from tinyllm.report._files import LogLine, RunFiles
from tinyllm.report._opinions import opinions_of, opinions_on, reliability_line
from tinyllm.report._plots import Dot, Line, Mark, Point, smooth, window
from tinyllm.report._search import search_of
from tinyllm.report._verdict import Gain, Outcomes, Shown, by_other_scorer, training_in_words, verdict
from tinyllm.report._words import NONE, count, decimal, duration, interval, moment, percent, plural, points, size
from tinyllm.scoring.predictions import Prediction

_DROPPED_SHOWN = 50
_SPLITS = ("train", "valid", "test")

CHECKS: Mapping[str, str] = {
    "empty": "The text is empty or too short: it has fewer than three words.",
    "cut_off": "The text stops in the middle of a sentence.",
    "runs_on": "The text continues with a new question.",
    "repeats": "The text repeats itself.",
    "wrong_answer": "The text gives another choice as the answer.",
    "encoding": "The text has broken characters.",
    "refused": "The teacher refuses to explain.",
    "failed": "The request got no reply.",
    "too_long": "The prompt is too long for the teacher.",
    "bad_request": "The service refused this prompt.",
    "unfinished_thought": "The reply ended during the reasoning, before any text.",
    "content_filter": "A filter of the provider blocked the prompt or the reply.",
    "unasked": "The question was not asked, because the budget was used up.",
}
"""What the names of checks and repairs mean. A name that is missing here is shown without a meaning."""


_Facts = Iterable[tuple[str, str]]
"""Names and values."""


class Share(NamedTuple):
    """A count, and its share of the questions asked."""

    name: str
    number: str
    share: str


def build_page(files: RunFiles) -> dict[str, Any]:
    """Return the values for `page.html.j2`.

    Raises:
        RunFolderError: metrics.json holds a value of a wrong type.
    """
    metrics = files.metrics or {}
    predictions = files.predictions or ()
    teachers = _teacher_names(files)
    curves = _curves(files.log or (), teachers)
    scorers = browser.scorers(by_token=_section(files.config, "student").get("layout") == "cloze")
    rows = browser.question_rows(predictions, files.rationales or (), files.rejected or (), tuple(scorers))
    shown = rows[: browser.MAX_QUESTIONS]
    asked = {(p.split, p.question.id): p.question for p in predictions}
    keys = [(row["split"], row["id"]) for row in shown]
    browser.add_opinions(shown, opinions_on(files, {key: asked[key] for key in keys if key in asked}))
    data = _mapping(metrics, "data")
    dropped, warnings = _list(data, "dropped"), _mapping(data, "warnings")
    teacher_rows = [_teacher(files, name) for name in teachers]
    checks = {share.name for row in teacher_rows for key in ("repaired", "rejected", "resampled") for share in row[key]}
    folder = files.folder.resolve().name
    name = str(metrics.get("name") or files.config.get("name") or folder)
    return {
        "name": name if name == folder else f"{name} ({folder})",  # runs with other settings share their name
        "facts": list(_head(files, teachers)),
        "missing_stages": list(_missing_stages(files)),
        "unscored": files.is_unscored,
        "cards": list(_cards(metrics, predictions, scorers)),
        "dots": list(_dots(metrics, scorers)),
        "marks": list(_marks(metrics)),
        "curves": curves,
        "losses": [_loss(curve) for curve in curves],
        "smoothing": max((window(len(curve.points)) for curve in curves), default=1),
        "not_finite": sum(not math.isfinite(loss) for line in files.log or () for loss in line.losses.values()),
        "training": list(_training(files)),
        "search": search_of(files.search),
        "calibration": list(_calibration(metrics)),
        "teachers": teacher_rows,
        "meanings": [(name, meaning) for name, meaning in CHECKS.items() if name in checks],
        "has_rationales": any(row["bar"] for row in teacher_rows),
        "opinions": opinions_of(files.opinions),
        "data": list(_data(data)),
        "rows_used": sum(_number(data, split) for split in (*_SPLITS, "more") if data.get(split)),
        "rows_dropped": len(dropped),
        "dropped": [_dropped(row) for row in dropped[:_DROPPED_SHOWN]],
        "dropped_more": max(0, len(dropped) - _DROPPED_SHOWN),
        "warnings": [(str(text), count(_number(warnings, text))) for text in warnings],
        "only_rationales": not predictions,
        "questions": len(shown),
        "questions_left_out": max(0, len(rows) - browser.MAX_QUESTIONS),
        "island": browser.safe_json({"scorers": list(scorers.items()), "teachers": teachers, "questions": shown}),
        "config_text": files.config_text,
        "environment": list(_flat(files.environment or {})),
    }


# --- reading stored mappings: a missing value is empty, a value of a wrong type is an error ------------------------


def _mapping(tree: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        tree = tree.get(key) or {}
        if not isinstance(tree, Mapping):
            raise RunFolderError(f"metrics.json: {'.'.join(keys)}: expected a mapping, got {tree!r}.")
    return tree


def _list(tree: Mapping[str, Any], key: str) -> list[Any]:
    value = tree.get(key) or []
    if not isinstance(value, list):
        raise RunFolderError(f"metrics.json: {key}: expected a list, got {value!r}.")
    return value


def _number(tree: Mapping[str, Any], key: str) -> float | None:
    value = tree.get(key)
    if value is None or isinstance(value, (int, float)):
        return value
    raise RunFolderError(f"metrics.json: {key}: expected a number, got {value!r}.")


def _accuracy(metrics: Mapping[str, Any], stage: str, scorer: str) -> Shown | None:
    entry = _mapping(metrics, stage, scorer)
    value, questions, ends = _number(entry, "value"), _number(entry, "n"), _list(entry, "ci95")
    if value is None:
        return None
    if questions is None or len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        raise RunFolderError(
            f"metrics.json: {stage}.{scorer}: an accuracy has `n` and a `ci95` of two numbers, got {dict(entry)!r}."
        )
    unparsed = _number(entry, "unparsed")
    return Shown(value, (ends[0], ends[1]), int(questions), None if unparsed is None else int(unparsed))


# --- head ---------------------------------------------------------------------------------------------------------


def _head(files: RunFiles, teachers: Sequence[str]) -> _Facts:
    metrics, config = files.metrics or {}, files.config
    student = _section(config, "student")
    model = metrics.get("student") or student.get("model") or NONE
    adapter = student.get("adapter")
    yield "Method", str(metrics.get("method") or _section(config, "train").get("method") or NONE)
    yield "Student", f"{model}, {'all weights' if adapter == 'full' else adapter}" if adapter else str(model)
    yield "Teachers", (", ".join(teachers) or "none") + _chosen_teachers(_mapping(metrics, "train"), teachers)
    yield "Preset", str(metrics.get("preset") or config.get("preset") or NONE)
    if (seconds := _number(_mapping(metrics, "train", "chosen"), "seconds")) is not None:
        yield "Training time", f"{duration(seconds)}, the search of auto included"
    elif (seconds := _number(_mapping(metrics, "train"), "seconds")) is not None:
        yield "Training time", duration(seconds)
    yield "Date", moment(str((files.environment or {}).get("date") or NONE))


def _chosen_teachers(trained: Mapping[str, Any], teachers: Sequence[str]) -> str:
    """Say which teachers the student learnt from, if `method: auto` chose settings that do not use all of them."""
    name = str(_mapping(trained, "chosen").get("name", ""))
    if not name or "rationales input" in name:  # those that it reads with the questions are not recorded
        return ""
    targets, weights = _mapping(trained, "targets"), _mapping(trained, "soft", "weights")
    used = [t for t in teachers if targets.get(t) or weights.get(t)]
    return "" if len(used) == len(teachers) else f" (auto chose to learn from {', '.join(used) or 'none of them'})"


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = config.get(key)
    return section if isinstance(section, Mapping) else {}


def _missing_stages(files: RunFiles) -> Iterable[dict[str, str]]:
    folder = shlex.quote(str(files.folder))
    target = folder if files.config_text is not None else f"CONFIG --run-dir {folder}"

    def stage(name: str, without: str) -> dict[str, str]:
        return {"name": name, "without": without, "command": f"tinyllm {name} {target}"}

    no_teachers = files.config_text is not None and not files.config.get("teachers")
    if files.rationales is None and not no_teachers:
        yield stage("generate", "the teachers' rationales are missing")
    if files.log is None:
        yield stage("train", "the learning curve is missing")
    if files.is_unscored:
        return
    if not _mapping(files.metrics or {}, "accuracy"):
        yield stage("evaluate", "the accuracies are missing")
    elif files.predictions is None:
        yield stage("evaluate", "the student's answer to each question is missing")


# --- result -------------------------------------------------------------------------------------------------------


def _cards(
    metrics: Mapping[str, Any], predictions: Sequence[Prediction], scorers: Mapping[str, str]
) -> Iterable[dict[str, Any]]:
    majority, chance = _number(metrics, "majority"), _number(metrics, "chance")
    what = training_in_words(_mapping(metrics, "train", "soft"))
    found = {s: (_accuracy(metrics, "before", s), _accuracy(metrics, "accuracy", s)) for s in scorers}
    tested = {s: _outcomes(predictions, s) for s in scorers}
    gains = {
        s: Gain(before.value, after.value, outcomes.p)
        for s, (before, after) in found.items()
        if before and after and (outcomes := tested[s])
    }
    for scorer, label in scorers.items():
        before, after = found[scorer]
        shown = after or before
        if shown is None:
            continue
        outcomes = tested[scorer]
        over_majority = _number(_mapping(metrics, "over_majority", scorer), "p")
        said = verdict(before, after, majority, outcomes, chance, over_majority, what, by_other_scorer(gains, scorer))
        ties = _number(_mapping(metrics, "accuracy" if after else "before", scorer), "ties")
        yield {
            "label": label,
            "before": percent(before.value) if before else None,
            "after": percent(after.value) if after else None,
            "change": points(after.value - before.value) if before and after else "",
            "stage": "after training" if after else "before training",
            "note": f"{interval(*shown.ci95)}, {plural(shown.n, 'question')}"
            + (f", {plural(int(ties), 'tie')}" if ties else ""),
            "headline": said.headline,
            "verdict": said.text,
            "outcomes": outcomes,
        }


def _outcomes(predictions: Sequence[Prediction], scorer: str) -> Outcomes | None:
    """Compare the test questions that a scorer marked before and after training; None without any."""
    scored = [p for p in predictions if p.split == "test" and p.is_scored(scorer)]
    marks = {(p.stage, p.question.id): p.mark(scorer) for p in scored}
    both = [name for stage, name in marks if stage == "before" and ("after", name) in marks]
    if not both:
        return None
    before, after = [marks["before", name] for name in both], [marks["after", name] for name in both]
    compared = paired(before, after)
    same = sum(b == a > 0 for b, a in zip(before, after, strict=True))
    wrong = compared.n - same - compared.fixed - compared.broken
    return Outcomes(compared.fixed, compared.broken, same, wrong, compared.p, compared.difference, compared.ci95)


def _dots(metrics: Mapping[str, Any], scorers: Mapping[str, str]) -> Iterable[Dot]:
    for scorer, label in scorers.items():
        for stage, key in (("before", "before"), ("after", "accuracy")):
            a = _accuracy(metrics, key, scorer)
            if a is not None:
                text = f"{percent(a.value)} ({interval(*a.ci95)})"
                yield Dot(f"{label}, {stage}", text, percent(a.value), a.value, *a.ci95, stage == "before")


def _marks(metrics: Mapping[str, Any]) -> Iterable[Mark]:
    for key, label in (("chance", "Chance"), ("majority", "Majority")):
        value = _number(metrics, key)
        if value is not None:
            yield Mark(f"{label} {percent(value)}", value)


# --- training -----------------------------------------------------------------------------------------------------


def _curves(log: Sequence[LogLine], teachers: Sequence[str]) -> list[Line]:
    """Return a curve for each logged task: the answer, the teachers in their order, then others."""
    logged = dict.fromkeys(chain.from_iterable(line.losses for line in log))
    lines = sorted(log, key=lambda line: line.step)
    return [
        Line(
            task,
            tuple(Point(n.step, n.losses[task]) for n in lines if math.isfinite(n.losses.get(task, math.nan))),
            colour,
        )
        for colour, task in enumerate(dict.fromkeys([ANSWER_TASK, *teachers, *logged]))
        if task in logged
    ]


def _loss(curve: Line) -> dict[str, Any]:
    mean = smooth(curve.points, window(len(curve.points)))
    first, last = (mean[0].y, mean[-1].y) if mean else (None, None)
    ends = {"first": decimal(first), "last": decimal(last)}
    return {"label": curve.label, "colour": curve.colour, "steps": count(len(mean)), **ends}


def _training(files: RunFiles) -> _Facts:
    train = _mapping(files.metrics or {}, "train")
    figures = {
        "Optimizer steps": (count, "steps"),
        "Time": (duration, "seconds"),
        "Examples a second": (decimal, "examples_per_second"),
        "Target tokens": (count, "target_tokens"),
        "Padding": (percent, "padding_fraction"),
        "Peak memory": (size, "peak_memory_bytes"),
    }
    for name, (word, key) in figures.items():
        if train.get(key) is not None:
            yield name, word(_number(train, key))
    if soft := _mapping(train, "soft"):
        weights = ", ".join(f"{name} {decimal(_number(soft['weights'], name))}" for name in _mapping(soft, "weights"))
        right = _number(soft, "valid_accuracy")
        yield "Weights of the pooled opinions", f"{weights} ({soft.get('weights_from')})"
        if right is not None:
            tried = count(_number(soft, "valid"))
            same = ", which set the weights" if str(soft.get("weights_from")).startswith("learned on") else ""
            yield "The pooled opinion is right on", f"{percent(right)} of {tried} validation questions{same}"
        if soft.get("without_answer"):
            number, of = (count(_number(soft, key)) for key in ("learnt_without_answer", "without_answer"))
            yield "Questions learnt from opinions alone", f"{number} of {of} without an answer"
        if soft.get("shuffled"):
            yield "Control", "each question has the pooled opinion on another question"
    found = _mapping(files.metrics or {}, "calibration")
    if found:
        error, plain = (percent(_number(found, key)) for key in ("ece", "ece_uncalibrated"))
        yield "Temperature of its probabilities", decimal(_number(found, "temperature"))
        worse = (_number(found, "ece") or 0) > (_number(found, "ece_uncalibrated") or 0)
        few = f"; fitted on {count(_number(_mapping(files.metrics or {}, 'data'), 'valid'))} validation questions, it "
        why = f"{few}did not help here" if worse else ""
        yield "Calibration error (ECE) on the test questions", f"{error} ({plain} without the temperature{why})"
    rates = [line.learning_rate for line in files.log or () if line.learning_rate is not None]
    norms = [line.grad_norm for line in files.log or () if line.grad_norm is not None]
    if rates:
        yield "Highest learning rate", decimal(max(rates))
    if norms:
        yield "Largest gradient norm", decimal(max(norms))


def _calibration(metrics: Mapping[str, Any]) -> Iterable[Line]:
    """Return how often the student is right by its probability, with its temperature and without."""
    found = _mapping(metrics, "calibration")
    for colour, (key, label) in enumerate(
        (("reliability", "At its temperature"), ("reliability_uncalibrated", "Without"))
    ):
        bins = [b for b in _list(found, key) if isinstance(b, Mapping) and {"confidence", "accuracy", "n"} <= b.keys()]
        if bins:
            yield reliability_line(label, colour, bins)


# --- teachers -----------------------------------------------------------------------------------------------------


def _teacher_names(files: RunFiles) -> tuple[str, ...]:
    configured = [str(t["name"]) for t in _configured(files)]
    kept = (r.teacher for r in files.rationales or ())
    rejected = (r.teacher for r in files.rejected or ())
    return tuple(dict.fromkeys([*configured, *_mapping(files.metrics or {}, "teachers"), *kept, *rejected]))


def _configured(files: RunFiles) -> list[Mapping[str, Any]]:
    teachers = files.config.get("teachers") or ()
    return [t for t in teachers if isinstance(t, Mapping) and "name" in t] if isinstance(teachers, list) else []


def _teacher(files: RunFiles, name: str) -> dict[str, Any]:
    """Return a row of the table of teachers. `bar` holds (class, share) of kept and of rejected texts."""
    entry = _mapping(files.metrics or {}, "teachers", name) or _mapping(files.yields or {}, name)
    config: Mapping[str, Any] = next((t for t in _configured(files) if str(t["name"]) == name), {})
    alpha = _section(files.config, "train").get("alpha")
    alpha = alpha.get(name) if isinstance(alpha, Mapping) else alpha
    if entry:
        rejected, repaired = _counts(entry, "rejected"), _counts(entry, "repaired")
        kept, missing = int(_number(entry, "rationales") or 0), int(_number(entry, "missing") or 0)
    else:  # generation is running: count in the files, which do not hold the number of missing texts
        mine = [r for r in files.rationales or () if r.teacher == name]
        rejected = Counter(r.reason for r in files.rejected or () if (r.teacher, r.kind) == (name, "rationale"))
        repaired = Counter(chain.from_iterable(r.repaired for r in mine))
        kept, missing = len(mine), 0
    asked = kept + missing + sum(rejected.values())

    def share(what: str, number: int, of: int = asked) -> Share:
        return Share(what, count(number), percent(number / of) if of else NONE)

    def shares(counts: Mapping[str, int], of: int = asked) -> list[Share]:
        return [share(what, n, of) for what, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]

    return {
        "name": name,
        "what": ", ".join(str(config[key]) for key in ("kind", "model") if config.get(key)),
        "alpha": NONE if alpha is None else str(alpha),
        "asked": count(asked) if entry else NONE,
        "kept": share("kept", kept),
        "missing": share("missing", missing) if entry else Share("missing", NONE, NONE),
        "repaired": shares(repaired, kept),
        "rejected": shares(rejected),
        "resampled": shares(_counts(entry, "resampled")),
        "tokens": list(_tokens(entry)),
        "bar": [("kept", kept / asked), ("rejected", sum(rejected.values()) / asked)] if asked else [],
    }


def _counts(entry: Mapping[str, Any], key: str) -> dict[str, int]:
    return {str(name): int(n) for name, n in _mapping(entry, key).items()}


def _tokens(entry: Mapping[str, Any]) -> Iterable[Share]:
    """Yield the tokens of prompts, those of them from a cache, the tokens of replies, and those of them in thoughts."""
    prompt, cached = int(_number(entry, "prompt_tokens") or 0), _number(entry, "cached_tokens")
    if prompt:
        yield Share("prompt", count(prompt), NONE)
    if prompt and cached is not None:
        yield Share("cached", count(int(cached)), percent(cached / prompt))
    if replies := int(_number(entry, "completion_tokens") or 0):
        yield Share("replies", count(replies), NONE)
        if thoughts := int(_number(entry, "thinking_tokens") or 0):
            yield Share("thoughts", count(thoughts), percent(thoughts / replies))


# --- data and environment -----------------------------------------------------------------------------------------


def _data(data: Mapping[str, Any]) -> _Facts:
    for split in _SPLITS:
        if data.get(split) is not None:
            yield f"{split.capitalize()} questions", count(_number(data, split))
    if data.get("more"):
        yield "More training questions (data.more)", count(_number(data, "more"))
    for how in _mapping(data, "overlaps"):
        number = count(_number(data["overlaps"], how))
        yield f"Left out of data.more: {how}", number
    if "dropped" in data:
        yield "Rows left out", count(len(_list(data, "dropped")))


def _dropped(row: Any) -> tuple[str, ...]:
    row = row if isinstance(row, Mapping) else {"reason": row}
    return tuple(str(row.get(key, NONE)) for key in ("split", "where", "reason"))


def _flat(tree: Any, at: str = "") -> _Facts:
    """Yield each value in a mapping with its dotted key."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{at}.{key}" if at else str(key))
    elif at:
        yield at, ", ".join(map(str, tree)) if isinstance(tree, list) else str(tree)
