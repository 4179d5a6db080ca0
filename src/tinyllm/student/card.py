"""The model card of a saved student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinyllm.config import (
    ANSWER_TASK,
    CHOICES_TASK,
    Config,
    TeacherConfig,
    prefixes_in_use,
    teacher_weights,
    teachers_in_use,
)
from tinyllm.questions.types import Question
from tinyllm.student.encode import question_text

_EXAMPLE = Question(
    "example", "What does a thermometer measure?", ("mass", "temperature", "length", "time"), answer=None
)


def model_card(config: Config, learnt: Mapping[str, Any], licence: str = "", results: str = "") -> str:
    """Return the README.md of a student: what it is, what it learnt from, how to ask it.

    Args:
        config: of the training. If it was chosen by `method: auto`, the chosen one.
        learnt: the figures of the training: `targets`, and `soft` and `chosen` if there are any.
        licence: its identifier on the hub, as `apache-2.0`; empty: none is stated.
        results: how good it is, in Markdown; empty: that is not known yet.
    """
    stated = f"license: {licence}\n" if licence else ""
    measured = results or "`metrics.json` of its run says it, if it was evaluated."
    targets = learnt.get("targets", {})
    writes = [t for t in config.teachers if targets.get(t.name)]
    prefixes = prefixes_in_use(config)
    table = "\n".join(f"| `{task}` | `{prefixes[task]}` |" for task in (ANSWER_TASK, *(t.name for t in writes)))
    choices = " ".join(f"-c {choice}" for choice in _EXAMPLE.choices)
    sources = "\n\n".join(_sources(config, learnt, writes))
    asked = "".join(question_text(_EXAMPLE, config.student.layout)).rstrip()
    own = " Its rationales\nare learnt text: they may be wrong while the answer is right, and the other way round."
    return f"""---
library_name: transformers
base_model: {config.student.model}
{stated}tags: [tinyllm, distillation, multiple-choice]
---

# {config.name}

A student that answers multiple-choice questions, trained with TinyLLM by the method `{config.train.method}`
(preset `{config.preset}`, {config.student.adapter} weights) from `{config.student.model}`.

{sources}

## How good it is

{measured}

## How to ask it

    tinyllm ask FOLDER "{_EXAMPLE.question}" {choices}{" --explain" if writes else ""}

Or load it with plain `transformers` (`from_pretrained`). {_expects(config)}

```
{asked}
```

A prefix tells it what to do. It stands before the text (encoder-decoder) or on the line after it (causal).
`tinyllm.json` has {"them" if writes else "it"}, too:

| task | prefix |
|---|---|
{table}

## Limits

On questions unlike those of its evaluation, it may be worse.{own if writes else ""}
The licences of the base model, of the teachers' outputs and of the questions apply.
"""


def _sources(config: Config, learnt: Mapping[str, Any], writes: list[TeacherConfig]) -> Iterator[str]:
    """Yield paragraphs about the settings that were chosen, the answers, the opinions and the rationales."""
    if chosen := learnt.get("chosen"):
        yield f"`train.method: auto` chose these settings on validation questions: {chosen['name']}."
    targets, weights = learnt.get("targets", {}), teacher_weights(config)
    yield f"It learnt {_answers(targets)}."
    yield from _opinions(config, learnt.get("soft") or {})
    if writes:
        listed = (f"- {_named(t)}, α = {weights[t.name]}, {targets[t.name]} rationales" for t in writes)
        yield "\n".join(["It also learnt rationales, from these teachers:", "", *listed])
    elif config.train.rationales == "input" and (read := teachers_in_use(config)):
        listed = (f"- {_named(t)}" for t in read)
        yield "\n".join(["It read rationales with the questions, but does not write any. The teachers:", "", *listed])
    else:
        yield "It learnt no rationales, so it does not explain its answers."


def _opinions(config: Config, soft: Mapping[str, Any]) -> Iterator[str]:
    section, guessed = config.train.soft, soft.get("learnt_without_answer", 0)
    mixed = section is not None and 0 < section.weight < 1 and config.train.answer != "text"
    said = [f"the targets of {guessed} questions without an answer"] if guessed else []
    said += ["part of the target of questions with an answer"] if mixed else []
    if soft and said:
        used = [t for t in config.teachers if soft["weights"].get(t.name)]
        listed = (f"- {_named(t)}, weight {soft['weights'][t.name]:g}" for t in used)
        yield "\n".join([f"These teachers' opinions gave it {' and '.join(said)}:", "", *listed])


def _named(teacher: TeacherConfig) -> str:
    model = getattr(teacher, "model", "")
    return f"`{teacher.name}` ({teacher.kind}{f', {model}' if model else ''})"


def _expects(config: Config) -> str:
    first = "It writes a rationale before it answers. " if config.train.rationales == "before" else ""
    if config.student.layout == "cloze":
        return (
            f"{first}Its prompt has the question without its choices. The\nanswer is the choice that is most likely to "
            "follow:"
        )
    return f"{first}Its prompt has the question and its choices:"


def _answers(targets: Mapping[str, int]) -> str:
    compared, written = targets.get(CHOICES_TASK, 0), targets.get(ANSWER_TASK, 0)
    if not compared:
        return f"{written} answers"
    return f"{compared} answers by comparing the choices{' and by writing the right one' if written else ''}"
