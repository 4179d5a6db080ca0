"""The exceptions that TinyLLM raises on purpose.

    TinyLLMError                 the person can mend it: one message, exit code 2, no traceback
    ├── ConfigError              the configuration: every problem in one message
    ├── DataError                a questions file: path, line and remedy of every bad row
    ├── TeacherError             a teacher that cannot answer at all (endpoint, key, model)
    ├── StudentError             a student that cannot be loaded, trained or saved
    │   └── NonFiniteLossError   training met a loss that is not a number
    ├── MissingDependencyError   an optional package is not installed; names the command that installs it
    └── RunFolderError           a run folder that is in use, incomplete, or of another configuration

Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TinyLLMError(Exception):
    """A mistake that the person who runs TinyLLM can mend; the message says how."""


class ConfigError(TinyLLMError):
    """The configuration is wrong. The message lists all problems found, not only the first."""


class DataError(TinyLLMError):
    """A questions file is missing, unreadable, or holds rows that are not questions."""


class TeacherError(TinyLLMError):
    """A teacher can answer nothing more: no such endpoint, key or model."""


class StudentError(TinyLLMError):
    """A student cannot be loaded, trained or saved as asked."""


class NonFiniteLossError(StudentError):
    """The training loss became infinite or not a number."""


class MissingDependencyError(TinyLLMError):
    """An optional package is needed for what was asked and is not installed."""


class RunFolderError(TinyLLMError):
    """A run folder is locked by another process, incomplete, or belongs to another configuration."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
