"""Serving: a trained student that answers over HTTP, in one process.

Add a route: a method of `_app._Routes` and a line in its table. The format of OpenAI's clients: `_chat`. Which
questions are computed in one batch: `_batching`.
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
    """Serve a student over HTTP until SIGTERM or Ctrl-C. Requests that were accepted before are still answered.

    Args:
        folder: the folder of a run, of its student, or of an export.
        host: the address or name to listen on.
        port: the port to listen on; 0 for any free port.
        key: the key that clients must send as `Authorization: Bearer KEY`; None if no key is needed.

    Raises:
        TinyLLMError: other machines can reach the address and there is no key, or the address is not known or in use,
            or the folder holds no student.
        MissingDependencyError: a package for serving HTTP is not installed.
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"Serving needs the package {package}: pip install 'tinyllm-distill[serve]'", page="serving.md"
            )
    from tinyllm.serving._server import run

    run(folder, host, port, key, limits, news)
