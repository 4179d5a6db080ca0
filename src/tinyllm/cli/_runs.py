"""Commands about one run. Each calls one function of a stage and prints its result."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyllm.cli import _completion
from tinyllm.cli._ahead import check_text, plan_text
from tinyllm.cli._ending import accuracy_text, best_demo_text, ending_text, export_text, few_text
from tinyllm.cli._options import AsJson, DryRun, Overrides, Quiet, RunDir, print_result

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

Target = Annotated[
    Path,
    typer.Argument(
        help="A configuration (YAML), or the folder of a run.", metavar="CONFIG|RUN", autocompletion=_completion.targets
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
    """Find all problems that show without asking a teacher, and forecast the cost and duration of a run.

    `--pilot` asks each teacher a few questions; `tinyllm doctor CONFIG` only tries the addresses, at no cost.
    """
    from tinyllm.stages.check import check_run

    config, run, news = _opened(target, set_, run_dir)
    checked = check_run(config, run, news, pilot=pilot, dry_run=dry_run)
    following = ("set what is missing, then " if checked.missing_keys else "") + _same("run", target, set_, run_dir)
    forecast_pilot = pilot if dry_run else 0
    if forecast_pilot:
        following = f"{_same('check', target, set_, run_dir)} --pilot {pilot}"
    print_result(
        asdict(checked),
        as_json,
        lambda: f"{check_text(config, run, checked, forecast_pilot, tried=pilot > forecast_pilot)}\nNext: {following}",
    )
    if checked.missing_keys:  # the forecast needs no key, but a script must not go on to the run
        raise typer.Exit(2)


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
    print_result(asdict(checked), as_json, lambda: f"{check_text(config, run, checked)}\n{following}")


def generate(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Let the teachers write rationales, and give opinions. Resumes where it stopped."""
    from tinyllm.stages.generate import generate_run
    from tinyllm.stages.opinions import unanswered_opinions

    if dry_run:
        _rehearse("generate", target, set_, run_dir, as_json, quiet)
        return
    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config, renews_rationales=True):
        yields = generate_run(config, run, news)
    figures = {name: asdict(found) for name, found in yields.items()}
    made = [f"Rationales: {run.path / 'rationales.parquet'}"] if yields or not config.opinions.teachers else []
    made += [f"Opinions: {run.path / 'opinions.parquet'}"] if config.opinions.teachers else []
    print_result(figures, as_json, lambda: "\n".join(made))
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
            print_result(prepared.plan.as_json(), as_json, lambda: plan_text(prepared))
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
        print_result(found, as_json, lambda: export_text(found))
        return
    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config):
        figures = evaluate_run(config, run, news)
    print_result(figures, as_json, lambda: accuracy_text(figures, config) + f"\nNext: tinyllm report {run.path}")


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


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders; the first is compared with each other.")],
    as_json: AsJson = False,
) -> None:
    """Compare trained students on the same test questions, with intervals and p-values."""
    from tinyllm.config import describe_differences
    from tinyllm.errors import TinyLLMError
    from tinyllm.report import compare_runs
    from tinyllm.stages.folder import RunFolder

    if len(runs) < 2:
        raise TinyLLMError("One run was given. Give two or more: tinyllm compare runs/without runs/with")
    if len({run.resolve() for run in runs}) < len(runs):
        raise TinyLLMError("A run was given twice. Give two or more different ones.")
    rows = compare_runs(runs)
    first, width = rows[0], max(len(row.run) for row in rows)
    tells_steps = len({row.steps for row in rows} - {None}) > 1

    def text() -> str:
        lines = [f"{first.accuracy.n} test questions in common, by {first.scorer.lower()}:"]
        for row in rows:
            low, high = (100 * end for end in row.accuracy.ci95)
            line = f"  {row.run:<{width}}  {100 * row.accuracy.value:5.1f} % ({low:.1f}–{high:.1f})"
            if (change := row.difference) is not None:
                low, high = (100 * end for end in change.ci95)
                line += f"  {100 * change.difference:+5.1f} points ({low:+.1f} to {high:+.1f}), p = {change.p:.2g}"
                line += f", corrected {row.corrected:.2g}" if len(rows) > 2 else ""
            line += f"  {row.steps} steps" if tells_steps and row.steps is not None else ""
            lines.append(line + (f"  (by {row.scorer.lower()})" if row.scorer != first.scorer else ""))
        lines += few_text(first.accuracy.n)
        lines.append(f"  Points are differences from {first.run}, paired by question, with 95 % intervals.")
        lines.append("  Each run is one training; `tinyllm experiment` tests with several seeds (docs/experiments.md).")
        for other in runs[1:]:
            with contextlib.suppress(TinyLLMError):  # a configuration of an earlier version
                differ = describe_differences(*(RunFolder(folder).config() for folder in (runs[0], other)))
                lines += [f"What differs ({runs[0]} → {other}):", *(f"  - {setting}" for setting in differ)]
        return "\n".join(lines)

    print_result([asdict(row) for row in rows], as_json, text)


def run(
    target: Target,
    set_: Overrides = None,
    run_dir: RunDir = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run all stages: rationales or opinions, training, evaluation, report. Stages that are done are skipped."""
    from tinyllm.stages.run import run_all

    if dry_run:
        _rehearse("run", target, set_, run_dir, as_json, quiet)
        return
    config, folder, news = _opened(target, set_, run_dir, quiet=quiet)
    with folder.claimed(config, renews_rationales=True):
        outcome = run_all(config, folder, news)
    print_result(outcome.metrics, as_json, lambda: ending_text(outcome.metrics, config, folder, outcome.report))
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
    more = "" if best else best_demo_text(metrics)
    print_result(metrics, as_json, lambda: ending_text(metrics, config, folder, page) + more)


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
    is_run = target.is_dir()
    if is_run or not (target.exists() or target.suffix in (".yaml", ".yml")):
        RunFolderError.check(target)
    config = load_config(target / "config.yaml" if is_run else target, overrides or ())
    _check_folder(config, target)
    folder = run_dir or (target if is_run else Path("runs") / config.name)
    return config, RunFolder(folder), News(quiet=quiet or not _is_first())


def _check_folder(config: Config, path: Path) -> None:
    """Refuse questions that are not in the current folder but beside the configuration: it is the wrong folder.

    Raises:
        ConfigError: there are such questions.
    """
    from tinyllm.errors import ConfigError

    data = config.data
    named = [p for p in (data.train, data.valid, data.test, data.folder) if p is not None]
    elsewhere = [p for p in named if not p.is_absolute() and not p.exists() and (path.parent / p).exists()]
    if elsewhere:
        they_lie = "It lies" if len(elsewhere) == 1 else "They lie"
        raise ConfigError(
            f"{', '.join(map(str, elsewhere))}: not in the current folder, and paths are relative to it. {they_lie} "
            f"beside {path.name}: run the command from there (cd {shlex.quote(str(path.parent))}).",
            page="questions.md",
        )


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
        may_help = any("failed" in found for found in unanswered.values())  # "unasked": by the budget, as was said
        advice = " Running the same command again sends these requests again." if may_help else ""
        typer.echo(
            f"Some questions got no reply: {', '.join(told)}; see {run.path / 'rejected.jsonl'}.{advice}", err=True
        )
        raise typer.Exit(3)
