"""`vllm serve` as a teacher. A stand-in for the command really runs; tests of the real one are opt-in."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import is_there, pids_in

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.prompts import Message, Prompt
from tinyllm.teachers import make_teacher
from tinyllm.teachers._vllm import _REFUSED
from tinyllm.teachers.base import Request, Sampling

_SERVER = """#!{python}
import http.server, json, os, pathlib, subprocess, sys, time

HERE = pathlib.Path(__file__).parent
MODE = (HERE / "mode").read_text()
(HERE / "seen.json").write_text(json.dumps({{"argv": sys.argv[1:], "environment": dict(os.environ)}}))
looks = 0


def tell(pid):
    with open(HERE / "pids", "a") as pids:
        print(pid, file=pids)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global looks
        looks += 1
        self.send_response(200 if self.path == "/health" and MODE != "never" and looks > 2 else 503)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "dies later":
            print("EngineDeadError: out of memory", file=sys.stderr, flush=True)
            os._exit(3)
        said = {{"text": f"You said {{body['prompt']}} to {{body['model']}}."}}
        usage = {{"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {{"cached_tokens": 4}}}}
        answer = json.dumps({{"choices": [{{**said, "finish_reason": "stop"}}], "usage": usage}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


tell(os.getpid())
tell(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
if MODE == "dies":
    raise RuntimeError("no room for the model, says " + os.environ["HF_TOKEN"])
port = next(int(a.partition("=")[2]) for a in sys.argv if a.startswith("--port="))
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Fake:
    """A command that is started as `vllm` is, and does as it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command = folder / "vllm"
        self.command.write_text(_SERVER.format(python=sys.executable))
        self.command.chmod(0o755)
        self.does("ok")

    def does(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    def teacher(self, **other):
        return make_teacher(spec(executable=str(self.command), **other), [])

    @property
    def seen(self):
        return json.loads((self.folder / "seen.json").read_text())

    def left(self) -> list[int]:
        """Ids of those of its processes that are still there."""
        return [pid for pid in pids_in(self.folder / "pids", 2) if is_there(pid)]

    def logs(self) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob("tinyllm-vllm-*.log"))


def spec(**other) -> config.VllmTeacher:
    return config.VllmTeacher(**{"name": "v", "kind": "vllm", "model": "org/name", "form": "completion", **other})


def request(text="hello", max_tokens=20) -> Request:
    return Request("q", Prompt(text=text), Sampling(max_tokens, 0.0, 1.0, 0))


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    monkeypatch.setenv("OTHER_API_KEY", "sk-0123456789")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Fake(tmp_path)


async def entered(teacher) -> None:
    async with teacher:
        pass


def test_it_is_started_asked_and_stopped_with_all_that_it_started(vllm):
    async def run():
        async with vllm.teacher() as teacher:
            assert len(vllm.left()) == 2
            return await asyncio.gather(*(teacher.ask(request(str(n))) for n in range(3)))

    replies = asyncio.run(run())
    assert [r.text for r in replies] == [f"You said {n} to org/name." for n in range(3)]
    assert (replies[0].prompt_tokens, replies[0].cached_tokens) == (7, 4)
    assert vllm.left() == []
    assert vllm.logs() == []


def test_it_listens_on_this_machine_only_and_gets_no_keys(vllm):
    other = {"dtype": "float32", "revision": "main", "context_tokens": 512, "arguments": ("--enforce-eager",)}
    asyncio.run(entered(vllm.teacher(**other)))
    argv, environment = vllm.seen["argv"], vllm.seen["environment"]
    assert argv[:3] == ["serve", "org/name", "--host=127.0.0.1"]
    assert {"--dtype=float32", "--revision=main", "--max-model-len=512", "--served-model-name=org/name"} <= {*argv}
    assert argv[-1] == "--enforce-eager"
    assert "OTHER_API_KEY" not in environment
    assert environment["HF_TOKEN"] == "hf_0123456789"  # models that are not for everyone need it
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_a_server_that_dies_shows_the_end_of_its_log_without_secrets(vllm):
    vllm.does("dies")
    with pytest.raises(TeacherError, match=r"exit code 1 before it was healthy") as failure:
        asyncio.run(entered(vllm.teacher()))
    assert "RuntimeError: no room for the model, says ***" in str(failure.value)
    assert "hf_0123456789" not in str(failure.value)
    (log,) = vllm.logs()
    assert str(log) in str(failure.value)
    assert vllm.left() == []


def test_a_server_that_never_becomes_healthy_is_stopped(vllm):
    vllm.does("never")
    with pytest.raises(TeacherError, match=r"not healthy after 1\.5 s \(`start_s`\)"):
        asyncio.run(entered(vllm.teacher(start_s=1.5)))
    assert vllm.left() == []


def test_a_server_is_stopped_if_its_start_is_cancelled(vllm):
    vllm.does("never")

    async def run():
        starting = asyncio.create_task(entered(vllm.teacher()))
        await asyncio.to_thread(pids_in, vllm.folder / "pids", 2)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(run())
    assert vllm.left() == []
    assert vllm.logs() == []


def test_a_server_that_dies_during_a_request_shows_its_log(vllm):
    vllm.does("dies later")

    async def run():
        async with vllm.teacher(max_attempts=2) as teacher:
            await teacher.ask(request())

    with pytest.raises(TeacherError, match="exit code 3 while it was asked") as failure:
        asyncio.run(run())
    assert "EngineDeadError: out of memory" in str(failure.value)
    assert vllm.left() == []
    assert len(vllm.logs()) == 1


def test_a_command_that_is_not_there_is_told_before_anything_starts():
    with pytest.raises(MissingDependencyError, match=r"pip install 'tinyllm-distill\[vllm\]'.*`executable`"):
        make_teacher(spec(executable="no-such-vllm"), []).check()


def test_a_command_beside_this_python_is_found(vllm, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(vllm.folder / "python"))
    monkeypatch.setenv("PATH", "")
    make_teacher(spec(), []).check()


@given(st.sampled_from(sorted(_REFUSED)), st.data())
def test_a_forbidden_argument_is_refused_in_every_spelling(option, data):
    shortest = min(len(option), 4)
    part = option[: data.draw(st.integers(shortest, len(option)))]
    spelt = "".join(data.draw(st.sampled_from("-_")) if c == "-" else c for c in part)
    if spelt.replace("_", "-") == "reasoning-parser":
        return
    value = data.draw(st.sampled_from(["", "=0.0.0.0", "=sk-0123456789", ".x"]))
    with pytest.raises(TeacherError, match="must not hold --") as refusal:
        make_teacher(spec(arguments=(f"--{spelt}{value}", "more")), [])
    assert "sk-0123456789" not in str(refusal.value)


@pytest.mark.parametrize(
    "argument", ["--otlp-traces-endpoint=http://me:secret@host:4317", "http://me:secret@host", "--x=a://secret@h"]
)
def test_a_password_in_an_argument_is_refused_and_not_repeated(argument):
    with pytest.raises(TeacherError, match="must hold no user or password") as refusal:
        make_teacher(spec(arguments=("--enforce-eager", argument)), [])
    assert "secret" not in str(refusal.value)


def test_a_model_that_is_an_option_is_refused():
    with pytest.raises(TeacherError, match="no model but an option"):
        make_teacher(spec(model="--trust-remote-code"), [])


def test_other_arguments_are_passed_on():
    harmless = (
        "--enforce-eager",
        "--reasoning-parser=deepseek_r1",
        "-tp=2",
        "--config-format=hf",
        "--max-num-seqs",
        "8",
    )
    make_teacher(spec(arguments=harmless), [])


def test_identity_is_what_changes_replies(tmp_path, tiny_llama, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    moved = shutil.copytree(tiny_llama, tmp_path / "moved")

    def identity(**other):
        return make_teacher(spec(**other), []).identity

    assert identity(model=str(tiny_llama)) == identity(model=str(moved), executable="x", start_s=1, concurrency=3)
    assert identity() == {"kind": "vllm", "dtype": "auto", "model": "org/name", "revision": "main"}
    different = [identity(), identity(revision="v1"), identity(dtype="float16"), identity(arguments=("-q", "fp8"))]
    assert len({json.dumps(i) for i in different}) == 4


SPEED = [
    ("--gpu-memory-utilization", "0.8"), ("--gpu_memory_utilization=0.5",), ("--max-num-seqs=8",), ("--swap-space", "0"),
    ("--enable-prefix-caching",), ("--no-enable-prefix-caching",), ("--enable-chunked-prefill", "false"), ("-tp=2",),
    ("-tp", "4"), ("--tensor_parallel_size", "2"), ("--pipeline-parallel-size=2",), ("--cpu-offload-gb", "4"),
    ("--enforce-eager",), ("--cuda-graph-sizes", "1", "2", "4"), ("--max-log-len", "-1"), ("--disable-log-requests",),
    ("--download-dir", "/models"), ("--max-num-batched-tokens", "4096"), ("--async-scheduling",), ("--block-size=16",),
]  # fmt: skip
TELLING = [
    ("-q", "fp8"), ("--quantization=fp8",), ("--kv-cache-dtype", "fp8"), ("--seed", "3"), ("--chat-template=x.jinja",),
    ("--generation-config", "vllm"), ("--hf-overrides", '{"rope_theta": 1}'), ("--speculative-config.method=ngram",),
    ("--max-num", "8"), ("--something-new", "--max-num-seqs-of-another-kind", "2"), ("--logits-offset", "-1"),
]  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 19)), max_size=8))
def test_arguments_of_speed_are_no_part_of_the_identity_and_all_others_are_whole(drawn):
    given_ = [SPEED[n] if speed else TELLING[n % len(TELLING)] for speed, n in drawn]
    telling = [a for speed, n in drawn if not speed for a in TELLING[n % len(TELLING)]]
    teacher = make_teacher(spec(arguments=tuple(a for argument in given_ for a in argument)), [])
    assert teacher.identity == make_teacher(spec(), []).identity | ({"arguments": " ".join(telling)} if telling else {})


def test_a_run_goes_on_with_other_arguments_of_speed_and_not_with_others_that_matter():
    def run(*arguments):
        teacher = {"name": "v", "kind": "vllm", "model": "m", "arguments": list(arguments)}
        return config.build_config({"data": {"dataset": "starter"}, "teachers": [teacher]})

    assert config.describe_differences(run("--seed=1"), run("--seed=1", "--max-num-seqs", "8")) == []
    assert config.describe_differences(run("--seed=1"), run("--seed=2", "--max-num-seqs", "8"))


@pytest.mark.slow
@pytest.mark.skipif("TINYLLM_VLLM" not in os.environ, reason="set TINYLLM_VLLM to a vllm command (CONTRIBUTING.md)")
@pytest.mark.timeout(1800)
def test_a_real_vllm_explains_and_refuses_what_does_not_fit(tmp_path):
    from tinyllm.config import StudentSection
    from tinyllm.student.model import StudentCard, load_student

    student = load_student(StudentSection(model="smollm2-135m-instruct"), StudentCard({"answer": ""}))
    student.model.save_pretrained(tmp_path / "model")
    student.tokenizer.save_pretrained(tmp_path / "model")
    teacher = make_teacher(
        spec(
            model=str(tmp_path / "model"), executable=os.environ["TINYLLM_VLLM"], dtype="float32", form="chat",
            context_tokens=1024, arguments=("--enforce-eager",),
        ),
        [],
    )  # fmt: skip
    asked = "Why does ice float on water? Answer in one sentence."
    chat = Request("q", Prompt(messages=(Message("user", asked),)), Sampling(60, 0.0, 1.0, 0))
    long = Request("long", Prompt(messages=(Message("user", "word " * 2000),)), Sampling(60, 0.0, 1.0, 0))

    async def run():
        async with teacher:
            return await asyncio.gather(teacher.ask(chat), teacher.ask(long), return_exceptions=True)

    reply, too_long = asyncio.run(run())
    assert "water" in reply.text
    assert reply.completion_tokens > 4
    assert too_long.reason == "too_long"
