"""The command line, its exit codes, and the messages of errors that end a command.

Exit codes: 0 done · 2 the user's mistake (one message) · 3 finished, but some requests got no reply
(`rejected.jsonl`) or some runs of an experiment failed; the same command tries them again · 130 interrupted, all
results kept · anything else is a bug.
"""

from __future__ import annotations

import atexit
import enum
import errno
import gc
import os
import sqlite3
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tinyllm.cli import _experiment, _runs, _start, _use
from tinyllm.cli._start import models_app
from tinyllm.cli._store import store_app

_SHOWN_NAME = 300  # characters
_PATH_ERRORS = frozenset((
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.EMFILE,
    errno.ENFILE, errno.EFBIG,
))  # fmt: skip
app = typer.Typer(
    name="tinyllm",
    help="Train a small student model on the rationales and opinions of several large language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    _runs.demo, _start.init, _runs.check, _runs.generate, _runs.train, _runs.evaluate, _runs.report, _runs.run,
    _runs.compare, _use.ask, _use.predict, _use.serve, _use.export, _use.push,
):  # fmt: skip
    app.command()(_command)
app.command("import-release")(_start.import_release)
app.command()(_start.doctor)
app.command()(_experiment.experiment)
app.command("lm-eval")(_experiment.lm_eval)
app.add_typer(store_app, name="store")
app.add_typer(models_app, name="models")


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
    """Train a small student model from the rationales and opinions of several large language models, and use it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. A user's mistake ends it with one message and exit code 2.

    Args:
        arguments: the command line; None: the arguments of the process.
    """
    from tinyllm.errors import TinyLLMError
    from tinyllm.system.machine import spin_shortly

    spin_shortly()
    # Python ends with a look for cycles among a million objects of PyTorch, for seconds in which nothing is seen.
    atexit.register(gc.freeze)
    # These warnings are for developers who use the libraries, not for users of this program.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|torch|accelerate)\b")
    # Without a network, the hub's client would log every retry. Our message at the end is enough.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    try:
        _check_arguments(sys.argv[1:] if arguments is None else arguments)
        code = app(args=_use.explained(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
    except TinyLLMError as error:
        _stop(str(error) + _address(error.page), 2)
    except KeyboardInterrupt:
        code = 130
    except typer.Abort:  # Ctrl-C or Ctrl-D where the program asks
        typer.echo(err=True)
        _stop("Interrupted. Nothing was changed.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PATH_ERRORS:
            _stop(f"{error.strerror}: {_name(error)}. Choose another path, or correct its permissions.", 2)
        if not _is_disk_full(error):
            if callable(show := getattr(error, "show", None)):  # a usage error, as an unknown option: typer prints it
                _say_what_is_allowed(error)
                show()
                sys.exit(getattr(error, "exit_code", 2))
            raise
        _stop(
            f"The disk is full ({error}). Everything finished so far is kept. Free some space and run the same "
            "command again to continue.",
            2,
        )
    if code == 130:  # Ctrl-C: typer returns it, or KeyboardInterrupt is caught above
        _stop("Interrupted. Everything finished so far is kept; run the same command again to continue.", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _say_what_is_allowed(error: Any) -> None:
    """Let the error of an option's value say what it got and what is allowed. Typer has pydantic's message there.

    A command that is like no other is answered by the list of all.
    """
    commands = getattr(getattr(getattr(error, "ctx", None), "command", None), "commands", None)
    if commands and str(error.message).startswith("No such command") and "Did you mean" not in error.message:
        error.message += f" The commands: {', '.join(commands)}."
    if str(getattr(error, "message", "")).startswith("Got unexpected extra argument"):
        error.message += " A text with blanks stands in quotation marks."
    option, problems = getattr(error, "param", None), getattr(error.__cause__, "errors", None)
    if option is None or problems is None:
        return
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        allowed = ", ".join(str(one.value) for one in kind)
    elif kind in (int, float):
        allowed = "a whole number" if kind is int else "a number"
        ends = [f"{word} {end}" for word, end in (("from", option.min), ("to", option.max)) if end is not None]
        allowed = " ".join([allowed, *ends]) + (" on" if ends and option.max is None else "")
    else:
        return
    error.message = f"got '{problems()[0]['input']}'. Allowed: {allowed}."


def _address(page: str) -> str:
    """Return the line that names a page of the documentation: on the web, if the package names its place there."""
    from importlib.metadata import metadata

    if not page:
        return ""
    urls = dict(text.split(", ", 1) for text in metadata("tinyllm-distill").get_all("Project-URL") or ())
    return f"\nSee {urls.get('Documentation', 'docs').rstrip('/')}/{page}"


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuse names that are not UTF-8, empty names, which would mean the current folder, and `--set KEY VALUE`."""
    from tinyllm.errors import TinyLLMError

    for option, key, value in zip(arguments, arguments[1:], [*arguments[2:], "-"], strict=False):
        if option == "--set" and "." in key and "=" not in key and not value.startswith("-"):
            raise TinyLLMError(f"--set takes KEY=VALUE in one word. Got: {key} {value}. Write --set {key}={value}")
    for before, argument in zip(["tinyllm", *arguments], arguments, strict=False):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise TinyLLMError(
                f"The argument {argument!a} is not UTF-8. Rename the file or folder, or use a symbolic link."
            ) from None
        # `ask` checks its question and choices itself.
        if arguments[0] != "ask" and (not argument or (argument.startswith("--") and argument.endswith("="))):
            where = argument.rstrip("=") or before
            raise TinyLLMError(f"The argument after `{where}` is empty. Is a shell variable not set?")


def _name(error: OSError) -> str:
    """Return the file name in an error, shortened."""
    from tinyllm.errors import printable

    name = printable(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else "(no file is named)"
    return name if len(name) <= _SHOWN_NAME else f"{name[:_SHOWN_NAME]} …"


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return True
    # safetensors and pyarrow wrap the operating system's error in their own.
    return "No space left on device" in str(error) or "os error 28" in str(error)


def _stop(message: str, code: int) -> None:
    from tinyllm.errors import printable
    from tinyllm.system.news import News

    message = printable(message)  # it may quote a server or a file
    typer.echo(News.wrapped(f"{'tinyllm' if code == 130 else 'Error'}: {message}", sys.stderr), err=True)
    sys.exit(code)
