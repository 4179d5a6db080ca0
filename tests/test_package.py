"""The public surface is closed, importing it is cheap, its wheel is complete, and a tag finds its release notes."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
import yaml

import tinyllm
from support import repository


def test_the_public_names():
    assert tinyllm.__all__ == sorted(tinyllm.__all__)
    assert len(tinyllm.__all__) <= 13
    for name in tinyllm.__all__:
        assert getattr(tinyllm, name).__doc__
    assert not hasattr(tinyllm, "nonsense")
    assert tinyllm.__version__ == version("tinyllm-distill")


def test_importing_loads_no_torch():
    code = "import sys, tinyllm, tinyllm.config, tinyllm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_wheel_holds_every_file_of_the_package():
    wheel = pytest.importorskip("hatchling.builders.wheel")
    inside = {f.distribution_path for f in wheel.WheelBuilder(str(repository())).recurse_included_files()}
    source = repository() / "src"
    files = {f.relative_to(source).as_posix() for f in (source / "tinyllm").rglob("*") if f.is_file()}
    expected = {f for f in files if "__pycache__" not in f}
    assert inside == expected
    assert {f.rpartition(".")[2] for f in expected} >= {"py", "typed", "j2", "css", "js", "html", "jsonl", "md"}


def test_the_workflows_try_every_python_that_the_package_claims():
    project = tomllib.loads((repository() / "pyproject.toml").read_text("utf-8"))["project"]
    claimed = [
        c.rpartition(" ")[2] for c in project["classifiers"] if c.startswith("Programming Language :: Python :: 3.")
    ]
    assert claimed[0] == project["requires-python"].removeprefix(">=")
    jobs = yaml.safe_load((repository() / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    for job in ("test", "wheel"):
        assert jobs[job]["strategy"]["matrix"]["python"] == claimed


def test_a_tag_becomes_the_notes_of_its_version_or_is_refused():
    notes = runpy.run_path(str(repository() / ".ci" / "notes"))["notes"]
    changelog = "# Changelog\n\n## Unreleased\n\nmore\n\n## 1.2.0 - 2027-01-31\n\n- this\n\n### Fixed\n\n- that\n\n## 1.1.0\n\nold\n"
    assert notes("v1.2.0", changelog, "1.2.0") == "- this\n\n### Fixed\n\n- that\n"
    assert notes("v1.1.0", changelog, "1.1.0") == "old\n"
    with pytest.raises(SystemExit, match=r"not v1\.2\.0"):
        notes("v1.2.1", changelog, "1.2.0")
    with pytest.raises(SystemExit, match="no section"):
        notes("v1.20", changelog, "1.20")
