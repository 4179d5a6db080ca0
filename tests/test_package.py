"""The public surface is closed, and importing it is cheap."""

from __future__ import annotations

import subprocess
import sys

import tinyllm


def test_the_public_names():
    assert tinyllm.__all__ == sorted(tinyllm.__all__)
    assert len(tinyllm.__all__) <= 13
    for name in tinyllm.__all__:
        assert getattr(tinyllm, name).__doc__
    assert not hasattr(tinyllm, "nonsense")


def test_importing_loads_no_torch():
    code = "import sys, tinyllm, tinyllm.config, tinyllm.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
