"""The command line: a command parses, calls one public function, prints.

Exit codes: 0 done · 2 the person's mistake (one message) · 3 finished, but some requests got no reply
(`rejected.jsonl`), or some runs of an experiment failed; running again tries them again · 130 interrupted, everything
kept · anything else is a bug.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import shlex
import sqlite3
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyllm.cli.experiment import add_experiment_commands
from tinyllm.cli.options import AsJson, Overrides, Quiet, RunDir, print_result
from tinyllm.cli.store import store_app

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.pipeline import Checked
    from tinyllm.stages.prepare import Prepared
    from tinyllm.system.news import News

_SHOWN_STEPS = 10
_SHOWN_NAME = 300  # characters
_OF_A_PLACE = frozenset((
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.EMFILE,
    errno.ENFILE, errno.EFBIG,
))  # fmt: skip
_FEW = 100  # questions; below, an interval is some 20 points wide

app = typer.Typer(
    name="tinyllm",
    help="Learn a small student from the rationales of several large language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(store_app, name="store")


class AnswersAs(enum.Enum):
    """What the answers of a file are."""

    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


Target = Annotated[Path, typer.Argument(help="A configuration (YAML), or the folder of a run.", metavar="CONFIG|RUN")]


@app.command()
def init(
    path: Annotated[
        Path, typer.Argument(help="A file or folder of questions to read; or the configuration (.yaml) to write.")
    ] = Path("tinyllm.yaml"),
    data: Annotated[Path | None, typer.Option("--data", help="The questions, where PATH is the configuration.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The configuration to write; else quiz.yaml for quiz.csv, in this folder."),
    ] = None,
    question: Annotated[str | None, typer.Option(help="Column of the question.")] = None,
    choices: Annotated[str | None, typer.Option(help="Columns of the choices (A,B,C), or the one with lists.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    context: Annotated[str | None, typer.Option(help="Column of a text that the question is about.")] = None,
    no_context: Annotated[bool, typer.Option("--no-context", help="No column is such a text.")] = False,
    no_answers: Annotated[bool, typer.Option("--no-answers", help="Read the questions without answers.")] = False,
    answers_as: Annotated[AnswersAs | None, typer.Option(help="What the answers are.")] = None,
    answers_from: Annotated[
        int | None, typer.Option(min=0, max=1, help="The number of the first choice, where answers are numbers.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The same choices for every text: the names of its classes (spam,ham).")
    ] = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of a workbook.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of a text file, as windows-1252.")] = None,
    separator: Annotated[str | None, typer.Option(help="What separates the cells: ; or | or tab.")] = None,
) -> None:
    """Write a configuration to start from, fitted to a file of questions; says how it read them, and why."""
    from tinyllm.questions.intake.types import Wishes
    from tinyllm.stages.init import config_for, is_questions, write_config

    if data is None and is_questions(path):
        data, path = path, config_for(path)
    wishes = Wishes(
        question=question,
        choices=tuple(_listed(choices)),
        answer=answer,
        context=context,
        has_context=not no_context,
        has_answers=not no_answers,
        answers_from=answers_from,
        answers_as=None if answers_as is None else answers_as.value,
        classes=tuple(_listed(classes)),
        sheet=sheet,
        encoding=encoding,
        separator=separator,
    )
    written = write_config(out or path, data, wishes)
    for line in written.lines:
        typer.echo(line)
    made = written.config
    typer.echo(f"Wrote {made}. Look at it, then: tinyllm check {made}, and tinyllm run {made}")


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


@app.command()
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
    from tinyllm.stages.pipeline import check_run

    config, run, news = _opened(target, set_, run_dir)
    checked = check_run(config, run, news, pilot=pilot)
    again = _again("run", target, set_, run_dir)
    print_result(asdict(checked), as_json, lambda: _check_text(config, run, checked) + f"\nNext: {again}")


@app.command()
def generate(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Have the teachers write rationales; resumes where it stopped."""
    from tinyllm.stages.pipeline import generate_run

    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config, renews_rationales=True):
        yields = generate_run(config, run, news)
    figures = {name: asdict(found) for name, found in yields.items()}
    print_result(figures, as_json, lambda: f"Rationales: {run.path / 'rationales.parquet'}")
    _exit_if_unanswered({name: found.unanswered for name, found in yields.items()}, run)


@app.command()
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
    from tinyllm.stages.pipeline import plan_run, train_run

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


@app.command()
def evaluate(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Score the student, before and after training."""
    from tinyllm.stages.pipeline import evaluate_run

    config, run, news = _opened(target, set_, run_dir, quiet=quiet)
    with run.claimed(config):
        figures = evaluate_run(config, run, news)
    print_result(figures, as_json, lambda: _accuracy_text(figures, config) + f"\nNext: tinyllm report {run.path}")


@app.command()
def report(target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False) -> None:
    """Write the report of a run, or of an experiment: one page that opens from disk."""
    from tinyllm.stages.pipeline import report_run

    if (target / "outline.json").is_file():
        from tinyllm.report import write_experiment

        if set_ or run_dir:
            raise typer.BadParameter("an experiment's report is made of its records alone: no --set, no --run-dir")
        page = write_experiment(target)
    else:
        _, run, news = _opened(target, set_, run_dir)
        page = report_run(run, news)
    print_result({"report": str(page)}, as_json, lambda: f"Report: {page}")


@app.command()
def run(
    target: Target, set_: Overrides = None, run_dir: RunDir = None, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Do everything: rationales, training, evaluation, report; stages that are done are left out."""
    from tinyllm.stages.pipeline import run_all

    config, folder, news = _opened(target, set_, run_dir, quiet=quiet)
    with folder.claimed(config, renews_rationales=True):
        outcome = run_all(config, folder, news)
    print_result(
        outcome.metrics, as_json, lambda: _accuracy_text(outcome.metrics, config) + _next_steps(folder, outcome.report)
    )
    _exit_if_unanswered(outcome.unanswered, folder)


@app.command()
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
    from tinyllm.stages.pipeline import ask_student

    answered = ask_student(folder, Question("asked", question, tuple(choice), None, context), explain=explain)
    print_result(asdict(answered), as_json, lambda: _answer_text(choice, asdict(answered)))


@app.command("import-release")
def import_release(
    folder: Annotated[Path, typer.Argument(help="The authors' repository, or its folder `datasets`.")],
    out: Annotated[Path, typer.Option("--out", help="Where to write <dataset>/<split>.jsonl.")] = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Read the paper authors' published questions and rationales into questions files."""
    from tinyllm.questions import import_release as read

    counts = read(folder, out)
    lines = [f"{name}: " + ", ".join(f"{n} {what}" for what, n in found.items()) for name, found in counts.items()]
    print_result(
        counts, as_json, lambda: "\n".join(lines) + f"\nWritten to {out}. Use it with: data: {{folder: {out}/arc}}"
    )


add_experiment_commands(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tinyllm {version('tinyllm-distill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learn a small student from the rationales of several large language models."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the person's mistakes end with one message and exit code 2.

    Args:
        arguments: instead of the process's own.
    """
    from tinyllm.errors import TinyLLMError
    from tinyllm.system.machine import spin_shortly

    spin_shortly()
    # What libraries will change in their next release is for those who build on them, not for who runs this.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|accelerate)\b")
    # Without the network the hub's client tells of every retry; the message at the end says what to do.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        _check_arguments(sys.argv[1:] if arguments is None else arguments)
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
    except TinyLLMError as error:
        _stop(str(error), 2)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_A_PLACE:
            _stop(f"{error.strerror}: {_name(error)}. Choose another place, or mend its rights.", 2)
        if not _is_disk_full(error):
            _exit_on_usage_error(error)
            raise
        _stop(
            f"The disk is full ({error}). Everything finished so far is kept; free some space and run the same "
            "command again to go on.",
            2,
        )
    if code == 130:  # by one of the two ways in which a Ctrl-C gets here
        _stop("Interrupted. Everything finished so far is kept; run the same command again to go on.", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what no file of ours could name, and empty names, which would mean the current folder."""
    from tinyllm.errors import TinyLLMError

    for before, argument in zip(["tinyllm", *arguments], arguments, strict=False):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise TinyLLMError(
                f"The argument {argument!a} is not UTF-8. Rename the file or folder, or give it by a symbolic link."
            ) from None
        # A question and its choices are looked at by `ask` itself.
        if arguments[0] != "ask" and (not argument or (argument.startswith("--") and argument.endswith("="))):
            where = argument.rstrip("=") or before
            raise TinyLLMError(f"The argument after `{where}` is empty; is a variable of the shell not set?")


def _name(error: OSError) -> str:
    """Return the file that an error is about."""
    from tinyllm.errors import printable

    name = printable(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "(no file is named)"
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]} …"


def _exit_on_usage_error(error: Exception) -> None:
    """Let the command-line library print its own messages about unknown options and the like."""
    show = getattr(error, "show", None)
    if callable(show):
        show()
        sys.exit(getattr(error, "exit_code", 2))


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return True
    # safetensors and pyarrow wrap the operating system's error in one of their own.
    return "No space left on device" in str(error) or "os error 28" in str(error)


def _stop(message: str, code: int) -> None:
    from tinyllm.errors import printable

    message = printable(message)  # it may repeat what a server said, or what is in a file
    typer.echo(f"tinyllm: {message}" if code == 130 else f"Error: {message}", err=True)
    sys.exit(code)


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
    from tinyllm.report.words import plural

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
    from tinyllm.report.browser import scorers

    def show(found: dict[str, Any] | None) -> str:
        if found is None:
            return "—"
        low, high = found["ci95"]
        counted = "".join(f", {found[what]} {what}" for what in ("ties", "unparsed") if found.get(what))
        return f"{100 * found['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f}{counted})"

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
