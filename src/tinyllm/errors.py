"""Errors: the exceptions that TinyLLM raises on purpose.

    TinyLLMError                 the person can mend it: one message, exit code 2, no traceback
    ├── ConfigError              the configuration: every problem in one message
    ├── DataError                a questions file: path, line and remedy of every bad row
    ├── TeacherError             a teacher that cannot answer at all (endpoint, key, model)
    ├── StudentError             a student that cannot be loaded, trained or saved
    │   └── NonFiniteLossError   a loss or a score that is not a number
    ├── MissingDependencyError   an optional package is not installed; names the command that installs it
    └── RunFolderError           a run folder that is missing, in use, incomplete, or of another configuration

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

# A payload of a terminal's string sequence ends at the next control, so the time is linear in the length of the text.
_TERMINAL_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, moving the cursor, clearing the screen
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, …: titles, links
    r"|\x1b[ -/]*[0-~]"  # the other escape sequences
)
_OF_STUDENTS = ("tinyllm.json", "student", "config.yaml")  # files of a student, an export or a run
_LISTED = 10
_LINE_BREAK = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class TinyLLMError(Exception):
    """A mistake that the person who runs TinyLLM can mend; the message says how.

    Args:
        page: a page below `docs`, and a heading of it, that helps (`teachers.md#keys`). The command line prints its
            address after the message.
    """

    def __init__(self, message: str = "", *, page: str = "") -> None:
        super().__init__(message)
        self.page = page


class ConfigError(TinyLLMError):
    """The configuration is wrong. The message lists all problems found, not only the first."""


class DataError(TinyLLMError):
    """A questions file is missing, unreadable, or holds rows that are not questions."""


class TeacherError(TinyLLMError):
    """A teacher can answer nothing more: no such endpoint, key or model."""


class StudentError(TinyLLMError):
    """A student cannot be loaded, trained or saved as asked."""


class NonFiniteLossError(StudentError):
    """A loss, or the score of a choice, is infinite or not a number."""


class MissingDependencyError(TinyLLMError):
    """An optional package is needed for what was asked and is not installed."""


class RunFolderError(TinyLLMError):
    """A run folder is missing, locked by another process, incomplete, or belongs to another configuration."""

    @classmethod
    def check(cls, folder: Path) -> None:
        """Check that the folder of a student is there. The message names the runs beside it, or in it.

        Raises:
            RunFolderError: it is not there, or it has runs in place of a student.
        """
        inside = folder.is_dir() and not any((folder / name).exists() for name in _OF_STUDENTS)
        within = folder if inside else folder.parent
        runs = sorted(str(f.parent) for f in within.glob("*/config.yaml"))
        if folder.is_dir() and not (inside and runs):
            return
        if not runs and within == Path():  # a name alone: where `run` makes its folders
            within = Path("runs")
            runs = sorted(str(f.parent) for f in within.glob("*/config.yaml"))
        names = {Path(run).name: run for run in runs}
        near = difflib.get_close_matches(folder.name, names, n=1)
        meant = f" Did you mean '{names[near[0]]}'?" if near else ""
        listed = ", ".join(runs[:_LISTED]) + (", …" if len(runs) > _LISTED else "")
        there = f" Runs in {within}: {listed}." if runs else " `tinyllm run CONFIG` makes one."
        what = "holds no student itself." if inside else f"is not there.{meant}"
        if folder.is_file():
            raise cls(
                f"{folder} is a file. The folder of a run, of its student, or of an export is needed here.{there}"
            )
        raise cls(f"The folder {folder} {what}{there} Give the folder of a run, of its student, or of an export.")


def printable(text: str) -> str:
    """Return foreign text (of a server, a log, a file) so that it can stand in a message, a log or a page.

    Terminal sequences, control characters and marks that change the direction of writing are removed: they could
    hide or rewrite what stands around them. Tabs stay; line breaks of every kind become `\\n`; half a surrogate pair,
    which cannot be printed, becomes `\ufffd`.
    """
    text = _LINE_BREAK.sub("\n", _TERMINAL_SEQUENCE.sub("", text))
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not blank; its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
