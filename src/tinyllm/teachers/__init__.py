"""Teachers: sources of rationales behind one protocol (`base.Teacher`), one module a kind.

The table of kinds is closed. A kind's module is imported when a teacher of that kind is made, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from tinyllm import config
from tinyllm.config import Form
from tinyllm.questions import Question
from tinyllm.teachers.base import Teacher

__all__ = ["Prompted", "Teacher", "make_teacher"]


@runtime_checkable
class Prompted(Protocol):
    """What a teacher that reads its prompt says about it. A teacher without these is asked by question alone.

    Attributes:
        form: chat messages, or one plain text to complete.
        stop: stop sequences of a plain text; a chat ends by itself.
    """

    @property
    def form(self) -> Form:
        """Which form of prompt it reads."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Where a completion ends."""
        ...


def make_teacher(spec: config.TeacherConfig, questions: Sequence[Question]) -> Teacher:
    """Make the teacher that a configuration describes; entering it (`async with`) starts it.

    Args:
        questions: those it will be asked about; `given` and `scripted` answer from them.

    Raises:
        TeacherError: it can be told already that this teacher cannot work (no such model file).
        MissingDependencyError: its model comes in a package that is not installed.
    """
    match spec:
        case config.OpenAITeacher():
            from tinyllm.teachers.openai import OpenAITeacher

            return OpenAITeacher(spec)
        case config.LlamaCppTeacher():
            from tinyllm.teachers.llamacpp import LlamaCppTeacher

            return LlamaCppTeacher(spec)
        case config.TransformersTeacher():
            from tinyllm.teachers.transformers import TransformersTeacher

            return TransformersTeacher(spec)
        case config.GivenTeacher():
            from tinyllm.teachers.given import GivenTeacher

            return GivenTeacher(spec, questions)
        case config.ScriptedTeacher():
            from tinyllm.teachers.scripted import ScriptedTeacher

            return ScriptedTeacher(spec.name, questions, spec.template)
