"""What is printed before a run: what it will take, and what each step would train on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinyllm.cli._ending import few_text

if TYPE_CHECKING:
    from tinyllm.config import Config, TeacherConfig
    from tinyllm.stages.check import Checked
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.student import Prepared

_SHOWN_STEPS = 10
_SERVICES = ("openai", "openai-batch", "litellm", "vllm")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 8: "an eighth", 9: "a ninth"}
_PRESETS: Mapping[str, str] = {"paper": "the paper", "release": "the authors' code"}


def check_text(config: Config, run: RunFolder, checked: Checked, pilot: int = 0, *, tried: bool = False) -> str:
    """Return what `tinyllm check` and `--dry-run` say of a run.

    Args:
        pilot: questions of the pilot that is forecast; 0: the run is forecast.
        tried: each teacher was asked just now, so the run is forecast, and it is known that they answer.
    """
    from tinyllm.stages.asking import forecast_lines

    sizes = ", ".join(f"{n} {name}" for name, n in checked.questions.items())
    lines = [
        *(_ready(config, checked)),
        f"Settings that the file leaves out have the values of {_PRESETS[config.preset]} (preset: {config.preset})",
        f"Questions: {sizes}" + (f"; {checked.dropped} left out" if checked.dropped else ""),
        *(
            few_text(checked.scored)
            if checked.scored
            else ["  No test question has an answer, so the student is not scored"]
        ),
        f"Teachers: {', '.join(t.name for t in config.teachers) or 'none'}",
        *(f"  {name}: {n} rationales come with the data" for name, n in checked.given.items()),
    ]
    if checked.forecasts:
        what = "Forecast" if not pilot else f"Forecast of the pilot ({pilot} questions for each teacher)"
        lines += [f"{what}, without the replies that are already stored:", *forecast_lines(checked.forecasts)]
        if not pilot and any(f.hours is None for f in checked.forecasts):
            lines.append("  To measure the duration, add --pilot 8 to this command (the replies are kept)")
        lines += [*_without_price(config, checked), *_over_budget(config, checked)]
        lines += [] if tried else _untried(config, checked)
    return "\n".join(
        [*lines, *_training_text(config, checked), *_time_text(checked.seconds), f"Run folder: {run.path}"]
    )


def _ready(config: Config, checked: Checked) -> list[str]:
    if not checked.missing_keys:
        return [f"No problems found in '{config.name}' (method {config.train.method})."]
    return [
        f"'{config.name}' (method {config.train.method}) cannot run yet:",
        *(f"  {k}" for k in checked.missing_keys),
    ]


def _without_price(config: Config, checked: Checked) -> list[str]:
    """Say how a teacher that probably costs money gets a price, so that the cost is forecast."""
    asked = {f.teacher.removesuffix(" (opinions)") for f in checked.forecasts if f.usd is None and f.requests}
    names = [f"'{t.name}'" for t in config.teachers if t.name in asked and _is_paid(t)]
    if not names:
        return []
    return [
        f"  No price is known for {', '.join(names)}, so no cost is forecast and no cap on dollars holds. Add one to",
        "  the teacher, as in `price: {prompt: 0.15, completion: 0.6}` (US dollars per million tokens)",
    ]


def _untried(config: Config, checked: Checked) -> list[str]:
    """Say that nobody has looked whether services answer, and how to find out."""
    asked = {f.teacher.removesuffix(" (opinions)") for f in checked.forecasts if f.requests}
    names = [f"'{t.name}'" for t in config.teachers if t.name in asked and t.kind in _SERVICES]
    if not names:
        return []
    does = "answers" if len(names) == 1 else "answer"
    return [
        f"  Not tried yet: whether {', '.join(names)} {does}. --pilot 8 asks; at no cost, `tinyllm doctor` with this",
        "  configuration tries the address",
    ]


def _is_paid(teacher: TeacherConfig) -> bool:
    """Return whether a teacher probably costs money: a service that asks for a key."""
    return teacher.kind == "litellm" or getattr(teacher, "api_key_env", None) is not None


def _training_text(config: Config, checked: Checked) -> list[str]:
    from tinyllm.report import plural

    search = checked.search
    sifted = f"  Of {checked.unsure:,} questions without an answer, those below train.soft.trust are left out"
    why = [sifted] if checked.unsure else []
    if search is None:
        train = config.train
        if train.max_steps is not None and train.max_steps > checked.steps:
            passes = plural(train.epochs, "epoch")
            why.append(f"  train.max_steps: {train.max_steps} is not reached in {passes}; train.epochs allows more")
        return [f"Training: {'at most ' if checked.unsure else ''}{checked.steps} optimizer steps", *why]
    (count, first), *later = search.rungs
    rounds = f"{_number(count)} setting{' is' if count == 1 else 's are'} tried {_until(first)}"
    rounds += "".join(f", the best {_number(left)} {_until(share)}" for left, share in later)
    return [
        f"Training: {rounds}: at most {search.most_steps} optimizer steps",
        *why,
        "  The accuracy on validation questions decides. The settings:",
        *(f"  {n + 1}. {name} ({search.steps[n]} steps)" for n, name in enumerate(search.names)),
        *(f"  left out, by auto.budget: {name}" for name in search.left_out),
    ]


def _time_text(seconds: float | None) -> list[str]:
    """Say how long training and evaluation take. The estimate is rough, so it has one unit."""
    from tinyllm.report import plural

    if seconds is None:
        return []
    minutes = math.ceil(seconds / 60)
    if minutes == 1:
        return ["  Training and evaluation take a minute or less on this machine"]
    time = plural(minutes, "minute") if minutes < 120 else plural(round(minutes / 60), "hour")
    return [f"  Training and evaluation take roughly {time} on this machine"]


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _until(share: float) -> str:
    """Say up to which part of its steps a setting is trained."""
    if share == 1:
        return "to the end"
    return f"for {_PARTS.get(round(1 / share), f'{100 * share:.0f} %')} of the steps"


def _over_budget(config: Config, checked: Checked) -> list[str]:
    cap, asked = config.rationales.budget, checked.forecasts
    needed: dict[str, tuple[float, float | None]] = {
        "usd": (sum(f.usd or 0.0 for f in asked), cap.usd),
        "tokens": (sum(f.prompt_tokens + f.completion_tokens for f in asked), cap.tokens),
        "hours": (sum(f.hours or 0.0 for f in asked), cap.hours),
    }
    return [
        f"  This exceeds rationales.budget.{what}: about {amount:,.4g}, allowed {allowed:g}. Asking stops there."
        for what, (amount, allowed) in needed.items()
        if allowed is not None and amount > allowed
    ]


def plan_text(prepared: Prepared) -> str:
    """Return the first steps of a training, for `tinyllm train --plan`."""
    from tinyllm.report import plural

    plan, totals = prepared.plan, prepared.plan.totals()
    targets = ", ".join(f"{n} {task}" for task, n in prepared.targets.items())
    packed = "packed" if plan.shape.packed else "padded"
    batches = plural(totals.micro_batches, "micro-batch", "micro-batches")
    padding = f"{100 * totals.padding_fraction:.1f} % padding"
    lines = [
        f"{plural(len(plan), 'optimizer step')} of up to {plural(plan.batch_size, 'question')}; targets: {targets}",
        f"{batches}, {packed}, the largest of {totals.dearest:,} tokens",
        f"{totals.computed:,} tokens, {padding}; {totals.target_tokens:,} are target tokens",
        *(f"note: {note}" for note in prepared.notes),
        "",
        f"{'step':>4}  {'questions':>9}  {'micro-batches: rows=tokens':<55}  α",
    ]
    for step in plan.as_json(_SHOWN_STEPS)["plan"]:
        shapes = " + ".join(f"{m['rows']}r={m['tokens']}" for m in step["micro_batches"])
        alpha = ", ".join(f"{task} {weight:g}" for task, weight in step["alpha"].items())
        lines.append(f"{step['step']:>4}  {len(step['questions']):>9}  {shapes:<55}  {alpha}")
    more = len(plan) - _SHOWN_STEPS
    return "\n".join([*lines, *([f"… and {more} more; --json prints all"] if more > 0 else [])])
