"""The methods of an experiment by name. A method is a mixture with what is trained, as a patch of a configuration.

To add one, write a function that makes `MethodSpec`s from the teachers, and give it a name in `METHODS`. A new mixture
goes to `student/mixture.py` first.
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
        like: the known method that it is based on.
        patch: settings that replace those of the dataset and the student.
        teachers: the teachers whose rationales it learns from. The others get a weight of 0.
        trains: False for a method that is only evaluated. It has no seeds, and nothing is tuned.
        asks: the teacher that answers the test questions itself, if the method is a teacher.
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
"""The section `teachers` of a configuration."""


def named(teachers: Teachers) -> tuple[str, ...]:
    """Return the names of the teachers that write rationales."""
    return tuple(str(t.get("name")) for t in teachers if t.get("kind") != "student")


def _mixture(
    method: Method, label: str, kind: Kind, *, name: str = "", **more: Any
) -> Callable[[Teachers], list[MethodSpec]]:
    patch = {"train": {"method": method}, **more}
    return lambda teachers: [MethodSpec(name or method, name or method, label, kind, patch, named(teachers))]


def _without_rationales(
    name: str, label: str, kind: Kind, *, trains: bool = True, **student: str
) -> Callable[[Teachers], list[MethodSpec]]:
    patch = {"train": {"method": "fine-tuning"}, **({"student": student} if student else {})}
    return lambda _: [MethodSpec(name, name, label, kind, patch, trains=trains)]


def _step_by_step(teachers: Teachers) -> list[MethodSpec]:
    return [
        MethodSpec(
            f"step-by-step:{t}",
            "step-by-step", f"Step-by-step ({t})", "method",
            {"train": {"method": "step-by-step", "teacher": t}}, (t,),
        )
        for t in named(teachers)
    ]  # fmt: skip


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


_LOADED_HERE = ("transformers", "llamacpp")


def _teachers(teachers: Teachers) -> list[MethodSpec]:
    """Return the teachers as methods. Where weights are loaded here, a teacher is scored like a student.

    Any other teacher writes its answer, without seeing the right one.
    """
    specs = []
    for teacher in (t for t in teachers if "model" in t and "name" in t):
        name = str(teacher["name"])
        patch: dict[str, Any] = {
            "train": {"method": "fine-tuning"},
            "student": {"model": teacher["model"], "revision": teacher.get("revision"), "adapter": "full"},
        }
        is_scored = teacher.get("kind") in _LOADED_HERE
        if not is_scored:
            patch = {
                "train": {"method": "step-by-step", "teacher": name},
                "rationales": {
                    "teacher_forcing": False, "temperature": 0.0, "samples": 1, "checks": [], "repair": False,
                    "examples": {"strategy": "none"},
                },
            }  # fmt: skip
        asks = None if is_scored else name
        specs.append(
            MethodSpec(f"teachers:{name}", "teachers", f"Teacher {name}", "reference", patch, trains=False, asks=asks)
        )
    return specs


METHODS: Mapping[str, Callable[[Teachers], list[MethodSpec]]] = {
    "teachers": _teachers,
    "inference": _without_rationales("inference", "Inference", "reference", trains=False),
    "lora": _without_rationales("lora", "LoRA", "method", adapter="lora"),
    "fine-tuning": _without_rationales("fine-tuning", "Fine-tuning", "method"),
    "step-by-step": _step_by_step,
    "tinyllm": _mixture("tinyllm", "TinyLLM", "method"),
    "tinyllm-without-examples": _mixture(
        "tinyllm",
        "TinyLLM − in-context examples",
        "ablation",
        name="tinyllm-without-examples",
        rationales={"examples": {"strategy": "none"}},
    ),
    "tinyllm-without": _without_teacher,
    "one-random": _mixture("one-random", "One at random", "router"),
    "shortest": _mixture("shortest", "The shortest", "router"),
    "similarity": _mixture("similarity", "The nearest (tf-idf)", "router"),
    "student-likelihood": _mixture("student-likelihood", "The likeliest to the student", "router"),
    "auto": _mixture("auto", "Chosen on validation", "method"),
    "shuffled": _mixture("shuffled", "Shuffled rationales", "control"),
    "keywords": _mixture("keywords", "Content words only", "control"),
}
"""Returns the methods of a name for the teachers of a dataset. `step-by-step`, for example, is one for each teacher."""
