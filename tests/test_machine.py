"""Threads that wait go to sleep soon, unless someone has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tinyllm.machine import forget_peak_resident, peak_resident_bytes, resident_bytes, total_bytes


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_the_command_line_settles_it_before_torch_is_loaded(said, expected):
    code = (
        "import os, sys; from tinyllm.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}} | said
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"False {expected}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells it")
def test_the_peak_of_memory_can_be_counted_anew():
    much = 200 << 20
    np.ones(much, np.uint8)  # and freed at once
    before = peak_resident_bytes()
    forget_peak_resident()
    assert peak_resident_bytes() <= before - much // 2
    held = np.ones(much, np.uint8)
    assert resident_bytes() > held.nbytes
    assert resident_bytes() <= peak_resident_bytes() < total_bytes()
