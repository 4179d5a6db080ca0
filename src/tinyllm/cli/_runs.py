"""Commands about one run. Each calls one function of a stage and prints its result."""

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

from tinyllm.cli import _completion
from tinyllm.cli._options import AsJson, DryRun, Overrides, Quiet, RunDir, print_result

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.stages.check import Checked
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.student import Prepared
    from tinyllm.system.news import News

_SHOWN_STEPS = 10
_FEW = 100  # questions; with fewer, the interval is about 20 points wide
_SIGNIFICANT = 0.05
_PLOT_WIDTH = 50  # characters

Target = Annotated[
    Path,
    typer.Argument(
        help="A configuration (YAML), or the folder of a run.",
        metavar="CONFIG|RUN",
        autocompletion=_completion.targets,
    ),
]


def check(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
    pilot: Annotated[
        int,
        typer.Option(min=0, help="Ask each teacher this many questions to measure its speed; the replies are kept."),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --pilot: only forecast what the pilot will take. Asks no teacher.")
    ] = False,
) -> None:
    """Find all problems before anything is spent, and forecast the cost and duration of a run."""
    from tinyllm.stages.check import check_run

    config, run, news = _opened(target, set_, run_dir)
    checked = check_run(config, run, news, pilot=pilot, dry_run=dry_run)
    following = _same("run", target, set_, run_dir)
    if dry_run and pilot:
        following = f"{_same('check', target, set_, run_dir)} --pilot {pilot}"
    print_result(
        asdict(checked),
        as_json,
        lambda: _check_text(config, run, checked, pilot if dry_run else 0) + f"\nNext: {following}",
    )


def _same(command: str, target: Path, overrides: Sequence[str] | None, run_dir: Path | None) -> str:
    """Return a command line with the same options."""
    options = ["--run-dir", str(run_dir)] if run_dir is not None else []
    options += [part for override in overrides or () for part in ("--set", override)]
    return shlex.join(["tinyllm", command, str(target), *options])


def _rehearse(
    command: str, target: Path, overrides: list[str] | None, run_dir: Path | None, as_json: bool, quiet: bool
) -> None:
    """Print what a command will take."""
    from tinyllm.stages.check import check_run

    config, run, news = _opened(target, overrides, run_dir, quiet=quiet)
    checked = check_run(config, run, news)
    following = f"Nothing was asked or written. Next: {_same(command, target, overrides, run_dir)}"
    print_result(asdict(checked), as_json, lambda: f"{_check_text(config, run, checked)}\n{following}")


def generate(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Let the teachers write rationales. Resumes where it stopped."""
    from tinyllm.stages.generate import generate_run
    from tinyllm.stages.opinions import unanswered_opinions

    if dry_run:
        _rehearse("generate", target, set_, run_dir, as_json, quiet)
        return
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
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Only print what each step would train on.")
    ] = False,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that share each step (one per GPU).")
    ] = 1,
) -> None:
    """Train the student on the rationales of the run. Resumes from the last checkpoint.

    Under torchrun or accelerate launch, also on several machines, every process runs this command. All of them must
    have access to the run folder.
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
    target: Annotated[
        Path,
        typer.Argument(
            help="A configuration (YAML), or the folder of a run or an export.",
            metavar="CONFIG|RUN",
            autocompletion=_completion.targets,
        ),
    ],
    set_: Overrides = None,
    run_dir: RunDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score the student before and after training; or an export, beside the student that it was made of."""
    from tinyllm.stages.evaluate import evaluate_run

    if (target / "tinyllm.json").is_file():
        from tinyllm.stages.export import evaluate_export
        from tinyllm.stages.folder import RunFolder
        from tinyllm.system.news import News

        if set_:
            raise typer.BadParameter("an export is evaluated with the settings of its run; it takes no --set")
        found = evaluate_export(target, None if run_dir is None else RunFolder(run_dir), News(quiet=quiet))
        print_result(found, as_json, lambda: _export_text(found))
        return
    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config):
        figures = evaluate_run(config, run, news)
    print_result(figures, as_json, lambda: _accuracy_text(figures, config) + f"\nNext: tinyllm report {run.path}")


def report(target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Write the report of a run or an experiment: one HTML file."""
    from tinyllm.stages.report import report_run

    if (target / "outline.json").is_file():
        from tinyllm.report import write_experiment

        if set_ or run_dir:
            raise typer.BadParameter("the report of an experiment takes no --set and no --run-dir")
        page = write_experiment(target)
    else:
        _, run, news = _opened(target, set_, run_dir)
        page = report_run(run, news)
    print_result({"report": str(page)}, as_json, lambda: f"Report: {page}")


def run(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run all stages: rationales, training, evaluation, report. Stages that are done are skipped."""
    from tinyllm.stages.run import run_all

    if dry_run:
        _rehearse("run", target, set_, run_dir, as_json, quiet)
        return
    config, folder, news = _opened(target, set_, run_dir, quiet=quiet)
    with folder.claimed(config, renews_rationales=True):
        outcome = run_all(config, folder, news)
    print_result(
        outcome.metrics,
        as_json,
        lambda: _accuracy_text(outcome.metrics, config) + _next_steps(folder, outcome.report, config),
    )
    _exit_if_unanswered(outcome.unanswered, folder)


def demo(
    best: Annotated[
        bool, typer.Option("--best", help="Let a teacher of 1.5 billion parameters answer now. Takes longer.")
    ] = False,
    run_dir: RunDir = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a student on teachers' opinions, without answers, in about five minutes. Needs no account and no GPU."""
    from tinyllm.stages.demo import run_demo
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    folder = RunFolder(run_dir or Path("runs") / ("demo-best" if best else "demo"))
    config, metrics, page = run_demo(folder, News(quiet=quiet), best=best)
    print_result(metrics, as_json, lambda: _accuracy_text(metrics, config) + _next_steps(folder, page, config))


def _opened(
    target: Path,
    overrides: list[str] | None,
    run_dir: Path | None,
    *,
    quiet: bool = False,
    may_be_one_of_several: bool = False,
) -> tuple[Config, RunFolder, News]:
    """Return the configuration, the run folder and the progress printer of a command."""
    from tinyllm.config import load_config
    from tinyllm.errors import RunFolderError, TinyLLMError
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not may_be_one_of_several:
        raise TinyLLMError(
            f"This command runs in one process, but WORLD_SIZE is {os.environ['WORLD_SIZE']}. "
            "Only `tinyllm train` can run in several."
        )
    if not target.exists() and target.suffix not in (".yaml", ".yml"):
        raise RunFolderError(f"There is no run folder {target}; `tinyllm run CONFIG` makes one.")
    is_run = target.is_dir()
    config = load_config(target / "config.yaml" if is_run else target, overrides or ())
    folder = run_dir or (target if is_run else Path("runs") / config.name)
    return config, RunFolder(folder), News(quiet=quiet or not _is_first())


def _is_first() -> bool:
    """Tell whether this is the only process, or the one of several that prints."""
    return os.environ.get("RANK", "0") == "0"


def _alone(arguments: Sequence[str]) -> list[str]:
    """Return the command line of each of several processes: the same without `--nproc`."""
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
        advice = " Running the same command again sends these requests again." if may_help else ""
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


def _check_text(config: Config, run: RunFolder, checked: Checked, pilot: int = 0) -> str:
    from tinyllm.stages.asking import forecast_lines

    sizes = ", ".join(f"{n} {name}" for name, n in checked.questions.items())
    lines = [
        f"No problems found in '{config.name}' (preset {config.preset}, method {config.train.method}).",
        f"Questions: {sizes}" + (f", {checked.dropped} left out" if checked.dropped else ""),
        f"Teachers: {', '.join(t.name for t in config.teachers) or 'none'}",
        *(f"  {name}: {n} rationales come with the data" for name, n in checked.given.items()),
    ]
    if checked.forecasts:
        what = "Forecast" if not pilot else f"Forecast of the pilot ({pilot} questions for each teacher)"
        lines += [f"{what}, without the replies that are already stored:", *forecast_lines(checked.forecasts)]
        if not pilot and any(f.hours is None for f in checked.forecasts):
            lines.append("  To measure the duration, add --pilot 8 to this command (the replies are kept)")
        lines += _over_budget(config, checked)
    return "\n".join([*lines, *_training_text(checked), f"Run folder: {run.path}"])


def _training_text(checked: Checked) -> list[str]:
    search = checked.search
    if search is None:
        return [f"Training: {checked.steps} optimizer steps"]
    rungs = ", then ".join(f"{count} until {100 * share:.0f} %" for count, share in search.rungs)
    return [
        f"Training: at most {checked.steps} optimizer steps, the search of `method: auto` included",
        f"  It tries these settings on validation questions ({rungs} of their steps):",
        *(f"  {n + 1}. {name} ({search.steps[n]} steps)" for n, name in enumerate(search.names)),
        *(f"  left out, by auto.budget: {name}" for name in search.left_out),
    ]


def _over_budget(config: Config, checked: Checked) -> list[str]:
    cap, asked = config.rationales.budget, checked.forecasts
    needed: dict[str, tuple[float, float | None]] = {
        "usd": (sum(f.usd or 0.0 for f in asked), cap.usd),
        "tokens": (sum(f.prompt_tokens + f.completion_tokens for f in asked), cap.tokens),
        "hours": (sum(f.hours or 0.0 for f in asked), cap.hours),
    }
    return [
        f"  This exceeds rationales.budget.{what}: about {amount:,.4g}, allowed {allowed:g}."
        for what, (amount, allowed) in needed.items()
        if allowed is not None and amount > allowed
    ]


def _accuracy_text(figures: dict[str, Any], config: Config) -> str:
    """Say in a sentence what training changed, draw it, and give the figures of every scorer."""
    from tinyllm.report import scorers

    if "accuracy" not in figures:
        return "The student is trained. No test question has an answer, so it is not scored."
    before, after, gains = (figures.get(key) or {} for key in ("before", "accuracy", "gain"))
    labels = scorers(by_token=config.student.layout == "cloze")
    names = [s for s in labels if s in after]
    if not names:
        return "The student is trained, and nothing was scored."
    first = names[0]
    n = max(found["n"] for found in after.values())
    rows = [(when, of[first]) for when, of in (("before", before), ("after", after)) if first in of]
    lines = [
        f"{_gain_text(after[first], gains.get(first), config)}, scored by {labels[first].lower()}.",
        *_interval_plot(rows, {"majority class": figures["majority"], "chance": figures["chance"]}),
        *(
            f"  {labels[name].lower()}: {_share_text(before.get(name))} → {_share_text(after[name])}"
            + (f", p = {gains[name]['p']:.2g}" if name in gains else "")
            for name in names
        ),
    ]
    if "generation" in names and config.student.layout == "cloze":
        lines.append("  It ranks choices that it is not shown, so an answer that it writes is rarely one of them.")
    lines += _chosen_text(figures.get("train") or {})
    if n < _FEW:
        lines.append(f"  {n} questions only show large changes; add test questions (data.test, data.cut)")
    return "\n".join(lines)


def _gain_text(after: Mapping[str, Any], gain: Mapping[str, Any] | None, config: Config) -> str:
    """Say whether the trained student is better than before, by the exact paired test."""
    if gain is None:
        return f"The student answers {100 * after['value']:.1f} % of {after['n']} test questions right"
    change, low, high = (f"{100 * share:+.1f}" for share in (gain["difference"], *gain["ci95"]))
    told = f"{change} points (95 % interval {low} to {high}, p = {gain['p']:.2g}) on {gain['n']} test questions"
    soft = config.train.soft
    what = "Training" if soft is None or soft.weight < 1 else "Training on the teachers' opinions, without an answer,"
    if gain["p"] >= _SIGNIFICANT:
        return f"{what} is not shown to change the accuracy: {told}"
    return f"{what} {'helped' if gain['difference'] > 0 else 'hurt'}: {told}"


def _chosen_text(trained: Mapping[str, Any]) -> list[str]:
    """Say what `method: auto` chose, and whether the student learnt rationales then."""
    chosen = trained.get("chosen")
    if not chosen:
        return []
    lines = [f"  auto chose on validation questions: {chosen['name']}"]
    if all(task.startswith("answer") for task in trained.get("targets", ())):
        lines.append("  So the student learnt no rationales and cannot explain; `train.method: tinyllm` learns them.")
    return lines


def _interval_plot(rows: Sequence[tuple[str, Mapping[str, Any]]], marks: Mapping[str, float]) -> list[str]:
    """Draw accuracies with their 95 % intervals, one a line, and the accuracies to compare with below."""
    ends = [end for _, found in rows for end in found["ci95"]] + list(marks.values())
    low, high = min(ends), max(ends)

    def place(share: float) -> int:
        return round((_PLOT_WIDTH - 1) * (share - low) / (high - low)) if high > low else 0

    lines = []
    for label, found in rows:
        start, value, end = (place(share) for share in (found["ci95"][0], found["value"], found["ci95"][1]))
        bar = "├" + "─" * (end - start - 1) + "┤" if end > start else ""
        drawn = list(" " * start + bar + " " * (_PLOT_WIDTH - end - 1))
        drawn[value : value + 1] = "●"
        lines.append(f"  {label:<15}{''.join(drawn):<{_PLOT_WIDTH}}  {100 * found['value']:.1f} %")
    for label, share in marks.items():
        lines.append(f"  {label:<15}{' ' * place(share) + '│':<{_PLOT_WIDTH}}  {100 * share:.1f} %")
    return lines


def _share_text(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "—"
    low, high = found["ci95"]
    counted = "".join(f", {found[what]} {what}" for what in ("ties", "unparsed") if found.get(what))
    return f"{100 * found['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f}{counted})"


def _export_text(figures: dict[str, Any]) -> str:
    def show(found: dict[str, Any]) -> str:
        return f"{100 * found['value']:.1f} % ({100 * found['ci95'][0]:.1f}–{100 * found['ci95'][1]:.1f})"

    of, own, change = figures["accuracy"], figures["run"], figures["change"]
    lines = [f"Accuracy on {of['n']} test questions, with its 95 % interval, by {figures['runtime']}: {show(of)}"]
    if own is None:
        return "\n".join(
            [*lines, "The run was not evaluated on these questions, so there is nothing to compare it with."]
        )
    return "\n".join([
        *lines, f"  the run's own student: {show(own)} on {own['n']} of them",
        f"  changed: {change['fixed']} now right, {change['broken']} now wrong (p = {change['p']:.2g}, paired)",
    ])  # fmt: skip


def _next_steps(folder: RunFolder, page: Path, config: Config) -> str:
    explain = " --explain" if config.train.method not in ("fine-tuning", "auto") else ""
    return (
        f"\n\nReport: {page.resolve()}\n"
        "What to try next:\n"
        "  open the report in a browser: the test questions with the student's answers, the teachers, the training\n"
        f'  tinyllm ask {folder.path} "A question?" -c "one choice" -c another{explain}\n'
        "  tinyllm init FILE                     write a configuration for your own questions\n"
        "  tinyllm experiment GRID.yaml          test whether the teachers helped: methods, seeds (docs/experiments.md)"
    )
