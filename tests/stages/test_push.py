"""`tinyllm push` to a local stand-in of the hub: the model card, the files that are sent, and the hub's refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import tinyllm
from projects import trained
from stages.hub import TOKEN, hub
from tinyllm.stages.folder import RunFolder

CHOICES = ["ice", "water", "iron", "the moon"]
NAMED = ("--base-model", "someone/tiny", "--license", "apache-2.0")


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_llama) -> Path:
    """A run that is trained and evaluated."""
    return trained(tmp_path_factory.mktemp("push"), tiny_llama).run


def pushed(run: Path, url: str, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Push in a new process, because the hub's client reads its settings at import."""
    environment = os.environ | {
        "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "tinyllm", "push", str(run), "me/mine", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_without_upload_nothing_is_sent_and_the_card_has_the_accuracies(cli, run, monkeypatch):
    monkeypatch.setattr("tinyllm.stages.push._upload", lambda *_: pytest.fail("it was sent"))
    said = cli("push", run, "me/mine", *NAMED, "--json")
    told = json.loads(said.out)
    assert (said.code, told["url"]) == (0, None)
    head, card = told["card"].split("---\n")[1:]
    assert yaml.safe_load(head) == {
        "library_name": "transformers", "base_model": "someone/tiny", "license": "apache-2.0",
        "tags": ["tinyllm", "distillation", "multiple-choice"],
    }  # fmt: skip
    figures = json.loads(RunFolder(run).metrics.read_text())
    after, before = figures["accuracy"]["likelihood"], figures["before"]["likelihood"]
    assert f"Accuracy on {after['n']} test questions" in card
    for name, found in (("before training", before), ("after training", after)):
        assert f"| {name} | {100 * found['value']:.1f} % | {100 * found['ci95'][0]:.1f} % to" in card
    assert f"| guessing | {100 * figures['chance']:.1f} % |" in card
    assert "This may be chance." in card
    assert str(run.parents[1]) not in told["card"], "the card has a local path"
    assert "Nothing was sent" in cli("push", run, "me/mine", *NAMED).out


def test_only_the_files_of_the_student_are_sent(run, tmp_path):
    with hub() as stand_in:
        done = pushed(run, stand_in.url, *NAMED, "--upload")
        assert done.returncode == 0, done.stderr
        assert f"{stand_in.url}/me/mine/commit/" in done.stdout
    files = stand_in.files["me/mine"]
    assert stand_in.private["me/mine"]
    assert "model.safetensors" in stand_in.by_lfs
    student = RunFolder(run).student
    assert set(files) == {f.relative_to(student).as_posix() for f in student.rglob("*") if f.is_file()}
    assert "license: apache-2.0" in files["README.md"].decode()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert tinyllm.load(tmp_path).choose("Which?", CHOICES) == tinyllm.load(run).choose("Which?", CHOICES)


def test_a_refusal_of_the_hub_is_one_message(run):
    with hub() as stand_in:
        wrong = pushed(run, stand_in.url, *NAMED, "--upload", token="hf_wrong")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "The hub refuses (401)" in wrong.stderr
    assert "HF_TOKEN" in wrong.stderr


def test_missing_options_are_named_and_damaged_files_refused(cli, run):
    assert "--base-model OWNER/NAME" in cli("push", run, "me/mine").err
    assert "OWNER/NAME" in cli("push", run, "mine", *NAMED).err
    assert "--license" in cli("push", run, "me/mine", *NAMED[:2], "--upload").err
    model = RunFolder(run).student / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert "is damaged or was replaced" in cli("push", run, "me/mine", *NAMED).err
    finally:
        model.write_bytes(whole)
