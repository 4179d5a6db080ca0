"""What is printed at the end of a run: what training changed, and what to try next."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyllm.config import Config
    from tinyllm.stages.folder import RunFolder

_FEW = 100  # questions; with fewer, the interval is about 20 points wide
_SHOWN_P = 0.05
_HELPED = "docs/experiments.md shows how to test whether the teachers helped: an experiment to copy, and its command"
_UNSCORED = "to see how good it is: answer 100 questions or more yourself, and give them as data.test"
_PLOT_WIDTH, _NARROW = 50, 80  # characters


def ending_text(figures: dict[str, Any], config: Config, folder: RunFolder, page: Path) -> str:
    """Return what `tinyllm run` and `tinyllm demo` print at their end."""
    return accuracy_text(figures, config) + _next_steps(folder, page, config, is_scored=bool(figures.get("accuracy")))


def best_demo_text(figures: Mapping[str, Any]) -> str:
    """Name the longer demo where this one shows no gain."""
    if any(of["p"] < _SHOWN_P for of in (figures.get("gain") or {}).values()):
        return ""
    return (
        "\n  make demo-best   # the large teacher answers here, and the student learns for longer:"
        "\n      # 1.1 GB to download, and about eleven minutes"
    )


def accuracy_text(figures: dict[str, Any], config: Config) -> str:
    """Say in a sentence what training changed, draw it, and give the figures of every scorer."""
    from tinyllm.report import scorers, verdict_in_words

    if not figures.get("accuracy"):
        return "The student is trained. No test question has an answer, so it is not scored."
    before, after, gains = (figures.get(key) or {} for key in ("before", "accuracy", "gain"))
    labels = scorers(by_token=config.student.layout == "cloze")
    names = [s for s in labels if s in after]
    if not names:
        return "The student is trained, and nothing was scored."
    first, trained = names[0], figures.get("train") or {}
    n = max(found["n"] for found in after.values())
    rows = [(when, of[first]) for when, of in (("before", before), ("after", after)) if first in of]
    lines = [
        verdict_in_words(figures, first, labels[first]),
        *_interval_plot(rows, _to_beat(figures["majority"], figures["chance"])),
        *(
            f"  {labels[name].lower()}: {_share_text(before.get(name))} → {_share_text(after[name])}"
            + (f", p = {gains[name]['p']:.2g}" if name in gains else "")
            for name in names
        ),
    ]
    if len(names) > 1:
        reason = f"the student sees {'no' if config.student.layout == 'cloze' else 'the'} list of choices"
        lines.append(
            f"  The first way to score counts: it was set before training ({reason}). The others are shown beside it."
        )
    if "generation" in names and config.student.layout == "cloze":
        lines.append("  It ranks choices that it is not shown, so an answer that it writes is rarely one of them.")
    lines += _chosen_text(trained, may_explain=config.train.alpha != 0)
    return "\n".join([*lines, *few_text(n)])


def few_text(test_questions: int) -> list[str]:
    """Say that a test of few questions shows little."""
    if test_questions >= _FEW:
        return []
    words = f"{test_questions} test question{'s' if test_questions > 1 else ''}"
    return [f"  {words} only show{'' if test_questions > 1 else 's'} large changes; add some (data.test, data.cut)"]


def _to_beat(majority: float, chance: float) -> dict[str, float]:
    """Return the accuracies that need no knowledge. A majority of training that is rarer in the test says nothing."""
    return ({"majority class": majority} if majority >= chance else {}) | {"chance": chance}


def _chosen_text(trained: Mapping[str, Any], *, may_explain: bool) -> list[str]:
    """Say what `method: auto` chose, and whether the student learnt rationales then."""
    chosen = trained.get("chosen")
    if not chosen:
        return []
    lines = [f"  auto chose on validation questions: {chosen['name']}"]
    if may_explain and all(task.startswith("answer") for task in trained.get("targets", ())):
        lines.append("  So the student learnt no rationales and cannot explain; `train.method: tinyllm` learns them.")
    return lines


def _interval_plot(rows: Sequence[tuple[str, Mapping[str, Any]]], marks: Mapping[str, float]) -> list[str]:
    """Draw accuracies with their 95 % intervals, one a line, and the accuracies to compare with below."""
    ends = [end for _, found in rows for end in found["ci95"]] + list(marks.values())
    low, high = min(ends), max(ends)

    def place(share: float) -> int:
        return round((_PLOT_WIDTH - 1) * (share - low) / (high - low)) if high > low else 0

    lines = []
    for label, found in rows:
        start, value, end = (place(share) for share in (found["ci95"][0], found["value"], found["ci95"][1]))
        bar = "├" + "─" * (end - start - 1) + "┤" if end > start else ""
        drawn = list(" " * start + bar + " " * (_PLOT_WIDTH - end - 1))
        drawn[value : value + 1] = "●"
        lines.append(f"  {label:<15}{''.join(drawn):<{_PLOT_WIDTH}}  {100 * found['value']:.1f} %")
    for label, share in marks.items():
        lines.append(f"  {label:<15}{' ' * place(share) + '│':<{_PLOT_WIDTH}}  {100 * share:.1f} %")
    return lines


def _share_text(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "—"
    low, high = found["ci95"]
    counted = "".join(f", {found[what]} {what}" for what in ("ties", "unparsed") if found.get(what))
    return f"{100 * found['value']:.1f} % ({100 * low:.1f}–{100 * high:.1f}{counted})"


def _next_steps(folder: RunFolder, page: Path, config: Config, *, is_scored: bool) -> str:
    explain = " --explain" if config.train.method not in ("fine-tuning", "auto") else ""
    activate = Path(sys.executable).with_name("activate")
    is_known = shutil.which("tinyllm") is not None or not activate.is_file()
    return (
        f"\n\nReport: {page.resolve()}\n"
        f"What to try next{'' if is_known else f' (first: source {shlex.quote(os.path.relpath(activate))})'}:\n"
        "  open the report in a browser: the student's answers, the teachers, the training\n"
        f'  tinyllm ask {folder.path} "A question?" -c "one choice" -c another{explain}\n'
        f"{_own_questions(config, folder)}\n  {_HELPED if is_scored else _UNSCORED}"
    )


def _own_questions(config: Config, folder: RunFolder) -> str:
    if config.data.dataset == "starter":
        return _explained("tinyllm init FILE", "writes a configuration for your own questions")
    first, *others = _exports(folder.student)
    commands = {
        f"predict {folder.path} FILE -o answers.xlsx": "answers every question of a file",
        f"serve {folder.path}": "a page to ask, and an API",
        f"export {folder.path} --to {first}": f"for another program; also {', '.join(others)}",
    }
    return "\n".join(_explained(f"tinyllm {command}", what) for command, what in commands.items())


def _explained(command: str, what: str) -> str:
    """Return a command with what it does: behind it if that fits into 80 columns, or else below."""
    line = f"  {command}   # {what}"
    return line if len(line) <= _NARROW else f"  {command}\n      # {what}"


def _exports(student: Path) -> tuple[str, ...]:
    """Return the formats that a student can be written to."""
    try:
        is_t5 = json.loads((student / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder", False)
    except (OSError, ValueError):
        is_t5 = False
    return ("ctranslate2", "onnx", "openvino", "merged") if is_t5 else ("gguf", "onnx", "openvino", "merged")


def export_text(figures: dict[str, Any]) -> str:
    """Return the accuracy of an export, beside that of the student that it was made of."""
    of, own, change = figures["accuracy"], figures["run"], figures["change"]
    lines = [
        f"Accuracy on {of['n']} test questions, with its 95 % interval, by {figures['runtime']}: {_share_text(of)}"
    ]
    if own is None:
        return "\n".join(
            [*lines, "The run was not evaluated on these questions, so there is nothing to compare it with."]
        )
    return "\n".join([
        *lines,
        f"  the run's own student, in {figures['run_precision']}: {_share_text(own)} on {own['n']} of them",
        f"  changed: {change['fixed']} now right, {change['broken']} now wrong (p = {change['p']:.2g}, paired)",
    ])  # fmt: skip
