"""Teachers: sources of rationales behind one protocol (`base.Teacher`), one module a kind.

The table of kinds is closed. A kind's module is imported when a teacher of that kind is made, not before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tinyllm import config
from tinyllm.errors import TeacherError, TinyLLMError
from tinyllm.questions import Question
from tinyllm.teachers.base import Prompted, Teacher

__all__ = ["Prompted", "Teacher", "make_teacher"]


def find_problems(specs: Sequence[config.TeacherConfig], questions: Sequence[Question]) -> None:
    """Hold all teachers against this machine, without asking or starting any.

    Raises:
        TeacherError: files, packages or keys are missing; one message for all teachers.
    """
    problems = []
    for spec in specs:
        try:
            make_teacher(spec, questions)
        except TinyLLMError as error:
            problems.append(str(error))
        key = spec.api_key_env if isinstance(spec, config.OpenAITeacher) else None
        if key is not None and not os.environ.get(key):
            problems.append(
                f"Teacher '{spec.name}': the environment variable {key} is not set; put the key into it, or set "
                "`api_key_env` to the variable that holds it, or to null for a server that wants none."
            )
    if problems:
        raise TeacherError("\n".join(problems))


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
