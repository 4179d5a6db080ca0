"""The commands of one run: each parses, calls one function of a stage, and prints."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyllm.cli._options import AsJson, Overrides, Quiet, RunDir, print_result

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.stages.check import Checked
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.student import Prepared
    from tinyllm.system.news import News

_SHOWN_STEPS = 10
_FEW = 100  # questions; below, an interval is some 20 points wide

Target = Annotated[Path, typer.Argument(help="A configuration (YAML), or the folder of a run.", metavar="CONFIG|RUN")]


def check(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
    pilot: Annotated[
        int, typer.Option(min=0, help="Ask each teacher about so many questions, to measure it; the replies are kept.")
    ] = 0,
) -> None:
    """Find every problem before anything is spent, and forecast what a run will take."""
    from tinyllm.stages.check import check_run

    config, run, news = _opened(target, set_, run_dir)
    checked = check_run(config, run, news, pilot=pilot)
    again = _again("run", target, set_, run_dir)
    print_result(asdict(checked), as_json, lambda: _check_text(config, run, checked) + f"\nNext: {again}")


def generate(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Have the teachers write rationales; resumes where it stopped."""
    from tinyllm.stages.generate import generate_run
    from tinyllm.stages.opinions import unanswered_opinions

    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config, renews_rationales=True):
        yields = generate_run(config, run, news)
    figures = {name: asdict(found) for name, found in yields.items()}
    print_result(figures, as_json, lambda: f"Rationales: {run.path / 'rationales.parquet'}")
    _exit_if_unanswered({n: found.unanswered for n, found in yields.items()} | unanswered_opinions(run), run)


def train(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be learnt in which step, no more.")] = False,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine that share each step (one a GPU).")] = 1,
) -> None:
    """Train the student on the rationales of the run; resumes from the last checkpoint.

    Under torchrun or accelerate launch, over several machines too, every process runs this command; the run folder
    must be one that all of them see.
    """
    from tinyllm.stages.train import plan_run, train_run

    if nproc > 1 and not plan:
        from tinyllm.system.launch import launch

        raise typer.Exit(launch([sys.executable, "-m", "tinyllm", *_alone(sys.argv[1:])], nproc))
    config, run, news = _opened(target, set_, run_dir, quiet=quiet, may_be_one_of_several=True)
    if plan:
        if nproc > 1 or _is_first():
            processes = nproc if nproc > 1 else int(os.environ.get("WORLD_SIZE", "1"))
            prepared = plan_run(config, run, news, processes=processes)
            print_result(prepared.plan.as_json(), as_json, lambda: _plan_text(prepared))
        return
    with run.claimed(config) if _is_first() else contextlib.nullcontext():
        figures = train_run(config, run, news)
    if _is_first():
        print_result(figures, as_json, lambda: f"Student: {run.student}\nNext: tinyllm evaluate {run.path}")


def evaluate(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Score the student, before and after training."""
    from tinyllm.stages.evaluate import evaluate_run

    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config):
        figures = evaluate_run(config, run, news)
    print_result(figures, as_json, lambda: _accuracy_text(figures, config) + f"\nNext: tinyllm report {run.path}")


def report(target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Write the report of a run, or of an experiment: one page that opens from disk."""
    from tinyllm.stages.report import report_run

    if (target / "outline.json").is_file():
        from tinyllm.report import write_experiment

        if set_ or run_dir:
            raise typer.BadParameter("an experiment's report is made of its records alone: no --set, no --run-dir")
        page = write_experiment(target)
    else:
        _, run, news = _opened(target, set_, run_dir)
        page = report_run(run, news)
    print_result({"report": str(page)}, as_json, lambda: f"Report: {page}")


def run(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Do everything: rationales, training, evaluation, report; stages that are done are left out."""
    from tinyllm.stages.run import run_all

    config, folder, news = _opened(target, set_, run_dir, quiet=quiet)
    with folder.claimed(config, renews_rationales=True):
        outcome = run_all(config, folder, news)
    print_result(
        outcome.metrics, as_json, lambda: _accuracy_text(outcome.metrics, config) + _next_steps(folder, outcome.report)
    )
    _exit_if_unanswered(outcome.unanswered, folder)


def ask(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a student.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    choice: Annotated[list[str], typer.Option("--choice", "-c", help="A choice; give two or more.")],
    context: Annotated[str | None, typer.Option(help="A text that the question is about.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also write a rationale as each teacher would.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a trained student a question."""
    from tinyllm.questions import Question
    from tinyllm.stages.ask import ask_student

    answered = ask_student(folder, Question("asked", question, tuple(choice), None, context), explain=explain)
    print_result(asdict(answered), as_json, lambda: _answer_text(choice, asdict(answered)))


def _opened(
    target: Path,
    overrides: list[str] | None,
    run_dir: Path | None,
    *,
    quiet: bool = False,
    may_be_one_of_several: bool = False,
) -> tuple[Config, RunFolder, News]:
    """Return the configuration, the run folder and the news of a command."""
    from tinyllm.config import load_config
    from tinyllm.errors import RunFolderError, TinyLLMError
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not may_be_one_of_several:
        raise TinyLLMError(
            "This command runs in one process, and WORLD_SIZE says there are several; `tinyllm train` is the one that "
            "several share."
        )
    if not target.exists() and target.suffix not in (".yaml", ".yml"):
        raise RunFolderError(f"There is no run folder {target}; `tinyllm run CONFIG` makes one.")
    is_run = target.is_dir()
    config = load_config(target / "config.yaml" if is_run else target, overrides or ())
    folder = run_dir or (target if is_run else Path("runs") / config.name)
    return config, RunFolder(folder), News(quiet=quiet or not _is_first())


def _again(command: str, target: Path, overrides: Sequence[str] | None, run_dir: Path | None) -> str:
    """Return a command line with the options that this one was given."""
    options = ["--run-dir", str(run_dir)] if run_dir is not None else []
    options += [part for override in overrides or () for part in ("--set", override)]
    return shlex.join(["tinyllm", command, str(target), *options])


def _is_first() -> bool:
    """Whether this is the only process, or the one of several that speaks."""
    return os.environ.get("RANK", "0") == "0"


def _alone(arguments: Sequence[str]) -> list[str]:
    """Return the command line that one of several processes gets: the same without `--nproc`."""
    kept = list(arguments)
    for place, argument in enumerate(arguments):
        if argument == "--nproc":
            del kept[place : place + 2]
        elif argument.startswith("--nproc="):
            kept.remove(argument)
    return kept


def _exit_if_unanswered(unanswered: Mapping[str, Mapping[str, int]], run: RunFolder) -> None:
    told = [f"{n} of {name} ({reason})" for name, found in unanswered.items() for reason, n in found.items() if n]
    if told:
        may_help = any({"failed", "unasked"} & found.keys() for found in unanswered.values())
        advice = " Running the same command again asks again." if may_help else ""
        typer.echo(
            f"Some questions got no reply: {', '.join(told)}; see {run.path / 'rejected.jsonl'}.{advice}", err=True
        )
        raise typer.Exit(3)


def _plan_text(prepared: Prepared) -> str:
    from tinyllm.report import plural

    plan, totals = prepared.plan, prepared.plan.totals()
    targets = ", ".join(f"{n} {task}" for task, n in prepared.targets.items())
    packed = "packed" if plan.shape.packed else "padded"
    batches = plural(totals.micro_batches, "micro-batch", "micro-batches")
    padding = f"{100 * totals.padding_fraction:.1f} % padding"
    lines = [
        f"{plural(len(plan), 'optimizer step')} of up to {plural(plan.batch_size, 'question')}; targets: {targets}",
        f"{batches}, {packed}, the dearest of {totals.dearest:,} tokens",
        f"{totals.computed:,} tokens, {padding}; {totals.target_tokens:,} are learnt",
        *(f"note: {note}" for note in prepared.notes),
        "",
        f"{'step':>4}  {'questions':>9}  {'micro-batches: rows=tokens':<55}  α",
    ]
    for step in plan.as_json(_SHOWN_STEPS)["plan"]:
        shapes = " + ".join(f"{m['rows']}r={m['tokens']}" for m in step["micro_batches"])
        alpha = ", ".join(f"{task} {weight:g}" for task, weight in step["alpha"].items())
        lines.append(f"{step['step']:>4}  {len(step['questions']):>9}  {shapes:<55}  {alpha}")
    more = len(plan) - _SHOWN_STEPS
    return "\n".join([*lines, *([f"… and {more} more; all of them with --json"] if more > 0 else [])])


def _check_text(config: Config, run: RunFolder, checked: Checked) -> str:
    from tinyllm.stages.asking import forecast_lines

    sizes = ", ".join(f"{n} {name}" for name, n in checked.questions.items())
    lines = [
        f"No problems found in '{config.name}' (preset {config.preset}, method {config.train.method}).",
        f"Questions: {sizes}" + (f", {checked.dropped} left out" if checked.dropped else ""),
        f"Teachers: {', '.join(t.name for t in config.teachers) or 'none'}",
        *(f"  {name}: {n} rationales come with the data" for name, n in checked.given.items()),
    ]
    if checked.forecasts:
        lines += ["Forecast, without what the store holds already:", *forecast_lines(checked.forecasts)]
        if any(f.hours is None for f in checked.forecasts):
            lines.append("  To know the time, measure: the same command with --pilot 8 (the replies are kept)")
        lines += _over_budget(config, checked)
    return "\n".join([*lines, f"Training: {checked.steps} optimizer steps", f"The run's folder: {run.path}"])


def _over_budget(config: Config, checked: Checked) -> list[str]:
    cap, asked = config.rationales.budget, checked.forecasts
    needed: dict[str, tuple[float, float | None]] = {
        "usd": (sum(f.usd or 0.0 for f in asked), cap.usd),
        "tokens": (sum(f.prompt_tokens + f.completion_tokens for f in asked), cap.tokens),
        "hours": (sum(f.hours or 0.0 for f in asked), cap.hours),
    }
    return [
        f"  This is more than rationales.budget.{what} allows: about {amount:,.4g} of {allowed:g}."
        for what, (amount, allowed) in needed.items()
        if allowed is not None and amount > allowed
    ]


def _accuracy_text(figures: dict[str, Any], config: Config) -> str:
    from tinyllm.report import scorers

    def show(found: dict[str, Any] | None) -> str:
        if found is None:
            return "—"
        low, high = found["ci95"]
        counted = "".join(f", {found[what]} {what}" for what in ("ties", "unparsed") if found.get(what))
        return f"{100 * found['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f}{counted})"

    if "accuracy" not in figures:
        return "The student is trained. No test question has an answer, so it is not scored."
    before: dict[str, Any] = figures.get("before", {})
    after: dict[str, Any] = figures["accuracy"]
    names = (s for s in scorers(by_token=config.student.layout == "cloze") if s in after)
    rows = [f"  {s}: {show(before.get(s))} → {show(after[s])}" for s in names]
    n = max((found["n"] for found in after.values()), default=0)
    few = (
        ""
        if n >= _FEW
        else f"\n  {n} questions show large changes only; give more test questions (data.test, data.cut)"
    )
    return (
        f"Accuracy on {n} test questions, before → after training, with 95 % intervals:\n"
        + "\n".join(rows)
        + f"\n  always the majority: {100 * figures['majority']:.1f} %, chance: {100 * figures['chance']:.1f} %{few}"
    )


def _next_steps(folder: RunFolder, page: Path) -> str:
    return (
        f"\n\nReport: {page.resolve()}\n"
        "What to try next:\n"
        f"  open the report in a browser; it shows every question with the teachers' rationales\n"
        f'  tinyllm ask {folder.path} "A question?" -c "one choice" -c another --explain\n'
        "  tinyllm init FILE                      a configuration for questions of your own\n"
        "  tinyllm experiment GRID.yaml          whether the teachers helped: methods, seeds, tests (see README)"
    )


def _answer_text(choices: list[str], answered: dict[str, Any]) -> str:
    lines = []
    for index, (choice, share) in enumerate(zip(choices, answered["probabilities"], strict=True)):
        lines.append(f"{'→' if index == answered['choice'] else ' '} {100 * share:5.1f} %  {choice}")
    lines.append("(how likely the student finds each choice, of these)")
    if tied := answered.get("tied"):
        lines.append(f"(a tie: just as likely are {', '.join(tied)})")
    if answered.get("context_cut"):
        lines.append("(the context was cut to fit the longest input)")
    lines += [f"\nas {teacher}: {text or '(it wrote nothing)'}" for teacher, text in answered["rationales"].items()]
    return "\n".join(lines)
