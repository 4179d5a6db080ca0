"""How long `tinyllm generate` takes to its first request, with a big store of replies and with an empty one."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.common import Reach, Result, bench_cache, paired, row, say
from benchmarks.material import (
    configuration,
    endpoint,
    fresh_folder,
    made_up,
    questions,
    run_command,
    write_configuration,
)
from benchmarks.server import TEXT, Running, running
from tinyllm.prompts import Message, Prompt
from tinyllm.replies._store import SCHEMA_VERSION, Entry, Store
from tinyllm.teachers.base import Reply, Request, Sampling, canonical, key_of

_ABOUT = """\
Seconds from starting the command `tinyllm generate` to the arrival of its first request at a local server: for
{questions} questions that the store has no replies for, with a store of {replies:,} replies ({gigabytes:.1f} GB) and
with none. Before each start the operating system is told to forget the big store's pages, so that it is read from the
disk. The first row is the difference, what the store adds; the second is all of it, most of which is importing."""
_GROUP = 20_000
_QUESTIONS = 4


def startup(replies: int, rounds: int) -> Result:
    """Measure with a store of so many replies."""
    with running() as server:
        store = big_store(replies)
        say(f"startup: {replies:,} replies (seconds to the first request with them, and with none)")
        full, empty = paired(
            rounds, partial(_to_first_request, server, store), partial(_to_first_request, server, None), say=say
        )
    more = [a - b for a, b in zip(full, empty, strict=True)]
    return Result(
        name="startup",
        title="Start-up",
        about=_ABOUT.format(questions=_QUESTIONS, replies=replies, gigabytes=store.stat().st_size / 1e9),
        command="python -m benchmarks.generate startup",
        rows=[
            row(f"what {replies:,} stored replies add", more, unit="s", reach=Reach("ours", "at most", 2)),
            row(f"command to first request, {replies:,} replies", full, empty, unit="s", peer_name="empty store"),
        ],
        settings={"replies": replies, "questions": _QUESTIONS},
    )


def _to_first_request(server: Running, store: Path | None) -> float:
    """Start the command on new questions and return the seconds until the server hears of it."""
    with fresh_folder() as folder:
        # Every start asks something new: what was asked before is in the store by now.
        data = made_up(folder, _QUESTIONS, mark=f"{uuid.uuid4().hex[:8]}-")
        config = write_configuration(configuration(data, endpoint(server.url, _QUESTIONS)), folder, store)
        _forget_pages(store)
        server.reset()
        began = run_command(config, folder).began
    first_at = server.stats().first_at
    if first_at is None:
        raise SystemExit("startup: the server was not asked")
    return first_at - began


def big_store(replies: int) -> Path:
    """Return a store of so many replies of the teacher that will be asked; made once and kept."""
    folder = bench_cache() / f"store-{replies}-v{SCHEMA_VERSION}"
    file = folder / "replies.sqlite"
    if file.is_file():
        return file
    say(f"startup: making a store of {replies:,} replies")
    with fresh_folder() as draft:
        with Store(draft / file.name) as store:
            for group in _entries(replies):
                store.put_many(group)
        shutil.move(draft, folder)
    return file


def _entries(replies: int) -> Iterator[list[Entry]]:
    """Replies as an endpoint gives them, in groups; the prompts are about as long as ours with two examples."""
    identity = {"kind": "openai", "base_url": "http://127.0.0.1/v1", "model": "local"}
    sampling = Sampling(256, 0.7, 0.95, 0)
    group: list[Entry] = []
    for row_ in questions(replies):
        text = f"{row_['question']} {' | '.join(row_['choices'])}"
        request = Request(row_["id"], Prompt(messages=(Message("user", f"{text}\n{text[::-1]}\n{text}"),)), sampling)
        reply = Reply(f"{TEXT}.", "stop", 220, 48, 0.2)
        asked = canonical(identity, request)
        group.append(Entry("teacher", request.question_id, key_of(asked), asked, reply))
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _forget_pages(file: Path | None) -> None:
    """Have the operating system drop a file from its cache; only Linux has a call for that."""
    if file is None or not hasattr(os, "posix_fadvise"):
        return
    for part in file.parent.iterdir():
        with contextlib.closing(part.open("rb")) as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
