"""What is asked of the machine: waiting threads sleep soon, a peak of memory begins anew, memory is given back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
    """In a process of its own: one that keeps what it frees for later has no peak to forget."""
    code = (
        "import mmap\n"
        "from tinyllm.system.machine import capacity, forget_peak_resident, peak_resident_bytes, resident_bytes\n"
        "much = 200 << 20\n"
        "with mmap.mmap(-1, much) as held: held.write(bytes(1 << 20) * 200)\n"
        "before = peak_resident_bytes()\n"
        "forget_peak_resident()\n"
        "print(before - peak_resident_bytes() > much // 2)\n"
        "held = mmap.mmap(-1, much); held.write(bytes(1 << 20) * 200)\n"
        "print(much < resident_bytes() <= peak_resident_bytes() < capacity().memory)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_memory_that_was_kept_for_reuse_is_given_back():
    """In a process of its own: the setting is for the whole process."""
    code = (
        "from tinyllm.stages._prepare import give_back_memory\n"
        "from tinyllm.system.machine import keep_freed_memory, resident_bytes as now\n"
        "keep_freed_memory()\n"
        "blocks = [bytearray(b'x' * (4 << 20)) for _ in range(100)]\n"
        "last = bytearray(b'y' * (4 << 20))\n"  # above the others, so that the heap cannot shrink
        "del blocks\n"
        "kept = now(); give_back_memory(); print(kept - now())\n"
    )
    freed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(freed) > 200 << 20
