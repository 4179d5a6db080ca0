"""The methods of an experiment by name: each a mixture and what is trained, as a patch of a run's configuration.

To add one, write a function from the names of the teachers to `MethodSpec`s and give it a name in `_METHODS`; a new
mixture goes to `student/mixture.py` first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyllm.comparison.outline import Kind
from tinyllm.config import Method


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A method on one dataset.

    Attributes:
        like: the known name that it goes back to.
        patch: laid over the configuration of the dataset and the student.
        teachers: whose rationales it learns from; the weights of the others are set to 0.
        trains: False for what is only evaluated; it has no seeds, and nothing is tuned.
        asks: name of the teacher that is itself asked the test questions, where that is what it is about.
    """

    id: str
    like: str
    label: str
    kind: Kind
    patch: Mapping[str, Any] = field(default_factory=dict)
    teachers: tuple[str, ...] = ()
    trains: bool = True
    asks: str | None = None


Teachers = Sequence[Mapping[str, Any]]
"""The section `teachers` of a configuration, as it is written."""


def expand(name: str, teachers: Teachers) -> list[MethodSpec]:
    """Return the methods that a name stands for, given the teachers of a dataset: `step-by-step` is one a teacher.

    Raises:
        KeyError: there is no such method.
    """
    return _METHODS[name](teachers)


def named(teachers: Teachers) -> tuple[str, ...]:
    """Return the names of the teachers that write rationales."""
    return tuple(str(t.get("name")) for t in teachers if t.get("kind") != "student")


def names() -> tuple[str, ...]:
    """Return the names that `methods` may list."""
    return tuple(_METHODS)


def _mixture(method: Method, label: str, kind: Kind) -> Callable[[Teachers], list[MethodSpec]]:
    def specs(teachers: Teachers) -> list[MethodSpec]:
        return [MethodSpec(method, method, label, kind, {"train": {"method": method}}, named(teachers))]

    return specs


def _inference(teachers: Teachers) -> list[MethodSpec]:  # noqa: ARG001
    return [
        MethodSpec(
            "inference", "inference", "Inference", "reference", {"train": {"method": "fine-tuning"}}, trains=False
        )
    ]


def _lora(teachers: Teachers) -> list[MethodSpec]:  # noqa: ARG001
    patch = {"train": {"method": "fine-tuning"}, "student": {"adapter": "lora"}}
    return [MethodSpec("lora", "lora", "LoRA", "method", patch)]


def _fine_tuning(teachers: Teachers) -> list[MethodSpec]:  # noqa: ARG001
    return [MethodSpec("fine-tuning", "fine-tuning", "Fine-tuning", "method", {"train": {"method": "fine-tuning"}})]


def _step_by_step(teachers: Teachers) -> list[MethodSpec]:
    return [
        MethodSpec(
            f"step-by-step:{t}",
            "step-by-step", f"Step-by-step ({t})", "method",
            {"train": {"method": "step-by-step", "teacher": t}}, (t,),
        )
        for t in named(teachers)
    ]  # fmt: skip


def _without_examples(teachers: Teachers) -> list[MethodSpec]:
    patch = {"train": {"method": "tinyllm"}, "rationales": {"examples": {"strategy": "none"}}}
    return [
        MethodSpec(
            "tinyllm-without-examples",
            "tinyllm-without-examples",
            "TinyLLM − in-context examples",
            "ablation",
            patch,
            named(teachers),
        )
    ]


def _without_teacher(teachers: Teachers) -> list[MethodSpec]:
    return [
        MethodSpec(
            f"tinyllm-without:{t}",
            "tinyllm-without", f"TinyLLM − {t}", "ablation",
            {"train": {"method": "tinyllm"}}, tuple(o for o in named(teachers) if o != t),
        )
        for t in named(teachers)
        if len(named(teachers)) > 1
    ]  # fmt: skip


def _teachers(teachers: Teachers) -> list[MethodSpec]:
    """Return the teachers themselves on the test questions: as a student, where their weights are loaded here; else in
    writing, without the answer in their prompt.
    """
    known = [t for t in teachers if "model" in t and "name" in t]
    return [_teacher_as_student(t) if t.get("kind") in _LOADED_HERE else _teacher_in_writing(t) for t in known]


_LOADED_HERE = ("transformers", "llamacpp")


def _teacher_as_student(teacher: Mapping[str, Any]) -> MethodSpec:
    student = {"model": teacher["model"], "revision": teacher.get("revision"), "adapter": "full"}
    patch = {"train": {"method": "fine-tuning"}, "student": student}
    name = str(teacher["name"])
    return MethodSpec(f"teachers:{name}", "teachers", f"Teacher {name}", "reference", patch, trains=False)


def _teacher_in_writing(teacher: Mapping[str, Any]) -> MethodSpec:
    name = str(teacher["name"])
    patch = {
        "train": {"method": "step-by-step", "teacher": name},
        "rationales": {
            "teacher_forcing": False, "temperature": 0.0, "samples": 1, "checks": [], "repair": False,
            "examples": {"strategy": "none"},
        },
    }  # fmt: skip
    return MethodSpec(f"teachers:{name}", "teachers", f"Teacher {name}", "reference", patch, trains=False, asks=name)


_METHODS: Mapping[str, Callable[[Teachers], list[MethodSpec]]] = {
    "teachers": _teachers,
    "inference": _inference,
    "lora": _lora,
    "fine-tuning": _fine_tuning,
    "step-by-step": _step_by_step,
    "tinyllm": _mixture("tinyllm", "TinyLLM", "method"),
    "tinyllm-without-examples": _without_examples,
    "tinyllm-without": _without_teacher,
    "one-random": _mixture("one-random", "One at random", "router"),
    "shortest": _mixture("shortest", "The shortest", "router"),
    "similarity": _mixture("similarity", "The nearest (tf-idf)", "router"),
    "student-likelihood": _mixture("student-likelihood", "The likeliest to the student", "router"),
    "shuffled": _mixture("shuffled", "Shuffled rationales", "control"),
    "keywords": _mixture("keywords", "Content words only", "control"),
}
