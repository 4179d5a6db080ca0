"""Every architecture of transformers that a configuration can build offline, held against its own plain forward.

    python -m benchmarks.architectures            all of them, in two processes
    python -m benchmarks.architectures llama t5   some of them

Each gets a tiny model with short windows, and rows that are longer. The verdict is `equal` (rows packed or padded
together), `own rows` (each row alone) or `refused`; and it is `wrong` where losses, gradients or written tokens are
not those of plain rows, in any company and under any budget of tokens.
"""

from __future__ import annotations

import argparse
import inspect
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.common import RESULTS, ROOT

PAGE = ROOT / "docs" / "architectures.md"
_SECONDS = 150  # that one architecture may take
_PROCESSES = 2
_LONGEST = 80  # tokens of the longest row

# What a type is tried with besides: settings of well-known models that change what is computed.
VARIANTS: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("causal", "llama", "dynamic RoPE", {"max_position_embeddings": 24, "rope_parameters": {
        "rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ("causal", "phi3", "long RoPE", {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 24}}),
    ("causal", "phimoe", "long RoPE", {"rope_parameters": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 24, "short_mscale": 1.0, "long_mscale": 1.2}}),
    ("causal", "roberta", "is_decoder", {"is_decoder": True}),
    ("causal", "bert", "is_decoder", {"is_decoder": True}),
    ("causal", "qwen2", "sliding window", {"use_sliding_window": True, "sliding_window": 12, "max_window_layers": 0}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one architecture.

    Attributes:
        verdict: `equal`, `own rows`, `refused`, `wrong` or `not built`.
        way: how rows are computed.
        writes: beside which prompts it writes as alone.
        reason: of a refusal, of a failure, or what differs.
    """

    kind: str
    name: str
    variant: str
    verdict: str
    way: str = ""
    writes: str = ""
    reason: str = ""
    seconds: float = 0.0


def examined(kind: str, name: str, variant: str = "", overrides: Mapping[str, Any] | None = None) -> Verdict:
    """Build one architecture and hold it against its plain rows."""
    from benchmarks.tiny import tiny_architecture
    from tinyllm.errors import StudentError
    from tinyllm.student.learner import Learner

    try:
        model = tiny_architecture(name, kind, overrides)
    except Exception as error:  # noqa: BLE001 -- whatever a configuration that fits no model raises
        return Verdict(kind, name, variant, "not built", reason=_why(name, error))
    learner = Learner(model, pad=0)
    try:
        learner.verify(_LONGEST)
    except StudentError as error:
        if error.__cause__ is not None and not _reads(learner, 4):  # its own plain forward fails, as tiny as it is
            return Verdict(kind, name, variant, "not built", reason=_why(name, error.__cause__))
        return Verdict(kind, name, variant, "refused", reason=re.split(r", so | Choose ", _line(error))[0])
    way = learner.way
    wrong = [w for w in (_wrong_losses(learner), _wrong_limit(learner)) if w]
    writes, wrong_text = _writing(model)
    wrong += [wrong_text] if wrong_text else []
    described = (
        "own rows"
        if way.alone
        else f"{'packed' if way.packed else 'padded'}"
        + (", shared prompts" if way.share_prompt and kind == "causal" else "")
    )
    verdict = "wrong" if wrong else ("own rows" if way.alone else "equal")
    return Verdict(kind, name, variant, verdict, described, writes, "; ".join(wrong))


# What cannot be built, and reads no text alone, in plain words beside the error of transformers.
_NOT_BUILT = {
    "gemma3n": "its part for images needs timm, which is not installed",
    "gemma4_assistant": "an assistant, which reads the states of another model",
    "gemma4_unified_assistant": "an assistant, which reads the states of another model",
    "musicgen": "reads and writes codes of audio",
    "musicgen_melody": "reads and writes codes of audio",
    "voxtral_realtime": "reads no text without audio",
}


def _why(name: str, error: BaseException) -> str:
    return ": ".join([*([_NOT_BUILT[name]] if name in _NOT_BUILT else []), _line(error)])


def _rows(learner: Any, count: int = 6) -> list[Any]:
    from tinyllm.student._probe import plain_tokens
    from tinyllm.student.encode import Branch, Row

    draw = random.Random(7)
    usable = plain_tokens(learner.student)

    def some(n: int) -> tuple[int, ...]:
        return tuple(draw.choices(usable, k=n))

    rows = []
    for number, prompt in enumerate((2, 40, 9, 61, 25, 14)[:count]):
        branches = [Branch(str(i), some(draw.randint(0, 3)), some(draw.choice((1, 3, 6, 14)))) for i in range(3)]
        if learner.is_encoder_decoder:
            branches = [Branch(b.task, (), b.target) for b in branches]
        row = Row(str(number), some(prompt), tuple(branches))
        rows += row.apart() if learner.is_encoder_decoder or not learner.share_prompt else [row]
    return rows


def _wrong_losses(learner: Any) -> str:
    """Say what of losses and gradients is not that of plain rows; empty if all is."""
    import torch

    from tinyllm.student._probe import without_noise
    from tinyllm.student.plan import cut

    rows = _rows(learner)
    weights = [tuple(1 / (1 + len(b.target)) for b in row.branches) for row in rows]
    parameters = [p for p in learner.parameters() if p.requires_grad]
    random_in_training = type(learner.student).__name__ in _DRAW
    learner.train(not random_in_training)
    with without_noise(learner):
        expected, plain = _plain(learner, rows, weights)
        gradients = torch.autograd.grad(plain, parameters, allow_unused=True)
        norm = torch.stack([g.norm() for g in gradients if g is not None]).norm()
        for budget in (4096, 150, 16):
            shuffled = list(range(len(rows)))
            random.Random(budget).shuffle(shuffled)
            micros = cut([rows[i] for i in shuffled], [weights[i] for i in shuffled], learner.shape(budget))
            total = [torch.zeros_like(p) for p in parameters]
            for micro in micros:
                loss, each = learner(learner.collate(micro, ()))
                for sum_, g in zip(total, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                    if g is not None:
                        sum_ += g
                start = 0
                for row in micro.rows:
                    for branch in row.branches:
                        found = float(each[start : start + len(branch.target)].sum())
                        start += len(branch.target)
                        wanted = expected[row.question_id, branch.task]
                        if abs(found - wanted) > 2e-4 * len(branch.target) * max(1.0, wanted / len(branch.target)):
                            return f"loss with {budget} tokens a batch: {found:.5f}, alone {wanted:.5f}"
            for found_g, g in zip(total, gradients, strict=True):
                wanted_g = torch.zeros_like(found_g) if g is None else g
                if (found_g - wanted_g).norm() > 2e-3 * (wanted_g.norm() + 1e-2 * norm):
                    return f"gradient with {budget} tokens a batch"
    learner.eval()
    with torch.no_grad():
        expected, _ = _plain(learner, rows, weights)
        for row in rows:  # each alone
            _, each = learner(learner.collate(cut([row], [weights[0]], learner.shape(4096))[0], ()))
            start = 0
            for branch in row.branches:
                found = float(each[start : start + len(branch.target)].sum())
                start += len(branch.target)
                if abs(found - expected[row.question_id, branch.task]) > 2e-4 * len(branch.target):
                    return "score of a row alone"
    return ""


_DRAW = ("PhimoeForCausalLM", "NllbMoeForConditionalGeneration")  # their routers draw while they train


def _plain(learner: Any, rows: Sequence[Any], weights: Sequence[tuple[float, ...]]) -> tuple[dict[Any, float], Any]:
    """Return the cross-entropy of every branch by the model's own forward, and their weighted sum."""
    import torch
    from torch.nn import functional

    from tinyllm.student._positions import forget_lengths
    from tinyllm.student._ways import ALONE, decoder_start

    way, uncached = learner.way, _uncached(learner.student)
    learner.take(ALONE)  # with the model's own attention
    found: dict[Any, float] = {}
    total = torch.zeros(())
    for row, of_row in zip(rows, weights, strict=True):
        for branch, weight in zip(row.branches, of_row, strict=True):
            labels = torch.tensor(branch.target)
            forget_lengths(learner.student)
            if learner.is_encoder_decoder:
                fed = torch.tensor([[decoder_start(learner.student), *branch.target[:-1]]])
                inputs = {"input_ids": torch.tensor([row.prompt]), "decoder_input_ids": fed}
                logits = learner.student(**inputs, **uncached).logits[0]
            else:
                tokens = torch.tensor([[*row.prompt, *branch.prefix, *branch.target]])
                logits = learner.student(input_ids=tokens, **uncached).logits[0, -len(labels) - 1 : -1]
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            found[row.question_id, branch.task] = float(loss.detach())
            total = total + weight * loss
    learner.take(way)
    return found, total


def _uncached(model: Any) -> dict[str, bool]:
    """Return what keeps a forward from making a cache, as in training."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


def _wrong_limit(learner: Any) -> str:
    """Say where the number of positions that was read off the model is not the one at which it breaks."""
    from benchmarks.tiny import POSITIONS

    limit = learner.positions.prompt
    if limit is None:
        return (
            "" if _reads(learner, 5 * POSITIONS) else f"positions: none were read off, and {5 * POSITIONS} tokens fail"
        )
    if not _reads(learner, limit):
        return f"positions: {limit} were read off, and as many tokens fail"
    if _reads(learner, limit + 1) and not hasattr(learner.config, "ngram"):  # ProphetNet repeats its last one
        return f"positions: {limit} were read off, and one more token is no problem"
    return ""


def _reads(learner: Any, length: int) -> bool:
    import torch

    from tinyllm.student._probe import plain_tokens

    learner.eval()
    row = torch.full((1, length), plain_tokens(learner.student)[0])
    inputs = {"input_ids": row} | ({"decoder_input_ids": row[:, :2]} if learner.is_encoder_decoder else {})
    try:
        with torch.no_grad():
            learner.student(**inputs, **_uncached(learner.student))
    except Exception:  # noqa: BLE001 -- an index out of range, in whatever form
        return False
    return True


def _writing(model: Any) -> tuple[str, str]:
    """Return in whose company a model writes, and what is wrong with what it writes so."""
    from types import SimpleNamespace

    from tinyllm.student._probe import plain_tokens
    from tinyllm.student.generation import _continued, _groups_of
    from tinyllm.student.model import Student, StudentCard

    student = Student(model, SimpleNamespace(pad_token_id=0), StudentCard({}))
    draw = random.Random(3)
    prompts = [tuple(draw.choices(plain_tokens(model), k=n)) for n in (4, 31, 9, 9, 46, 20)]
    try:
        alone = [_continued(student, 1, [prompt], 5)[0] for prompt in prompts]
    except Exception as error:  # noqa: BLE001 -- some cannot generate at all
        return f"cannot write: {_line(error)}"[:80], ""
    together: dict[int, list[int]] = {}
    for group in _groups_of(student, 1, prompts, [5] * len(prompts), 4096):
        together |= zip(group, _continued(student, 1, [prompts[i] for i in group], 5), strict=True)
    company = "/".join(dict.fromkeys(student.company.values()))
    wrong = [len(prompts[i]) for i, found in together.items() if _text(found) != _text(alone[i])]
    return company, f"texts in a batch, of prompts of {wrong} tokens" if wrong else ""


def _text(tokens: Sequence[int]) -> list[int]:
    return list(tokens[: tokens.index(1)] if 1 in tokens else tokens)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:160] if not str(error).startswith("student.model") else text[:200]


# --- all of them --------------------------------------------------------------------------------------------------


Job = tuple[str, str, str]
"""Kind, type of the model, and variant."""


def _examine_all(some: Sequence[Job]) -> list[Verdict]:
    """Examine architectures in a process; if it dies, in another one without the architecture that killed it."""
    verdicts: list[Verdict] = []
    while len(verdicts) < len(some):
        rest = some[len(verdicts) :]
        command = [sys.executable, "-m", "benchmarks.architectures", "--jobs", json.dumps(rest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith("{"):
                    verdicts.append(Verdict(**json.loads(line)))
                    _print(verdicts[-1])
        if len(verdicts) < len(some) and child.returncode:
            verdicts.append(Verdict(*some[len(verdicts)], "wrong", reason=f"the process ended with {child.returncode}"))
            _print(verdicts[-1])
    return verdicts


def _print(v: Verdict) -> None:
    print(f"{v.verdict:10} {v.name} {v.variant} | {v.way} | {v.writes} | {v.reason}", flush=True)


def _examine(some: Sequence[Sequence[str]]) -> None:
    """Examine architectures one by one, within a time each, and print a line of JSON for each."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {_SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    for kind, name, variant in some:
        overrides = next((o for k, n, v, o in VARIANTS if (k, n, v) == (kind, name, variant)), None)
        began = time.monotonic()
        signal.alarm(_SECONDS)
        try:
            verdict = examined(kind, name, variant, overrides)
        except TimeoutError as error:
            verdict = Verdict(kind, name, variant, "not built", reason=str(error))
        except Exception as error:  # noqa: BLE001 -- nothing that is found may stop the others
            verdict = Verdict(kind, name, variant, "wrong", reason=_line(error))
        signal.alarm(0)
        print(json.dumps(asdict(replace(verdict, seconds=round(time.monotonic() - began, 1)))), flush=True)


def jobs(names: Sequence[str]) -> list[Job]:
    """Return (kind, type, variant) of what is examined; all types if none is named."""
    from benchmarks.tiny import architectures

    made = [(kind, name, "") for kind, name in architectures()]
    made += [(kind, name, variant) for kind, name, variant, _ in VARIANTS]
    return [job for job in made if not names or job[1] in names]


def main() -> int:
    """Examine, print, and write the results and their page; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="types of models; all if none")
    parser.add_argument("--jobs", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.jobs:
        _examine(json.loads(arguments.jobs))
        return 0
    began, asked = time.monotonic(), jobs(arguments.names)
    with ThreadPoolExecutor(_PROCESSES) as pool:
        parts = pool.map(_examine_all, (asked[i::_PROCESSES] for i in range(_PROCESSES)))
    verdicts = [verdict for part in parts for verdict in part]
    if not arguments.names:
        write(verdicts, time.monotonic() - began)
    counts = Counter(v.verdict for v in verdicts)
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return 1 if counts["wrong"] else 0


def write(verdicts: Sequence[Verdict], seconds: float) -> None:
    """Write the results and the page of them."""
    from importlib.metadata import version

    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("transformers", "torch")},
        "minutes": round(seconds / 60, 1),
        "rows": [asdict(v) for v in verdicts],
    }
    (RESULTS / "architectures.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(result), encoding="utf-8")


def page(result: Mapping[str, Any]) -> str:
    """Return the page as Markdown."""
    rows = result["rows"]
    counts = Counter(row["verdict"] for row in rows)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# Architectures",
        "",
        "Which architectures of transformers can be a student, and how TinyLLM computes them.",
        "`make test-architectures` builds each from its configuration (tiny, with short windows), and compares",
        "losses, gradients and written texts with plain rows: rows longer than the window, in batches of any company.",
        "",
        "- *equal*: computed together (packed, or padded), with the results of plain rows.",
        "- *own rows*: each row is computed by itself, because nothing else is the same. It is slower.",
        "- *refused*: training and scoring end with an error before they begin.",
        "- *not built*: transformers does not build it offline or its own forward fails; it may read no text alone.",
        "",
        f"{result['date'][:10]}, {versions}, {result['minutes']} minutes: "
        + ", ".join(f"{counts[v]} {v}" for v in ("equal", "own rows", "refused", "wrong", "not built")) + ".",
        "",
        "| architecture | kind | verdict | rows | writes beside | why |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    order = ("wrong", "equal", "own rows", "refused", "not built")
    for row in sorted(rows, key=lambda r: (order.index(r["verdict"]), r["kind"], r["name"], r["variant"])):
        name = row["name"] + (f" ({row['variant']})" if row["variant"] else "")
        why = row["reason"].replace("|", "\\|")
        lines.append(f"| {name} | {row['kind']} | {row['verdict']} | {row['way']} | {row['writes']} | {why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
