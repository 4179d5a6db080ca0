"""Serving: a trained student behind HTTP, in one process.

Add a route: a method of `_app._Routes` and a line in its table. What OpenAI's clients send and expect: `_chat`. Which
questions are computed together: `_batching`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from tinyllm.errors import MissingDependencyError
from tinyllm.serving._limits import Limits

if TYPE_CHECKING:
    from tinyllm.inference import LoadedStudent
    from tinyllm.system.news import News

__all__ = ["Limits", "require", "serve"]


def require() -> None:
    """Raise unless the packages that serve HTTP are installed.

    Raises:
        MissingDependencyError: one is not.
    """
    for package in ("starlette", "uvicorn", "prometheus_client"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(f"Serving needs the package {package}: pip install 'tinyllm-distill[serve]'")


def serve(student: LoadedStudent, host: str, port: int, key: str | None, limits: Limits, news: News) -> None:
    """Serve a student until the process is told to stop (SIGTERM, or Ctrl-C); what was accepted is still answered.

    Args:
        port: 0: any that is free.
        key: that clients have to send as `Authorization: Bearer KEY`; None: nobody needs one.

    Raises:
        TinyLLMError: the address is not one of this machine's own, and there is no key; or it is taken.
    """
    require()
    from tinyllm.serving._server import run

    run(student, host, port, key, limits, news)
