"""The commands of packaged models: which there are, and getting one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tinyllm.cli._options import AsJson, print_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyllm.system.packaged import ModelState

models_app = typer.Typer(name="models", help="Language models that come as packages.", no_args_is_help=True)


@models_app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the packaged models: size, licence, source, and whether they are installed."""
    from tinyllm.system.packaged import model_states

    states = model_states()
    print_result([asdict(state) for state in states], as_json, lambda: _table(states))


@models_app.command("get")
def get_model(
    name: Annotated[str, typer.Argument(help="Name of a packaged model; `tinyllm models list` shows them.")],
    as_json: AsJson = False,
) -> None:
    """Install a packaged model with pip, put its parts together, and check the file."""
    from tinyllm.system.packaged import install_model, model_states

    state = next((s for s in model_states() if s.name == name), None)
    if state is not None and not state.installed:
        typer.echo(f"Installing {name}: {state.size / 1e6:,.0f} MB, {state.licence}, {state.source}", err=True)
    file = install_model(name)
    print_result(
        {"name": name, "file": str(file)},
        as_json,
        lambda: f"{file}\nUse it as `model: {name}` of a teacher or student.",
    )


def _table(states: Sequence[ModelState]) -> str:
    width = max(len(state.name) for state in states)
    lines = []
    for state in states:
        installed = "installed" if state.installed else "not installed"
        megabytes = f"{state.size / 1e6:,.0f} MB"
        lines.append(f"{state.name:<{width}}  {megabytes:>8}  {installed:<13}  {state.licence}, {state.source}")
    return "\n".join(lines)
