"""Serving: a trained student behind HTTP, in one process.

Add a route: a method of `_app._Routes` and a line in its table. What OpenAI's clients send and expect: `_chat`. Which
questions are computed together: `_batching`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from tinyllm.errors import MissingDependencyError
from tinyllm.serving._limits import Limits

if TYPE_CHECKING:
    from tinyllm.system.news import News

__all__ = ["Limits", "serve"]


def serve(folder: Path, host: str, port: int, key: str | None, limits: Limits, news: News) -> None:
    """Serve a student until the process is told to stop (SIGTERM, or Ctrl-C); what was accepted is still answered.

    Args:
        folder: of a run, of its student, or of an export.
        port: 0: any that is free.
        key: that clients have to send as `Authorization: Bearer KEY`; None: nobody needs one.

    Raises:
        TinyLLMError: the address is not one of this machine's own, and there is no key; or it is taken; or there is no
            student.
        MissingDependencyError: a package that serves HTTP is not installed.
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"Serving needs the package {package}: pip install 'tinyllm-distill[serve]'", page="serving.md"
            )
    from tinyllm.serving._server import run

    run(folder, host, port, key, limits, news)
