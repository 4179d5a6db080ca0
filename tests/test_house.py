"""The house: nothing stands loose, a room is entered by its entries only, and there are not too many names to learn."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support import repository

SOURCE = repository() / "src" / "tinyllm"
PUBLIC_NAMES = 350
LINES = 450


def name_of(file: Path) -> str:
    """The module's name without the package's."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


@cache
def modules() -> dict[str, ast.Module]:
    return {name_of(file): ast.parse(file.read_text("utf-8")) for file in SOURCE.rglob("*.py")}


def is_private(module: str) -> bool:
    return any(part.startswith("_") and part != "__main__" for part in module.split("."))


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules of TinyLLM that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tinyllm":
            module = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                yield inner if inner in modules() else module


def names_in(node: ast.stmt) -> Iterator[str]:
    """The functions, classes and constants that a statement defines, and the names that a room passes on."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname for alias in node.names if alias.asname == alias.name)
    elif isinstance(node, ast.Assign):
        if [ast.unparse(target) for target in node.targets] == ["__all__"]:
            yield from ast.literal_eval(node.value)
        yield from (n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name) and n.id.isupper())


def public_names() -> set[str]:
    """What a reader of other rooms may meet, by room: names of modules without an underscore on their path."""
    return {
        f"{room_of(module)}.{name}"
        for module, tree in modules().items()
        if not is_private(module) and module
        for node in tree.body
        for name in names_in(node)
        if not name.startswith("_")
    }


def test_nothing_stands_loose():
    assert sorted(f.name for f in SOURCE.glob("*.py")) == ["__init__.py", "__main__.py", "errors.py"]


def test_the_tests_have_the_same_rooms():
    rooms = {f.name for f in SOURCE.iterdir() if (f / "__init__.py").is_file()}
    folders = {f.name for f in (repository() / "tests").iterdir() if f.is_dir() and any(f.glob("test_*.py"))}
    assert folders - {"benchmarks", "faults"} <= rooms
    assert rooms <= folders


def test_no_room_imports_what_is_private_to_another():
    wrong = [
        f"{module} imports {other}"
        for module, tree in modules().items()
        for other in imported(tree)
        if is_private(other) and room_of(other) != room_of(module)
    ]
    assert not wrong


def test_a_module_without_an_underscore_is_an_entry():
    entered = {o for module, tree in modules().items() for o in imported(tree) if room_of(o) != room_of(module)}
    passed_on = {o for module in modules() if module == room_of(module) for o in imported(modules()[module])}
    public = {m for m in modules() if "." in m and not is_private(m)}
    packages = {m for m in public if any(other.startswith(f"{m}.") for other in modules())}
    assert public - packages <= entered | passed_on


def test_there_are_few_public_names():
    names = public_names()
    assert len(names) <= PUBLIC_NAMES, f"{len(names)} public names; the aim is {PUBLIC_NAMES}"


def test_no_file_is_long():
    lines = {name_of(file): len(file.read_text("utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert not {name: count for name, count in lines.items() if count > LINES}


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "docs/decisions/0016-rooms.md"])
def test_files_and_names_in_the_documents_exist(page):
    text = (repository() / page).read_text("utf-8")
    for path, name in re.findall(r"`([a-z_/]+/[a-z_]+\.py)(?:: (\w+))?`", text):
        file = next((f for base in (SOURCE, repository()) if (f := base / path).is_file()), None)
        assert file is not None, path
        assert name in file.read_text("utf-8"), (path, name)
