"""Server processes: real processes that are really killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import is_there, pids_in, wait_until

from tinyllm.teachers._process import ServerProcess

_SAY = "import os, signal, subprocess, sys, time; out = open(sys.argv[1], 'a', buffering=1)\n"
_TELL = "print(os.getpid(), file=out)\n"
_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
_CHILD = """
subprocess.Popen([sys.executable, '-c', sys.argv[2], sys.argv[1]])
while os.path.getsize(sys.argv[1]) == 0: time.sleep(0.01)
"""
_WAIT = "time.sleep(600)\n"


def started(file: Path, *parts: str, child: str = "", **other) -> ServerProcess:
    """A server made of the given pieces of code; it and its child write their ids into a file."""
    command = [sys.executable, "-c", _SAY + "".join(parts), str(file), _SAY + child]
    return ServerProcess(command, os.environ, label="test", **other)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "pids"


def stop(server: ServerProcess) -> None:
    asyncio.run(server.stop())
    server.forget()


def test_child_processes_end_with_the_server(file):
    server = started(file, _CHILD, _TELL, _WAIT, child=_TELL + _WAIT)
    pids = pids_in(file, 2)
    assert all(map(is_there, pids))
    stop(server)
    assert not any(map(is_there, pids))


def test_a_process_that_ignores_sigterm_is_killed(file):
    server = started(file, _DEAF, _CHILD, _TELL, _WAIT, child=_DEAF + _TELL + _WAIT, stop_s=0.2)
    pids = pids_in(file, 2)
    stop(server)
    assert not any(map(is_there, pids))
    assert server.exit_code == 128 + signal.SIGKILL


def test_child_processes_end_if_the_server_ends_first(file):
    server = started(file, _CHILD, _TELL, "sys.exit(3)", child=_TELL + _WAIT)
    pids = pids_in(file, 2)
    assert wait_until(lambda: server.exit_code is not None)
    assert server.exit_code == 3
    assert not any(map(is_there, pids))
    stop(server)


def test_a_server_ends_when_its_parent_is_killed(file, tmp_path):
    ours = (
        "import os, sys, time; from tinyllm.teachers._process import ServerProcess\n"
        "server = ServerProcess(sys.argv[1:], os.environ, label='test', stop_s=0.2)\n"
        "time.sleep(600)"
    )
    server = [sys.executable, "-c", _SAY + _DEAF + _CHILD + _TELL + _WAIT, str(file), _SAY + _TELL + _WAIT]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # nobody is left who would remove the log
    parent = subprocess.Popen([sys.executable, "-c", ours, *server], env=environment)
    pids = pids_in(file, 2)
    parent.kill()
    parent.wait()
    assert wait_until(lambda: not any(map(is_there, pids)))


def test_a_fork_that_holds_the_pipe_does_not_keep_the_server(file):
    server = started(file, _TELL, _WAIT)
    pids = pids_in(file, 1)
    holder = os.fork()
    if holder == 0:
        signal.pause()
    try:
        stop(server)
        assert not any(map(is_there, pids))
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def test_ctrl_c_does_not_reach_the_server(file):
    server = started(file, _TELL, _WAIT)
    (pid,) = pids_in(file, 1)
    supervisor = psutil.Process(pid).ppid()
    assert len({os.getsid(0), os.getsid(supervisor), os.getsid(pid)}) == 3
    stop(server)


def test_a_command_that_cannot_be_run_is_reported(tmp_path):
    (tmp_path / "vllm").write_text("")
    server = ServerProcess([str(tmp_path / "vllm"), "serve"], os.environ, label="test")
    assert wait_until(lambda: server.exit_code is not None)
    assert server.exit_code == 127
    assert f"cannot run {tmp_path / 'vllm'}" in server.tail()
    stop(server)


def test_the_tail_is_the_end_of_the_log_without_colours_and_secrets(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    said = r"print('first', *range(30), sep='\n'); print('\x1b[31mwith hf_0123456789\x1b[0m\n\nis false')"
    server = ServerProcess([sys.executable, "-c", said], os.environ, label="test")
    assert wait_until(lambda: server.exit_code is not None)
    assert server.tail(3) == "    29\n    with ***\n    is false"
    assert "first" not in server.tail()
    assert server.log.stat().st_mode & 0o077 == 0
    stop(server)
    assert not server.log.exists()


def test_the_end_of_a_log_has_no_secrets_and_no_control_sequences(file, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ssword@proxy.example:3128")
    monkeypatch.setenv("SERVICE_TOKEN", "tok-0123456789")
    say = "print('\\x1b]0;t\\x07\\x1b[2Jred \\u202ex', os.environ['HTTPS_PROXY'], 'p@ssword', os.environ['SERVICE_TOKEN'])\n"
    server = started(file, "sys.stdout.reconfigure(encoding='utf-8')\n", say)
    assert asyncio.run(server.ended(20)) == 0
    said = server.tail()
    stop(server)
    assert said == "    red x http://***@proxy.example:3128 *** ***"
