"""The commands that use a trained student: each parses, calls one function, and prints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinyllm.cli import _completion
from tinyllm.cli._options import (
    AnswerColumn,
    AnswersAsOption,
    AnswersFrom,
    AsJson,
    ChoicesColumns,
    Classes,
    ContextColumn,
    Encoding,
    NoAnswers,
    NoContext,
    QuestionColumn,
    Quiet,
    Separator,
    Sheet,
    listed,
    print_result,
)

if TYPE_CHECKING:
    from tinyllm.export import Parity
    from tinyllm.inference import Predictions

_ALL = "*"  # no teacher's name: names are words
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
    from tinyllm.inference import load

    student = load(folder)
    chosen = student.choose(question, choice, context)
    rationales = student.explain(question, choice, context) if explain and student.teachers else {}
    answered = asdict(chosen) | {
        "tied": [choice[n] for n in chosen.tied if n != chosen.choice],
        "rationales": rationales,
    }
    unexplained = "\n(it has learnt no rationales, so it cannot explain)" if explain and not student.teachers else ""
    print_result(answered, as_json, lambda: _answer_text(choice, answered) + unexplained)


def predict(
    folder: Student,
    file: Annotated[Path, typer.Argument(help="The questions: any file or folder that `tinyllm init` reads.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The answers: .jsonl, .csv or .parquet; else FILE.predictions.jsonl, here."),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            "--explain",
            metavar="[TEACHER]",
            help="Also write rationales as each teacher would, or as one of them. Give it after RUN and FILE.",
        ),
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Choose nothing where the probability is less; such rows are counted.")
    ] = 0.0,
    question: QuestionColumn = None,
    choices: ChoicesColumns = None,
    answer: AnswerColumn = None,
    context: ContextColumn = None,
    no_context: NoContext = False,
    no_answers: NoAnswers = False,
    answers_as: AnswersAsOption = None,
    answers_from: AnswersFrom = None,
    classes: Classes = None,
    sheet: Sheet = None,
    encoding: Encoding = None,
    separator: Separator = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Answer every question of a file; the same command goes on where it was stopped."""
    from tinyllm.inference import load, predict_file
    from tinyllm.questions.intake import Wishes
    from tinyllm.system.news import News

    wishes = Wishes(
        question=question,
        choices=listed(choices),
        answer=answer,
        context=context,
        has_context=not no_context,
        has_answers=not no_answers,
        answers_from=answers_from,
        answers_as=None if answers_as is None else answers_as.value,
        classes=listed(classes),
        sheet=sheet,
        encoding=encoding,
        separator=separator,
    )
    news = News(quiet=quiet)
    with news.task("Loading the student"):
        student = load(folder)
    done = predict_file(
        student,
        file,
        out or Path(f"{file.resolve().name.split('.')[0]}.predictions.jsonl"),
        news,
        wishes=wishes,
        teachers=() if explain is None else student.voices(None if explain == _ALL else explain),
        min_confidence=min_confidence,
    )
    print_result(asdict(done), as_json, lambda: _predictions_text(done, min_confidence))


def serve(
    folder: Student,
    host: Annotated[
        str, typer.Option(help="Address to bind to; another than this machine's own needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable that holds the key which clients have to send.", metavar="NAME"),
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="Questions that may wait; beyond, 429 with Retry-After.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds in which a request is answered, or refused.")] = 30.0,
    max_bytes: Annotated[int, typer.Option(min=1024, help="Longest request.")] = 1 << 20,
    quiet: Quiet = False,
) -> None:
    """Serve a student over HTTP: /predict, OpenAI's /v1/chat/completions, a page to ask, /healthz and /metrics."""
    from tinyllm.serving import Limits
    from tinyllm.serving import serve as serve_student
    from tinyllm.system.news import News

    key = None if api_key_env is None else _key(api_key_env)
    limits = Limits(queue=queue, timeout_s=timeout, body_bytes=max_bytes)
    serve_student(folder, host, port, key, limits, News(quiet=quiet))


def export(
    folder: Run,
    to: Annotated[
        str, typer.Option(help="Format: merged, gguf, onnx or ctranslate2.", autocompletion=_completion.formats)
    ],
    quantize: Annotated[
        str | None,
        typer.Option(
            help="Precision: fp32, bf16 (merged); f16, f32, q8_0, q4_k_m, q4_0 (gguf); fp32, int8 (onnx, ctranslate2)."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; else RUN/export/FORMAT-PRECISION.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the student in another format, and prove on the run's questions that it answers the same."""
    from tinyllm.stages.export import export_run
    from tinyllm.stages.folder import RunFolder
    from tinyllm.system.news import News

    run = RunFolder(folder)
    found = export_run(run.config(), run, News(quiet=quiet), to, quantize, out)
    print_result(asdict(found), as_json, lambda: _parity_text(found))


def push(
    folder: Run,
    repo: Annotated[str, typer.Argument(help="The repository on the hub: OWNER/NAME.")],
    licence: Annotated[str, typer.Option("--license", help="The student's licence, as the hub calls it.")] = "",
    base_model: Annotated[str, typer.Option(help="The base model's name on the hub; needed for a local one.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Everyone may read a repository that is made.")] = False,
    upload: Annotated[
        bool, typer.Option("--upload", help="Send it; without this, only show what would be sent.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what a repository of the student on the Hugging Face hub would hold; with --upload, send it."""
    from tinyllm.stages.folder import RunFolder
    from tinyllm.stages.push import push_run
    from tinyllm.system.news import News

    run = RunFolder(folder)
    pushed = push_run(
        run.config(), run, repo, News(quiet=quiet), licence=licence, base_model=base_model, public=public, upload=upload
    )
    print_result(asdict(pushed), as_json, lambda: _pushed_text(pushed.repo, pushed.card, pushed.files, pushed.url))


def _key(variable: str) -> str:
    from tinyllm.errors import TinyLLMError

    key = os.environ.get(variable, "").strip()
    if not key:
        raise TinyLLMError(
            f"The environment variable {variable} is not set, or empty. Set it to the key: export {variable}=…",
            page="serving.md",
        )
    return key


def explained(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which `predict … --explain` without a teacher says that all are meant.

    The command-line library knows no option whose value may be left out.
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
    lines += [f"\nas {teacher}: {text or '(it wrote nothing)'}" for teacher, text in answered["rationales"].items()]
    return "\n".join(lines)


def _predictions_text(done: Predictions, min_confidence: float) -> str:
    new = done.rows - done.kept
    lines = [f"{done.rows} rows: {done.answered} answered"]
    if done.abstained:
        lines[0] += f", {done.abstained} not answered (less sure than {min_confidence:g})"
    if done.problems:
        lines[0] += f", {done.problems} that cannot be answered (`problem` says why)"
    if done.kept:
        lines.append(f"{done.kept} rows were answered by an earlier call.")
    if new and done.seconds:
        lines.append(f"{new / done.seconds:,.1f} questions/s")
    if (accuracy := done.accuracy) is not None:
        low, high = accuracy.ci95
        lines.append(
            f"Accuracy: {100 * accuracy.value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}) on the "
            f"{accuracy.n} answered rows whose answer is known"
        )
    return "\n".join([*lines, f"Answers: {done.file}"])


def _pushed_text(repo: str, card: str, sizes: Mapping[str, int], url: str | None) -> str:
    files = [f"  {size / 1e6:10.3f} MB  {name}" for name, size in sizes.items()]
    if url is not None:
        return "\n".join([f"Sent to {repo}:", *files, url])
    unsent = f"Nothing was sent. --upload would send this card, as README.md, and the rest to {repo}:"
    return "\n".join([card, unsent, *files])


def _parity_text(found: Parity) -> str:
    same, most = found.questions - found.differing, found.largest_difference
    lines = [f"{same} of {found.questions} choices are the same. Probabilities differ by {most:.4f} at most."]
    if found.before is not None and found.after is not None and found.change is not None:
        lines.append(
            f"Accuracy {100 * found.before.value:.1f} % before, {100 * found.after.value:.1f} % after "
            f"(p = {found.change.p:.2g}, paired, {found.after.n} questions)."
        )
    lines.append("Its README.md says how to run it. `tinyllm predict`, `serve` and `evaluate` take its folder, too.")
    return "\n".join(lines)
