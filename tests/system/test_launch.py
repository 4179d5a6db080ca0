"""Several processes on this machine: they find each other, end together, and one failure is told once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tinyllm.system.launch import launch

RANK = "import os, sys, time; rank = int(os.environ['RANK']); "


def run(code: str, processes: int = 2) -> int:
    return launch([sys.executable, "-c", RANK + code], processes, grace_s=0.5)


def test_every_process_knows_its_place(tmp_path):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS"]
    code = f"open({str(tmp_path)!r} + '/' + str(rank), 'w').write(' '.join(os.environ[n] for n in {names!r}))"
    assert run(code, 3) == 0
    told = [(tmp_path / str(rank)).read_text().split() for rank in range(3)]
    assert [(t[0], t[1], t[2], t[3]) for t in told] == [(str(r), str(r), "3", "127.0.0.1") for r in range(3)]
    assert len({t[4] for t in told}) == 1


def test_the_exit_code_is_that_of_the_one_who_speaks(capfd):
    assert run("print('wrong', file=sys.stderr); sys.exit(2)") == 2
    assert capfd.readouterr().err.count("wrong") == 1


def test_a_failure_elsewhere_is_shown_and_the_others_are_not_waited_for_for_ever(capfd):
    began = time.monotonic()
    assert run("time.sleep(100) if rank == 0 else sys.exit('no memory left')") == 1
    assert time.monotonic() - began < 60
    said = capfd.readouterr().err
    assert "Process 1 of 2 failed" in said
    assert "no memory left" in said


def test_whoever_ends_it_ends_all_of_them_in_order(tmp_path):
    """SIGTERM reaches the launcher alone, and is handed on; each process then ends as it wants to."""
    child = (
        f"folder = {str(tmp_path)!r}\n"
        "import signal\n"
        "def end(*_): open(f'{folder}/ended{rank}', 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); open(f'{folder}/ready{rank}', 'w').close()\n"
        "time.sleep(60)"
    )
    parent = (
        "import sys; from tinyllm.system.launch import launch\n"
        f"sys.exit(launch([sys.executable, '-c', {RANK + chr(10) + child!r}], 2, grace_s=5))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", parent])
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("ready*"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(launcher.pid, signal.SIGTERM)
    assert launcher.wait(30) == 0
    assert sorted(f.name for f in tmp_path.glob("ended*")) == ["ended0", "ended1"]
