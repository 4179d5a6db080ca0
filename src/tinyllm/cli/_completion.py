"""What the Tab key offers: configurations, folders of runs, settings, packaged models, formats.

Where nothing is offered, the shell completes file names by itself.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path


def targets(incomplete: str) -> list[str]:
    """Return the configurations and run folders that begin so."""
    files = [*_near(incomplete, "*.y*ml"), *_near(incomplete, "*/*.y*ml")]
    return sorted([*(f for f in files if Path(f).name not in ("config.yaml", "experiment.yaml")), *runs(incomplete)])


def runs(incomplete: str) -> list[str]:
    """Return the folders of runs and experiments that begin so: those here, and those one folder below."""
    files = [f"{below}{name}.yaml" for below in ("*/", "*/*/") for name in ("config", "experiment")]
    return sorted({str(Path(found).parent) for file in files for found in _near(incomplete, file)})


def settings(incomplete: str) -> list[str]:
    """Return the settings of `--set` that begin so, with their values where there are few."""
    from pydantic import BaseModel

    from tinyllm.config import Config

    def those(model: type[BaseModel], at: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            kinds = [field.annotation, *typing.get_args(field.annotation)]
            below = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
            values = [v for kind in kinds if typing.get_origin(kind) is typing.Literal for v in typing.get_args(kind)]
            if below is not None:
                yield from those(below, f"{at}{name}.")
            elif values:
                yield from (f"{at}{name}={value}" for value in values)
            else:
                yield f"{at}{name}="

    return [setting for setting in those(Config, "") if setting.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return the packaged models that begin so."""
    from tinyllm.system.packaged import known_models

    return [name for name in known_models() if name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    """Return the formats of an export that begin so."""
    from tinyllm.export import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def _near(incomplete: str, pattern: str) -> Iterator[str]:
    """Yield the paths below the folder of an incomplete path that match a pattern and begin so."""
    folder = incomplete.rpartition("/")[0]
    base = Path("/") if incomplete.startswith("/") and not folder else Path(folder).expanduser()
    for found in base.glob(pattern):
        shown = f"{folder}/{found.relative_to(base)}" if "/" in incomplete else str(found)
        is_hidden = any(part.startswith(".") for part in found.relative_to(base).parts)
        if shown.startswith(incomplete) and found.is_file() and not is_hidden:
            yield shown
