"""The commands that use a trained student. Each reads its options, calls one function, and prints the result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyllm.cli import _completion
from tinyllm.cli._options import AsJson, Quiet, Reading, print_result, reads_questions
from tinyllm.errors import DataError, RunFolderError

if TYPE_CHECKING:
    from tinyllm.export import Parity
    from tinyllm.inference import LoadedStudent, Predictions

_NO_TEXT = "(the student ended without a text; training on more rationales helps)"
_ALL = "*"  # stands for all teachers; it cannot be the name of a teacher
Student = Annotated[
    Path,
    typer.Argument(
        help="The folder of a run, of its student, or of an export.", metavar="RUN", autocompletion=_completion.runs
    ),
]
Run = Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN", autocompletion=_completion.runs)]


def ask(
    folder: Student,
    question: Annotated[str, typer.Argument(help="The question.")],
    choice: Annotated[list[str], typer.Option("--choice", "-c", help="A choice; give at least two.")],
    context: Annotated[str | None, typer.Option(help="A text that the question is about.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write a rationale in the style of each teacher.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a trained student a question."""
    RunFolderError.check(folder)  # before torch is imported
    if len(choice) < 2:
        raise DataError(f"A question needs two or more different choices, got {choice}. Give each with --choice.")
    from tinyllm.system.news import News

    news = News(quiet=as_json)
    with news.task("Loading the student"):
        from tinyllm.inference import load

        student = load(folder)
    chosen = student.choose(question, choice, context)
    rationales = {}
    if explain and (styles := _styles(student, None)):
        with news.task(f"Writing as {', '.join(styles)}"):
            rationales = student.explain(question, choice, context)
    answered = asdict(chosen) | {
        "tied": [choice[n] for n in chosen.tied if n != chosen.choice],
        "rationales": rationales,
    }
    print_result(answered, as_json, lambda: _answer_text(choice, answered))


@reads_questions
def predict(
    folder: Student,
    file: Annotated[Path, typer.Argument(help="The questions: any file or folder that `tinyllm init` reads.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File of the answers: .jsonl, .csv (with the separator of FILE, if FILE is .csv), .xlsx or .parquet; "
            "default: FILE.predictions.jsonl here.",
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="[TEACHER]",
            help="Also write a rationale in the style of each teacher, or of one TEACHER. Put it after RUN and FILE.",
        ),
    ] = None,
    min_confidence: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave the choice empty if its probability is lower; such rows are counted."),
    ] = 0.0,
    reading: Reading = Reading(),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer every question of a file. After an interruption, the same command continues."""
    RunFolderError.check(folder)  # before torch is imported
    from tinyllm.inference import load, predict_file
    from tinyllm.system.news import News

    done = predict_file(
        lambda: load(folder),
        file,
        out or Path(f"{file.resolve().name.split('.')[0]}.predictions.jsonl"),
        News(quiet=quiet),
        wishes=reading.wishes(),
        styles=lambda student: () if explain is None else _styles(student, None if explain == _ALL else explain),
        min_confidence=min_confidence,
    )
    print_result(asdict(done), as_json, lambda: _predictions_text(done, min_confidence))


def serve(
    folder: Student,
    host: Annotated[
        str, typer.Option(help="Address to listen on. An address that other machines can reach needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free port.")] = 8000,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with the key that clients must send.", metavar="NAME"),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Questions that may wait. If the queue is full: 429 with Retry-After.")
    ] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is refused with 504.")] = 30.0,
    max_bytes: Annotated[int, typer.Option(min=1024, help="Size of the largest request, in bytes.")] = 1 << 20,
    quiet: Quiet = False,
) -> None:
    """Serve a student over HTTP: /predict, OpenAI's /v1/chat/completions, a page for questions, /healthz, /metrics."""
    RunFolderError.check(folder)  # before torch is imported
    from tinyllm.serving import Limits
    from tinyllm.serving import serve as serve_student
    from tinyllm.system.news import News

    key = None if api_key_env is None else _key(api_key_env)
    limits = Limits(queue=queue, timeout_s=timeout, body_bytes=max_bytes)
    serve_student(folder, host, port, key, limits, News(quiet=quiet))


def export(
    folder: Run,
    to: Annotated[
        str,
        typer.Option(help="Format: merged, gguf, onnx, openvino or ctranslate2.", autocompletion=_completion.formats),
    ],
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Precision: fp32, bf16 (merged); f16, f32, q8_0, q4_k_m, q4_0 (gguf); fp32, f16, int8 (openvino); "
            "fp32, int8 (onnx, ctranslate2)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: RUN/export/FORMAT-PRECISION.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the student in another format, and compare its answers with those of the student."""
    RunFolderError.check(folder)  # before torch is imported
    from tinyllm.stages.export import export_run
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    run = RunFolder(folder)
    made = export_run(run.config(), run, News(quiet=quiet), to, quantize, out)
    told = {"folder": str(made.folder)} | asdict(made.parity)
    print_result(told, as_json, lambda: _export_text(made.folder, made.parity))


def push(
    folder: Run,
    repo: Annotated[str, typer.Argument(help="The repository on the hub: OWNER/NAME.")],
    licence: Annotated[str, typer.Option("--license", help="Licence of the student, as apache-2.0.")] = "",
    base_model: Annotated[
        str, typer.Option(help="Name of the base model on the hub. Needed if the student started from a local model.")
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="A new repository can be read by everyone.")] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Send the files. Without it, the command only shows them.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show the files and the model card for the Hugging Face hub. With --upload, send them."""
    RunFolderError.check(folder)  # before torch is imported
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.push import push_run
    from tinyllm.system.news import News

    run = RunFolder(folder)
    pushed = push_run(
        run.config(), run, repo, News(quiet=quiet), licence=licence, base_model=base_model, public=public, upload=upload
    )
    missing = (
        "" if licence else "\n  note: no licence is stated. An upload needs it: --license apache-2.0, mit, other, …"
    )
    print_result(
        asdict(pushed),
        as_json,
        lambda: _pushed_text(pushed.repo, pushed.card, pushed.files, pushed.url) + missing,
    )


def _styles(student: LoadedStudent, teacher: str | None) -> tuple[str, ...]:
    """Return the teachers in whose style rationales are written. Without any, print a note."""
    if student.teachers:
        return student.styles(teacher)
    typer.echo("  note: there are no rationales, because the student was trained without rationales", err=True)
    return ()


def _key(variable: str) -> str:
    from tinyllm.errors import TinyLLMError

    key = os.environ.get(variable, "").strip()
    if not key:
        raise TinyLLMError(
            f"The environment variable {variable} is not set or is empty. It must hold the key of the server. Set it: "
            f"export {variable}=…",
            page="serving.md",
        )
    return key


def explained(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which `predict … --explain` without a teacher names all teachers.

    The command-line library has no options with an optional value.
    """
    given = list(arguments)
    for place, (argument, following) in enumerate(zip(given, [*given[1:], "-"], strict=False)):
        if given[0] == "predict" and argument == "--explain" and following.startswith("-"):
            given[place] = f"--explain={_ALL}"
    return given


def _answer_text(choices: Sequence[str], answered: dict[str, Any]) -> str:
    lines = []
    for index, (choice, share) in enumerate(zip(choices, answered["probabilities"], strict=True)):
        lines.append(f"{'→' if index == answered['choice'] else ' '} {100 * share:5.1f} %  {choice}")
    lines.append("(the student's probability of each choice)")
    if tied := answered.get("tied"):
        lines.append(f"(a tie: {', '.join(tied)} have the same probability)")
    if answered.get("context_cut"):
        lines.append("(the context was cut to the maximum input length)")
    if answered["rationales"]:
        lines.append("\nWritten apart from the choice, so a text may argue for another one:")
    lines += [f"\nas {teacher}: {text or _NO_TEXT}" for teacher, text in answered["rationales"].items()]
    return "\n".join(lines)


def _predictions_text(done: Predictions, min_confidence: float) -> str:
    lines = [f"{done.rows} rows: {done.answered} answered"]
    if done.abstained:
        lines[0] += f", {done.abstained} without a choice (probability below {min_confidence:g})"
        if not done.answered:
            lines.append(
                "No probability reaches --min-confidence: look at the column `probability`, and give a lower one."
            )
    if done.problems:
        lines[0] += f", {done.problems} that cannot be answered (the column `problem` has the reasons)"
    if bad := done.unused_answers:
        lines.append(
            f"The known answer of {bad} row{'' if bad == 1 else 's'} is not used, because it is not one of the choices "
            "(the column `answer_problem` has the reasons)."
        )
    if done.kept:
        lines.append(f"An earlier, interrupted command answered {done.kept} of these rows.")
    return "\n".join([*lines, *_accuracy_lines(done), f"Answers: {done.file}"])


def _accuracy_lines(done: Predictions) -> Iterator[str]:
    """Yield the accuracy on new questions, and then the accuracy on those of the training, which is no estimate."""
    new, learnt = done.accuracy, done.accuracy_learnt
    if new is not None:
        low, high = new.ci95
        on = (
            f"{new.n} answered {'question that is' if new.n == 1 else 'questions that are'} new to the student"
            if done.records_learnt
            else f"the {new.n} rows with a choice and a known answer"
        )
        left = f"; the {done.abstained} without a choice do not count" if done.abstained else ""
        yield f"Accuracy: {100 * new.value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}) on {on}{left}"
    if learnt is None:
        return
    used = "was used" if learnt.n == 1 else "were used"
    if new is not None:
        rows = "row" if learnt.n == 1 else "rows"
        yield f"{learnt.n} more {rows} {used} in training or to choose settings; on them: {100 * learnt.value:.1f} %"
    else:
        yield (
            f"No accuracy on new questions: all rows with a choice and a known answer ({learnt.n}) {used} in training "
            f"or to choose settings. On them: {100 * learnt.value:.1f} %, which is no estimate for other questions"
        )


def _pushed_text(repo: str, card: str, sizes: Mapping[str, int], url: str | None) -> str:
    files = [f"  {max(1, round(size / 1e3)):10,} kB  {name}" for name, size in sizes.items()]
    if url is not None:
        return "\n".join([f"Sent to {repo}:", *files, url])
    unsent = f"Nothing was sent. With --upload, the card above (as README.md) and these files are sent to {repo}:"
    return "\n".join([card, unsent, *files])


def _export_text(folder: Path, found: Parity) -> str:
    same, least = found.questions - found.differing, 100 * (1 - found.allowed_share)
    lines = [
        f"{same} of {found.questions} choices are the same; this format must keep {least:g} %, or all but one.",
        f"Probabilities differ by at most {found.largest_difference:.4f}; {found.allowed_difference:g} is allowed.",
    ]
    used = f", {found.learnt} of them used in training or to choose settings" if found.learnt else ""
    if found.before is not None and found.after is not None and found.change is not None:
        lines.append(
            f"Accuracy: student in fp32 {100 * found.before.value:.1f} %, export {100 * found.after.value:.1f} % "
            f"({found.after.n} questions{used}), paired p = {found.change.p:.2g}."
        )
    if next(folder.glob("*.gguf"), None) is not None:
        lines.append(
            "To choose as the student does, use `tinyllm predict` or `serve` with this folder. In llama.cpp and Ollama "
            "it writes freely, and seldom one of the choices word for word."
        )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    lines.append(
        f"Export: {folder} ({size / 1e6:,.0f} MB)\n"
        "README.md in this folder shows how to run the export. `tinyllm predict`, `serve` and "
        "`evaluate` take this folder in place of the run."
    )
    return "\n".join(lines)
