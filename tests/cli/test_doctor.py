"""`tinyllm doctor`: what a bug report needs, no values of keys, and a remedy for each thing that is broken."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tomllib

import pytest
from aiohttp import web

from projects import in_thread
from support import repository
from teachers.fake_endpoint import FakeEndpoint
from tinyllm.cli import _diagnosis
from tinyllm.system import packaged

SECRET = "sk-never-shown-1234"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:1")


def test_the_facts_of_an_installation_as_text_and_as_json(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("doctor")
    assert said.code == 0, said.out
    lines = said.out.splitlines()
    for topic in ("versions", "extras", "machine", "places", "models", "environment"):
        assert any(line.startswith(topic) for line in lines), topic
    assert lines[-1] == "problems: none"
    assert "\x1b" not in said.out
    tree = json.loads(cli("doctor", "--json").out)
    assert tree["versions"]["torch"] == importlib.metadata.version("torch")
    assert tree["environment"]["OPENAI_API_KEY"] == tree["environment"]["HTTPS_PROXY"] == "is set"
    assert set(tree["models"]) == set(packaged.known_models())
    assert tree["problems"] == []
    assert SECRET not in said.out + said.err
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_the_use_of_every_extra_is_told():
    project = tomllib.loads((repository() / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(_diagnosis.EXTRAS) == set(project["optional-dependencies"]) - {"dev"}


def test_a_requirement_that_is_not_met_is_broken(cli, monkeypatch):
    needs = ["numpy>=1000", "no-such-package>=1", "torch", 'nothing-at-all>=2; extra == "serve"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: needs)
    said = cli("doctor", "--json")
    assert said.code == 2
    tree = json.loads(said.out)
    assert [p.partition(":")[0] for p in tree["problems"]] == ["versions, numpy", "versions, no-such-package"]
    assert "pip install 'no-such-package>=1'" in tree["problems"][1]
    assert tree["extras"]["serve"] == "no; for tinyllm serve"
    needs[-1:] = ['nothing-at-all>=2; extra == "serve"', 'numpy>=1; extra == "serve"']
    tree = json.loads(cli("doctor", "--json").out)
    assert tree["extras"]["serve"] == "no, nothing-at-all is missing; for tinyllm serve"


@pytest.mark.skipif(sys.platform != "linux", reason="no such folder")
def test_a_folder_that_cannot_be_written_is_broken(cli):
    said = cli("doctor", "--run-dir", "/proc/runs")
    assert said.code == 2
    assert "/proc/runs cannot be written" in said.out
    assert "--run-dir" in said.out


def asked(cli, project, server: FakeEndpoint, *arguments: str, kind: str = "openai", model: str = "m"):
    with in_thread(server) as url:
        project.change("teachers", [{"name": "ada", "kind": kind, "model": model, "base_url": url}])
        return cli("doctor", project.config, *arguments)


@pytest.mark.parametrize("kind", ["openai", "openai-batch"])
def test_an_endpoint_is_asked_for_its_models_alone(cli, project, kind):
    server = FakeEndpoint()
    said = asked(cli, project, server, "--json", kind=kind)
    assert said.code == 0, said.out
    assert json.loads(said.out)["teachers"]["ada"].endswith("/v1 answers and lists m")
    assert (server.looks, server.requests) == (["/v1/models"], [])
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert not (project.folder / "runs").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=404), "without a list of models (HTTP 404)"),
        (lambda: web.Response(text="hello"), "without a list of models"),
    ],
)
def test_an_endpoint_without_the_model_or_without_a_list_is_told(cli, project, answer, words):
    server = FakeEndpoint()
    server.listing = answer
    said = asked(cli, project, server)
    assert said.code == 0, said.out
    assert words in said.out


def test_a_model_that_an_endpoint_does_not_list_is_a_problem(cli, project):
    server = FakeEndpoint()
    server.listing = lambda: web.json_response({"data": [{"id": "qwen3"}, {"id": "llama3"}]})
    said = asked(cli, project, server, model="lama3")
    assert said.code == 2
    assert "lama3 is not among the 2 models that it lists. Did you mean 'llama3'?" in said.out


def test_an_endpoint_that_refuses_the_key_or_does_not_answer_is_broken(cli, project):
    server = FakeEndpoint()
    server.listing = lambda: web.json_response({"error": {"message": f"no such key {SECRET}"}}, status=401)
    said = asked(cli, project, server)
    assert said.code == 2
    assert "answers 401: no such key ***; the key is refused: check the environment variable" in said.out
    assert SECRET not in said.out + said.err
    gone = cli("doctor", project.config)
    assert gone.code == 2
    assert "does not answer" in gone.out
    assert "start the server, or correct `base_url`" in gone.out


def test_a_key_and_a_model_that_a_configuration_needs_and_that_are_missing(cli, project, monkeypatch):
    project.change("teachers", [
        {"name": "ada", "kind": "openai", "model": "m", "api_key_env": "NO_SUCH_KEY"},
        {"name": "bob", "kind": "llamacpp", "model": "gemma3-270m"},
        {"name": "eve", "kind": "given"},
    ])  # fmt: skip
    monkeypatch.setattr(packaged._PackagedModel, "installed", property(lambda _: False))
    said = cli("doctor", project.config, "--json")
    assert said.code == 2
    tree = json.loads(said.out)
    assert tree["environment"]["NO_SUCH_KEY"] == "is not set"
    assert "export NO_SUCH_KEY=" in tree["problems"][0]
    assert tree["problems"][1].endswith("gemma3-270m is not installed: tinyllm models get gemma3-270m")
    assert len(tree["problems"]) == 2


def test_a_wrong_configuration_is_one_problem_beside_the_facts(cli, project):
    project.change("train.epoch", 1)
    said = cli("doctor", project.config)
    assert said.code == 2
    assert "versions" in said.out
    assert "Did you mean 'epochs'?" in said.out


def test_checksums_are_compared_when_asked_for(cli, monkeypatch, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"damaged")
    monkeypatch.setattr(packaged._PackagedModel, "installed", property(lambda model: model.name == "gemma3-270m"))
    monkeypatch.setattr(_diagnosis, "model_file", lambda _: file)
    assert "gemma3-270m                  installed\n" in cli("doctor").out
    said = cli("doctor", "--checksums")
    assert said.code == 2
    assert "the file of gemma3-270m is damaged" in said.out
