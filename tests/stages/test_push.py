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
from tinyllm.config import CHOICES_TASK, build_config
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.push import _results
from tinyllm.student.card import model_card

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
        assert f"| likelihood | {name} | {100 * found['value']:.1f} % | {100 * found['ci95'][0]:.1f} % to" in card
    assert "The headline scorer is likelihood: the form of the prompt fixed it before the test." in card
    assert "| likelihood per token | after training |" in card
    assert "test questions, scored by likelihood." in card
    assert f"| {100 * figures['accuracy']['likelihood_normalised']['value']:.1f} % |" in card
    assert f"| | guessing | {100 * figures['chance']:.1f} % |" in card
    assert "Training is not shown to change the accuracy" in card
    assert "--explain" in card
    assert "- `ada` (scripted), α = 1.0, 12 rationales" in card
    assert "| `ada` | `explain as ada: ` |" in card
    assert "The answer is" not in card
    assert "Question: What does a thermometer measure?\nChoices:\n(a) mass" in card
    assert str(run.parents[1]) not in told["card"], "the card has a local path"
    shown = cli("push", run, "me/mine", *NAMED).out
    assert "Nothing was sent" in shown
    assert "no licence" not in shown
    assert "no licence is stated. An upload needs it" in cli("push", run, "me/mine", *NAMED[:2]).out
    assert "is not an identifier of a licence" in cli("push", run, "me/mine", *NAMED[:2], "--license", "Apache 2").err


def test_the_card_says_if_the_student_has_learnt_test_questions(cli, run):
    figures = json.loads(RunFolder(run).metrics.read_text())
    figures["data"]["warnings"] = {"test question that is also a training or validation question": 3, "no answer": 2}
    card = _results(figures, {"likelihood": "Likelihood"})
    assert "It is too high: 3 × test question that is also a training or validation question." in card
    assert "not trained on" not in card


def test_a_run_without_test_questions_is_complete_and_page_and_card_say_that_nothing_is_scored(cli, project):
    project.change("data.cut", {"valid": 0.1, "test": 0})
    assert "No test question has an answer, so the student is not scored" in cli("check", project.config).out
    said = cli("run", project.config)
    assert (said.code, "it is not scored" in said.out) == (0, True), said.err
    assert cli("evaluate", project.run).code == 0
    page = (project.run / "report.html").read_text("utf-8")
    assert "No test question has an answer, so the student is not scored." in page
    assert "This run is not complete" not in page
    card = json.loads(cli("push", project.run, "me/mine", *NAMED, "--json").out)["card"]
    assert "its accuracy is not known" in card


def test_the_card_of_a_chosen_student_says_what_was_chosen_and_names_no_teacher_that_was_not_used(
    cli, project, tiny_llama
):
    project.change("student", {"model": str(tiny_llama), "layout": "cloze"})
    project.change("train.method", "auto")
    tried = [{"answer": "choices"}, {"method": "tinyllm", "answer": "both"}]
    project.change("auto", {"candidates": tried, "budget": 1})  # the budget allows the first one only
    project.change("evaluate.scorers", ["likelihood"])
    said = cli("run", project.config, "-q")
    assert said.code == 0, said.err
    shown = json.loads(cli("push", project.run, "me/mine", *NAMED, "--json").out)["card"]
    for card in (shown, (RunFolder(project.run).student / "README.md").read_text("utf-8")):
        assert "by the method `fine-tuning`" in card
        assert "`train.method: auto` chose these settings on validation questions: method fine-tuning" in card
        assert "answers by comparing the choices" in card
        assert "It learnt no rationales" in card
        assert not [
            word for word in ("`auto`", "ada", "bob", "--explain", "explain as", "α", "(a) mass") if word in card
        ]
        assert "Its prompt has the question without its choices" in card
        assert "```\nQuestion: What does a thermometer measure?\n```" in card


def test_the_card_names_the_teachers_whose_opinions_were_learnt():
    tree = {
        "data": {"train": "q.csv"}, "opinions": {"teachers": ["ada", "bob"]},
        "teachers": [{"name": name, "kind": "scripted"} for name in ("ada", "bob", "eve")],
        "train": {"method": "fine-tuning", "answer": "choices", "soft": {}},
    }  # fmt: skip
    soft = {"weights": {"ada": 0.5, "bob": 0.0}, "learnt_without_answer": 7}
    card = model_card(build_config(tree, source="test"), {"targets": {CHOICES_TASK: 9}, "soft": soft})
    assert "gave it the targets of 7 questions without an answer and part of the target" in card
    assert "- `ada` (scripted), weight 0.5" in card
    assert not [name for name in ("bob", "eve") if name in card]


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


def test_without_a_network_the_message_names_the_address(run):
    said = pushed(run, "http://127.0.0.1:9", "--upload", *NAMED)  # nothing listens there
    assert (said.returncode, "Traceback" in said.stderr) == (2, False)
    assert "Sending to http://127.0.0.1:9 failed" in said.stderr
    assert "Check the network" in said.stderr


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
