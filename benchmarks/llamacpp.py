"""A real server: SmolLM2 in llama.cpp, ours against a bare loop on the same server; and what `scope: block` gains."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bare import ask_all, read_bodies
from benchmarks.common import Reach, Result, child, paired, row, say
from benchmarks.material import Tree, configuration, endpoint, fresh_folder, generate, record, write_configuration
from tinyllm.config import LlamaCppTeacher

_REAL = """\
Tokens per second of {questions} replies by {model} on llama.cpp (`xllamacpp`), {slots} at once, at most {max_tokens}
tokens each, drawn greedily. *Ours* is `tinyllm generate` with `kind: llamacpp`; the peer starts the same server in the
same way and posts the same bodies in a bare `aiohttp` loop that keeps nothing. Both include starting and stopping the
server."""
_PREFIX = """\
The same {questions} questions to {model} on llama.cpp, {slots} at once, {examples} examples with worked rationales in
each prompt, replies of at most {max_tokens} tokens: examples picked for a block of questions, whose prompts then begin
alike so that the server finds their beginning in its cache, against examples picked for each question."""


@dataclass(frozen=True)
class Load:
    """How much is asked of the server. `slots`: requests at once; None: as many as TinyLLM finds fit."""

    model: str
    questions: int
    slots: int | None
    max_tokens: int
    examples: int

    def words(self) -> dict[str, Any]:
        """Return what is put into the descriptions."""
        return {**asdict(self), "slots": self.slots or "as many as fit the machine"}


def real(load: Load, rounds: int) -> Result:
    """Measure the client against its own server's limit."""
    say(f"real: {load} (ours, bare loop: tokens per second)")
    tree = _configuration(load, "question")
    with fresh_folder() as folder:
        bodies = _recorded(tree, folder)
        config = write_configuration(tree, folder)
        ours = partial(_ours_per_second, tree, load.questions)
        figures = paired(rounds, ours, partial(_bare_per_second, config, bodies), say=say)
    reach = Reach("ratio", "at least", 0.95)
    return Result(
        name="real",
        title="A real server",
        about=_REAL.format(**load.words()),
        command="python -m benchmarks.generate real",
        rows=[row(load.model, *figures, unit="tokens/s", peer_name="bare aiohttp loop", reach=reach)],
        settings=asdict(load),
    )


def prefix(load: Load, rounds: int) -> Result:
    """Measure what prompts that begin alike gain."""
    say(f"prefix: {load} (block, question: questions per second)")
    shares: dict[str, list[float]] = {"block": [], "question": []}

    def per_second(scope: str) -> float:
        seconds, spent = _ours(_configuration(load, scope), load.questions)
        shares[scope].append(100 * (spent["cached_tokens"] or 0) / spent["prompt_tokens"])
        return load.questions / seconds

    figures = paired(rounds, partial(per_second, "block"), partial(per_second, "question"), say=say)
    block, question = (shares[scope][1:] for scope in ("block", "question"))  # the first round does not count
    peer = "`scope: question`"
    return Result(
        name="prefix",
        title="Prompts that begin alike",
        about=_PREFIX.format(**load.words()),
        command="python -m benchmarks.generate prefix",
        rows=[
            row("`scope: block`", *figures, unit="questions/s", peer_name=peer, reach=Reach("ratio", "at least", 1)),
            row("prompt tokens found in the cache", block, question, unit="%", peer_name=peer),
        ],
        settings=asdict(load),
    )


def _configuration(load: Load, scope: str) -> dict[str, Any]:
    rationales = {
        "examples": {"count": load.examples, "scope": scope},
        "max_tokens": load.max_tokens,
        # What is asked again after a failed check would make ours a different job from the bare loop's.
        "samples": 1,
        "temperature": 0.0,
    }
    teacher = {"kind": "llamacpp", "model": load.model, "slots": load.slots}
    return configuration({"dataset": "starter", "limit": load.questions}, teacher, rationales)


def _ours(tree: Tree, questions: int) -> tuple[float, dict[str, Any]]:
    """Generate; return the seconds, from starting the server to having stopped it, and the teacher's yield."""
    found = generate(tree)
    spent = found["yields"]["teacher"]
    answered = spent["rationales"] + sum(spent["rejected"].values())
    if answered != questions:
        raise SystemExit(f"{answered} of {questions} questions were answered: {spent}")
    began, ended = found["phases"]["Rationales"]
    return ended - began, spent


def _ours_per_second(tree: Tree, questions: int) -> float:
    seconds, spent = _ours(tree, questions)
    return float(spent["completion_tokens"] / seconds)


def _recorded(tree: Tree, folder: Path) -> Path:
    """Have the bodies recorded by a server that speaks the same protocol: llama.cpp's own keeps none."""
    teacher = endpoint("http://127.0.0.1/v1", 1, form=LlamaCppTeacher.model_fields["form"].default)
    return record({**tree, "teachers": [{"name": "teacher", **teacher}]}, folder / "bodies.jsonl")


def _bare_per_second(config: Path, bodies: Path) -> float:
    found = child("-m", "benchmarks.llamacpp", config, bodies)
    return float(found["completion_tokens"] / (found["stopped"] - found["started"]))


async def _serve_and_ask(config_file: Path, bodies_file: Path) -> dict[str, Any]:
    """Start the server as the teacher does, and ask it in a bare loop."""
    from tinyllm.config import load_config
    from tinyllm.teachers._llamacpp import LlamaCppTeacher as Served

    spec = load_config(config_file).teachers[0]
    assert isinstance(spec, LlamaCppTeacher)
    teacher = Served(spec)
    bodies = read_bodies(bodies_file)
    started = time.time()
    async with teacher:
        found = await ask_all(teacher.url, bodies, teacher.concurrency)
    return {**found, "started": started, "stopped": time.time()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_serve_and_ask(Path(sys.argv[1]), Path(sys.argv[2])))))
