"""GGUF models in this process. What needs a real model is slow; what is told before one is loaded is not."""

import asyncio
import builtins
import importlib.util

import pytest

from tinyllm import config, packaged
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.prompts import Prompt, teacher_prompt
from tinyllm.questions import Question
from tinyllm.teachers import make_teacher
from tinyllm.teachers.base import Request, RequestFailed, Sampling

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
    assert (teacher.stored, teacher.local, teacher.concurrency, teacher.form) == (True, True, 2, "completion")


@needs_xllamacpp
def test_a_broken_model_is_the_persons_to_mend(no_model):
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


@pytest.mark.slow
@needs_xllamacpp
@pytest.mark.parametrize("name", packaged.known_models())
def test_a_packaged_model_explains_and_refuses_what_does_not_fit(name):
    if importlib.util.find_spec(packaged.PACKAGED[name].parts[0][0]) is None:
        pytest.skip(packaged.PACKAGED[name].install_command)
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
            return await asyncio.gather(
                teacher.ask(Request("q", prompt, sampling)), teacher.ask(long), return_exceptions=True
            )

    reply, failed = asyncio.run(run())
    assert len(reply.text.split()) >= 4
    assert reply.finish_reason in ("stop", "length")
    assert reply.prompt_tokens > 40
    assert isinstance(failed, RequestFailed)
    assert "exceed" in str(failed)
