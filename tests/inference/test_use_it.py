"""The commands of the README's "Use it" section, as they stand there, on a small trained student: each ends with 0."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from forked import run_tinyllm, start_tinyllm
from projects import rows, trained
from support import repository

PORT = 8000  # of the README
pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")


def commands() -> list[str]:
    """The command lines of the section; one that is longer than a line is one."""
    section = re.search(
        r"^## Use it\n(.*?)^## ", (repository() / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    blocks = re.findall(r"^```bash\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_llama) -> Path:
    """A folder with what the README supposes: a trained run, and a file of questions."""
    folder = tmp_path_factory.mktemp("use")
    trained(folder, tiny_llama)
    (folder / "runs" / "mine").rename(folder / "runs" / "my")
    asked = [f"{r['question']},{','.join(r['choices'])},{'ABCD'[r['answer']]}" for r in rows(12)]
    (folder / "questions.csv").write_text("\n".join(["question,A,B,C,D,answer", *asked]) + "\n", "utf-8")
    return folder


def words(command: str) -> list[str]:
    """What follows `tinyllm` in a command line."""
    name, *rest = shlex.split(command, comments=True)
    assert name == "tinyllm"
    return rest


def ended(place: Path, command: str) -> str:
    """Run a command as the README has it, and return what it printed; it has to end with 0."""
    done = run_tinyllm(*words(command), cwd=place)
    assert done.returncode == 0, f"{command}\n{done.err}"
    return done.out


def test_predict_writes_the_answers(place):
    given = [c for c in commands() if c.startswith("tinyllm predict runs/my ")]
    assert len(given) == 2
    for command in given:
        assert "12 rows" in ended(place, command)
    assert {"choice", "probability", "learnt"} <= set(pq.read_table(place / "answers.parquet").column_names)
    assert (place / "questions.predictions.jsonl").is_file()


def test_serve_answers_curl(place):
    (serve,) = (c for c in commands() if c.startswith("tinyllm serve "))
    (curl,) = (c for c in commands() if c.startswith("curl "))
    port = PORT
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", PORT)) == 0:  # someone else's server: the same commands, on another port
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            serve, curl = serve.replace("runs/my", f"runs/my --port {port}"), curl.replace(str(PORT), str(port))
    server = start_tinyllm(*words(serve), cwd=place)
    try:
        for _ in range(600):
            if server.poll() is not None or _is_up(port):
                break
            time.sleep(0.1)
        asked = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=120, check=True)
        answer = json.loads(asked.stdout)
    finally:
        server.terminate()
    assert server.wait(60) == 0
    assert answer["text"] in ("mass", "temperature", "time")
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-3)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(("kind", "needs"), [("gguf", "xllamacpp"), ("onnx", "onnxruntime")])
def test_export_writes_a_folder_that_answers(place, kind, needs):
    pytest.importorskip(needs)
    (command,) = (c for c in commands() if c.startswith(f"tinyllm export runs/my --to {kind}"))
    assert "choices are the same" in ended(place, command)
    if kind == "gguf":
        (by_it,) = (c for c in commands() if c.startswith("tinyllm predict runs/my/export/"))
        assert "12 rows: 12 answered" in ended(place, by_it)
