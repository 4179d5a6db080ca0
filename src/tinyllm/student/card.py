"""The model card that a saved student carries."""

from __future__ import annotations

from collections.abc import Mapping

from tinyllm.config import ANSWER_TASK, CHOICES_TASK, Config, prefixes_in_use, teacher_weights, teachers_in_use


def model_card(config: Config, targets: Mapping[str, int], licence: str = "", results: str = "") -> str:
    """Return the README.md of a student: what it is, what it learnt from, how to ask it.

    Args:
        licence: its identifier on the hub, as `apache-2.0`; empty: none is stated.
        results: how good it is, in Markdown; empty: that is not known yet.
    """
    stated = f"license: {licence}\n" if licence else ""
    measured = f"## How good it is\n\n{results}\n\n" if results else ""
    good = "`metrics.json` of its run says" if not results else "the table above says"
    weights = teacher_weights(config)
    teachers = "\n".join(
        f"- `{t.name}` ({t.kind}{', ' + t.model if hasattr(t, 'model') else ''}), α = {weights[t.name]}, "
        f"{targets.get(t.name, 0)} rationales"
        for t in teachers_in_use(config)
    )
    table = "\n".join(f"| `{task}` | `{prefix}` |" for task, prefix in prefixes_in_use(config).items())
    return f"""---
library_name: transformers
base_model: {config.student.model}
{stated}tags: [tinyllm, distillation, multiple-choice]
---

# {config.name}

A student that answers multiple-choice questions, trained with TinyLLM by the method `{config.train.method}`
(preset `{config.preset}`, {config.student.adapter} weights) from `{config.student.model}`.

It learnt {_answers(targets)} and, from each teacher, rationales:

{teachers or "(none)"}

{measured}## How to ask it

    tinyllm ask FOLDER "What does a thermometer measure?" -c mass -c temperature -c length -c time --explain

Or load it with plain `transformers` (`from_pretrained`). It expects the question, its choices and one of these
prefixes, before the text (encoder-decoder) or after it (causal); `tinyllm.json` has them too:

| task | prefix |
|---|---|
{table}

## Limits

It is as good as {good}, on questions like its test questions, and not better. Its rationales
are learnt text: they may be wrong while the answer is right, and the other way round. The licences of the base model,
of the teachers' outputs and of the questions apply.
"""


def _answers(targets: Mapping[str, int]) -> str:
    compared, written = targets.get(CHOICES_TASK, 0), targets.get(ANSWER_TASK, 0)
    if not compared:
        return f"{written} answers"
    return f"{compared} answers by comparing the choices{' and by writing the right one' if written else ''}"
