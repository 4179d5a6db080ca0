"""Teachers: sources of rationales behind one protocol (`base.Teacher`), one module per kind.

Add a kind of teacher: a module here, a case in `make_teacher`, a section in `config/_teachers.py` that is in its
`TeacherConfig`, its export in `config/__init__.py`. If it gives opinions: `ways_of` of `config/_opinions.py`.

The module of a kind is imported only when a teacher of that kind is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tinyllm import config
from tinyllm.errors import TeacherError, TinyLLMError
from tinyllm.questions import Question
from tinyllm.teachers._secrets import KEYS_PAGE
from tinyllm.teachers.base import Prompted, Teacher

__all__ = ["Prompted", "Teacher", "make_teacher", "make_teachers"]


def make_teachers(
    specs: Sequence[config.TeacherConfig],
    questions: Sequence[Question],
    journal: Path | None = None,
    is_needed: Callable[[Teacher], bool] = lambda _: True,
    others: Callable[[config.TeacherConfig], Teacher | None] = lambda _: None,
    missing_keys: list[TinyLLMError] | None = None,
) -> list[Teacher]:
    """Make all teachers and check that nothing is missing, without starting any.

    Args:
        journal: folder in which a teacher may record batches at a provider.
        is_needed: called if something is missing; returns whether the teacher will be asked at all.
        others: makes the teachers that belong to other rooms.
        missing_keys: if given, missing keys are added to it and are no problem, because nobody is asked.

    Raises:
        TeacherError: files, packages, keys or devices are missing; one message for all teachers.
    """
    teachers: list[Teacher] = []
    problems: list[TinyLLMError] = []
    for spec in specs:
        try:
            teacher = others(spec) or make_teacher(spec, questions, journal)
            teachers.append(teacher)
            try:
                teacher.check()
            except TinyLLMError as error:
                if missing_keys is not None and error.page == KEYS_PAGE:
                    missing_keys.append(error)
                elif is_needed(teacher):
                    raise
        except TinyLLMError as error:
            problems.append(error)
    if problems:
        raise TeacherError("\n".join(map(str, problems)), page=problems[0].page)
    return teachers


def make_teacher(spec: config.TeacherConfig, questions: Sequence[Question], journal: Path | None = None) -> Teacher:
    """Make the teacher that a configuration describes. `async with` starts it.

    Args:
        questions: those that it will be asked; `given` and `scripted` answer from them.

    Raises:
        TeacherError: the teacher cannot work, for example because the model file is missing.
        MissingDependencyError: its model comes in a package that is not installed.
    """
    match spec:
        case config.OpenAITeacher():
            from tinyllm.teachers._openai import OpenAITeacher

            return OpenAITeacher(spec)
        case config.OpenAIBatchTeacher():
            from tinyllm.teachers._batch.teacher import OpenAIBatchTeacher

            if journal is None:
                raise TypeError("a teacher that asks in batches needs a folder for its journal")
            return OpenAIBatchTeacher(spec, journal)
        case config.LiteLLMTeacher():
            from tinyllm.teachers._litellm import LiteLLMTeacher

            return LiteLLMTeacher(spec)
        case config.LlamaCppTeacher():
            from tinyllm.teachers._llamacpp import LlamaCppTeacher

            return LlamaCppTeacher(spec)
        case config.VllmTeacher():
            from tinyllm.teachers._vllm import VllmTeacher

            return VllmTeacher(spec)
        case config.TransformersTeacher():
            from tinyllm.teachers._transformers import TransformersTeacher

            return TransformersTeacher(spec)
        case config.GivenTeacher():
            from tinyllm.teachers._given import GivenTeacher

            return GivenTeacher(spec, questions)
        case config.ScriptedTeacher():
            from tinyllm.teachers._scripted import ScriptedTeacher

            return ScriptedTeacher(spec.name, questions, spec.template)
        case config.StudentTeacher():
            raise TypeError("`scoring.teacher` makes the students that are asked as teachers")
