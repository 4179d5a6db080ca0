"""`tinyllm demo`: a student that learns from what teachers think, without an answer, in a few minutes.

It is the case of a person who has questions and no answers. The known answers are only used to calibrate the student's
probabilities, to weigh the teachers, and to score the student.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from tinyllm.config import Config, build_config, load_config
from tinyllm.errors import RunFolderError
from tinyllm.report import plural
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.run import run_all
from tinyllm.system.machine import peak_flops
from tinyllm.system.news import News

_RECORDED = "qwen-1.5b"  # its opinions come with the starter questions
_PASS = 6.2e12  # operations of one epoch over the 160 training questions with their choices
_REACHED = {"fp32": 0.8, "bf16": 0.4}  # share of a matrix product's speed that the small batches of the demo reach
_LIMIT_S = 300.0  # after the installation
_OTHER_S, _OTHER_PASSES = 25.0, 2.1  # imports and files; opinions of the small teacher and two evaluations, in epochs
_TEACHER_S = 520.0  # answers of the large teacher
_MOST, _MOST_OF_BEST = 3, 6  # epochs
_LONGEST_CHOICE = 24  # columns; with the bars of both teachers a line has 80
_SPACE_BYTES = 4_000_000_000  # two checkpoints with the optimizer's state, and the student


def run_demo(run: RunFolder, news: News, *, best: bool = False) -> tuple[Config, dict[str, Any], Path]:
    """Run the demo, or go on with it, and return its configuration, its metrics and its report.

    Args:
        best: let the 1.5B teacher answer now, in two orders of the choices, and train for longer.
    """
    if (begun := run.path / "config.yaml").is_file():
        config = load_config(begun)  # it goes on as it began, even if the machine is busier now
    else:
        with news.task("Measuring this machine"):  # PyTorch is imported, which takes seconds
            config, said = _fitted(best)
        for line in said:
            news.say(line)
    free = shutil.disk_usage(next(folder for folder in run.path.absolute().parents if folder.exists())).free
    if free < _SPACE_BYTES and not run.is_trained:
        raise RunFolderError(
            f"The demo needs {_SPACE_BYTES / 1e9:.0f} GB of disk for checkpoints while it trains, and {run.path} has "
            f"{free / 1e9:.1f} GB. Free some space, or name a folder on another disk with --run-dir."
        )
    with run.claimed(config, renews_rationales=True):
        outcome = run_all(config, run, news, lambda: _one_question(config, run))
    return config, outcome.metrics, outcome.report


def _fitted(best: bool) -> tuple[Config, tuple[str, ...]]:
    """Measure the machine for a second, and fit the demo to it. Return it with what is said to the person who waits."""
    speeds = {"fp32": peak_flops("fp32"), "bf16": peak_flops("bf16")}
    precision = "bf16" if speeds["bf16"] > 1.3 * speeds["fp32"] else "fp32"
    seconds = _PASS / (_REACHED[precision] * speeds[precision])
    fitting = int((_LIMIT_S - _OTHER_S) / seconds - _OTHER_PASSES)
    epochs = _MOST_OF_BEST if best else max(1, min(_MOST, fitting))
    loaded: dict[str, Any] = {"kind": "llamacpp", "context_tokens": 1024}
    large = {"model": "qwen2.5-coder-1.5b-instruct", **loaded} if best else {"kind": "given"}
    tree = {
        "name": "demo-best" if best else "demo",
        "data": {"dataset": "starter"},
        "teachers": [{"name": _RECORDED, **large}, {"name": "gemma3", "model": "gemma3-270m", **loaded}],
        "opinions": {
            "teachers": {_RECORDED: "letters" if best else "given", "gemma3": "letters"},
            "orders": 2 if best else 1,
            "splits": ["train", "valid"],
        },
        "student": {"model": "smollm2-135m-instruct", "layout": "cloze"},
        "train": {
            "method": "fine-tuning",
            "answer": "choices",
            "soft": {"weight": 1.0},
            "learning_rate": 1e-4,
            "epochs": epochs,
            "batch_size": 8,
            "max_input_tokens": 512,
            "precision": precision,
        },
        "evaluate": {"scorers": ["likelihood"], "precision": precision, "rationales": 0, "train_questions": 8},
    }
    asked = "answers now (1.1 GB of weights)" if best else "answered beforehand; its opinions come with the questions"
    training = epochs * seconds
    whole = training + _OTHER_PASSES * seconds + _OTHER_S + (_TEACHER_S if best else 0)
    minutes = plural(math.ceil(whole / 60), "minute")
    said = (
        "A student of 135 million parameters learns science and everyday questions from two teachers' opinions.",
        "It does not see the 160 training answers. 40 others weigh the teachers and calibrate its probabilities.",
        f"The teacher {_RECORDED} {asked}; gemma3 (270M) answers now.",
        f"On this machine it takes about {minutes}: {training:.0f} s for {plural(epochs, 'epoch')} in {precision}.",
    )
    return build_config(tree, source="the demo"), said


def _one_question(config: Config, run: RunFolder) -> tuple[str, ...]:
    """Return a training question with what each teacher thinks of its choices, as lines with bars."""
    from tinyllm.opinions.files import read_opinions
    from tinyllm.questions import load_splits

    opinions: dict[str, dict[str, tuple[float, ...]]] = {}
    for opinion in read_opinions(run.path, "train"):
        opinions.setdefault(opinion.question_id, {})[opinion.teacher] = opinion.probabilities
    train = load_splits(config.data).train
    question = next((q for q in train if len(opinions.get(q.id, {})) == len(config.teachers)), None)
    if question is None:
        return ()
    lines = [f"What the teachers think of one question: {question.question}"]
    width = min(_LONGEST_CHOICE, max(map(len, question.choices)))
    for place, choice in enumerate(question.choices):
        bars = [f"{name} {_bar(found[place])}" for name, found in sorted(opinions[question.id].items())]
        lines.append(f"  {choice[:width]:<{width}}  {'  '.join(bars)}")
    return tuple(lines)


def _bar(share: float, width: int = 10) -> str:
    filled = round(share * width)
    return f"{'█' * filled}{'░' * (width - filled)} {100 * share:3.0f} %"
