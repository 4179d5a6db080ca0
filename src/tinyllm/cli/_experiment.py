"""Commands about more than one run: `tinyllm experiment` and `tinyllm lm-eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tinyllm.cli import _completion
from tinyllm.cli._options import AsJson, Overrides, Quiet, print_result

if TYPE_CHECKING:
    from tinyllm.experiments import Summary

_LONG_S = 600  # of an experiment; then a part of it is proposed for a first look


def experiment(
    grid: Annotated[
        Path,
        typer.Argument(
            help="An experiment file (YAML), or the folder of an experiment.",
            metavar="GRID|FOLDER",
            autocompletion=_completion.targets,
        ),
    ],
    set_: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Folder of the experiment; default: runs/<name>.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Parallel runs; they share processors and GPUs.")] = 1,
    ray: Annotated[
        str | None, typer.Option("--ray", help="Address of a Ray cluster to run on; auto: the one of this machine.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", "--dry-run", help="Only print which runs are left and how long they will take.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a grid of datasets, students, methods and seeds, and report it with statistics. Resumes where it stopped."""
    from tinyllm.errors import RunFolderError
    from tinyllm.experiments import load_experiment, run_experiment
    from tinyllm.system.news import News

    if grid.is_dir() and not (grid / "experiment.yaml").is_file():
        raise RunFolderError(
            f"{grid} has no experiment.yaml, so it is not an experiment's folder; give an experiment file (YAML)."
        )
    loaded = load_experiment(grid / "experiment.yaml" if grid.is_dir() else grid, set_ or ())
    folder = run_dir or (grid if grid.is_dir() else Path("runs") / loaded.grid.name)
    news = News(quiet=quiet)
    summary = run_experiment(loaded, folder, news, workers=workers, ray_address=ray, plan_only=plan)
    seeds = loaded.grid.seeds if plan and (summary.seconds_left or 0) > _LONG_S else ()
    print_result(asdict(summary), as_json, lambda: _experiment_text(summary, folder, seeds))
    if summary.failed or summary.unanswered or (summary.left and not plan):
        raise typer.Exit(3)


def lm_eval(
    folder: Annotated[
        Path, typer.Argument(help="The folder of a run, or of a student.", autocompletion=_completion.runs)
    ],
    dataset: Annotated[list[str], typer.Argument(help="Datasets: a known name (arc), or name=folder (arc=data/arc).")],
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most this many questions of each dataset.")] = None,
    write_tasks: Annotated[
        Path | None,
        typer.Option(help="Only write the tasks to this folder, for `lm_eval --include_path`; score nothing."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a student with lm-evaluation-harness, on test questions in our format."""
    from tinyllm.stages.lm_eval import score_by_harness, write_harness_tasks

    if write_tasks is not None:
        written = [str(f) for f in write_harness_tasks(folder, dataset, write_tasks, limit)]
        tasks = ",".join(Path(file).stem for file in written if file.endswith(".yaml"))
        command = f"lm_eval --include_path {write_tasks} --tasks {tasks}"
        print_result(written, as_json, lambda: "\n".join(written) + f"\nNext: {command}")
        return
    found = score_by_harness(folder, dataset, limit)
    lines = [
        f"{name}: {100 * r['acc,none']:.1f} % (acc), {100 * r['acc_norm,none']:.1f} % (acc_norm)"
        for name, r in found.items()
    ]
    print_result(found, as_json, lambda: "\n".join(lines))


def _experiment_text(summary: Summary, folder: Path, seeds: Sequence[int]) -> str:
    """Return what is said at the end. Of several seeds, the first one is proposed for a first look."""
    from tinyllm.report import plural
    from tinyllm.system.news import duration

    left = f", {summary.left} to go" if summary.left else ""
    left += f": about {duration(summary.seconds_left)} on this machine" if summary.seconds_left is not None else ""
    lines = [f"{plural(summary.done, 'run')} done{left}"]
    if len(seeds) > 1:
        lines.append(f"A first look: --set 'seeds=[{seeds[0]}]'. Nothing is tested then; the whole continues from it")
    if summary.unanswered:
        lines.append(f"{summary.unanswered} requests to teachers got no reply; the same command sends them again.")
    lines += [f"Failed: {key}: {error}" for key, error in summary.failed.items()]
    if summary.failed:
        lines.append(f"To try the failed runs again: tinyllm experiment {folder}")
    lines += [summary.shows] if summary.shows else []
    if summary.report is not None:
        lines.append(f"Report: {summary.report.resolve()}")
        lines.append(f"Tables and figures as files: {folder}/tables, {folder}/figures")
    return "\n".join(lines)
