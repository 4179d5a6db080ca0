"""The command line, from a person's files to the report, and how it takes their mistakes."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from refusals import refused
from safetensors.torch import load_file

import tinyllm
from forked import command_line, run_tinyllm, run_together, start_tinyllm
from projects import in_thread, rows
from support import repository, tiny_model
from teachers.fake_endpoint import FakeEndpoint
from tinyllm.cli._use import _answer_text
from tinyllm.questions import Question
from tinyllm.scoring.score import score_options
from tinyllm.student.model import read_student
from tinyllm.system.files import read_jsonl, write_jsonl

CONTRACT = {
    "config.yaml", "environment.json", "rationales.parquet", "rejected.jsonl", "student", "train_log.jsonl",
    "predictions.jsonl", "metrics.json", "report.html",
}  # fmt: skip


def test_a_run_leaves_everything_that_the_contract_lists(cli, project):
    said = cli("run", project.config)
    assert said.code == 0, said.err
    assert {f.name for f in project.run.iterdir()} >= CONTRACT
    assert str(project.run / "report.html") in said.out
    assert "tinyllm ask" in said.out

    metrics = json.loads((project.run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["preset"] == "paper"
    for stage in ("accuracy", "before"):
        for scorer in ("likelihood", "likelihood_normalised", "generation"):
            low, high = metrics[stage][scorer]["ci95"]
            assert 0 <= low <= metrics[stage][scorer]["value"] <= high <= 1
            assert metrics[stage][scorer]["n"] == 6
        assert 0 <= metrics[stage]["generation"]["unparsed"] <= 6
    assert metrics["chance"] == 0.25
    assert metrics["teachers"]["ada"] | {"repaired": {}} == {
        "rationales": 12, "missing": 0, "rejected": {}, "repaired": {}, "resampled": {}, "cached_tokens": None, "thinking_tokens": None,
        "prompt_tokens": metrics["teachers"]["ada"]["prompt_tokens"],
        "completion_tokens": metrics["teachers"]["ada"]["completion_tokens"],
    }  # fmt: skip
    assert {"examples_per_second", "target_tokens", "padding_fraction", "seconds", "peak_memory_bytes"} <= metrics[
        "train"
    ].keys()
    assert pq.read_table(project.run / "rationales.parquet").num_rows == 24
    predictions = read_jsonl(project.run / "predictions.jsonl")
    assert {(p["stage"], p["split"]) for p in predictions} == {
        ("before", "test"),
        ("after", "test"),
        ("after", "train"),
    }
    assert sum("rationales" in p for p in predictions if p["split"] == "test") == 2

    again = cli("run", project.config)
    assert again.code == 0
    assert "already trained" in again.err
    assert "already evaluated" in again.err
    assert "Evaluating" not in again.err
    assert "Evaluating" in cli("run", project.config, "--set", "evaluate.max_new_tokens=3").err


def test_a_student_is_trained_again_when_its_questions_have_changed(cli, project):
    assert cli("run", project.config).code == 0
    project.write_questions(rows(24))
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    assert "already trained" not in said.err
    assert (
        "questions, rationales or chosen settings have changed since the student was trained: it is trained again"
        in said.err
    )
    assert json.loads(said.out)["data"]["train"] > 12


def test_a_student_is_trained_again_when_the_questions_that_pick_it_have_changed(cli, project):
    valid = project.config.parent / "valid.jsonl"
    write_jsonl(valid, rows(6))
    project.change("data.cut", {"test": 0.3})
    project.change("data.valid", str(valid))
    project.change("train.validate_steps", 1)
    project.change("train.keep", "best")
    assert cli("run", project.config).code == 0
    assert "already trained" in cli("run", project.config).err
    write_jsonl(valid, [r | {"answer": (r["answer"] + 1) % len(r["choices"])} for r in rows(6)])
    said = cli("run", project.config)
    assert said.code == 0, said.err
    assert "the validation questions have changed since, by which the student is picked: it trains anew" in said.err
    assert "already trained" not in said.err


def test_a_student_is_calibrated_again_when_its_validation_questions_have_changed(cli, project):
    valid = project.config.parent / "valid.jsonl"
    write_jsonl(valid, rows(12))
    project.change("data.cut", {"test": 0.3})
    project.change("data.valid", str(valid))
    assert cli("run", project.config).code == 0
    first = read_student(project.run / "student").card.temperature
    asked = tinyllm.load(project.run)
    chosen = asked.choose([r["question"] for r in rows(12)], [r["choices"] for r in rows(12)])
    write_jsonl(valid, [r | {"answer": c.choice} for r, c in zip(rows(12), chosen, strict=True)])
    said = cli("run", project.config, "--json")
    assert (said.code, "already trained" in said.err) == (0, True), said.err
    assert "the validation questions have changed since: its probabilities are calibrated again" in said.err
    second = read_student(project.run / "student").card.temperature
    assert second != first
    assert json.loads(said.out)["calibration"]["temperature"] == second
    assert "calibrated again" not in cli("run", project.config).err


def test_a_run_may_go_on_with_settings_that_change_only_the_speed(cli, project):
    assert cli("run", project.config).code == 0
    said = cli("run", project.config, "--set", "train.micro_batch_tokens=500", "--set", "train.save_steps=1")
    assert said.code == 0, said.err
    assert "already trained" in said.err


def test_precision_is_refused_before_a_teacher_is_asked(cli, project):
    refused(cli("run", project.config, "--set", "train.precision=fp16"), "fp16 makes T5 overflow")
    refused(cli("check", project.config, "--set", "train.precision=fp16"), "fp16 makes T5 overflow")
    assert not project.run.exists()


def test_a_given_teacher_that_no_question_carries(cli, project):
    project.write_questions([{**row, "rationales": {"adda": "It is so because it is."}} for row in rows(20)])
    project.change("teachers", [{"name": "ada", "kind": "given"}])
    for command in ("check", "run"):
        refused(cli(command, project.config), "Teacher 'ada'", "under 'ada'", "Did you mean 'adda'?")


def test_tensorboard_logs_outlive_the_training(cli, project):
    pytest.importorskip("tensorboard")
    assert cli("run", project.config, "--set", "train.report_to=[tensorboard]").code == 0
    assert list((project.run / "tensorboard").glob("events.out.tfevents.*"))
    assert not (project.run / "checkpoints").exists()


def test_settings_that_contradict_the_method(cli, project):
    refused(cli("check", project.config, "--set", "train.alpha=0"), "all weights are 0")
    refused(
        cli("check", project.config, "--set", "train.method=step-by-step", "--set", "train.teacher=ada", "--set", "train.alpha=0"),
        "its weight must be above 0",
    )  # fmt: skip
    refused(cli("check", project.config, "--set", "evaluate.scorers=[]"), "evaluate.scorers")
    before = ("--set", "train.rationales=before", "--set", "train.method=fine-tuning")
    refused(cli("check", project.config, *before), "train.rationales: `before` needs rationales")
    read = ("--set", "train.rationales=input", "--set", "train.alpha_schedule=linear")
    refused(cli("check", project.config, *read), "train.alpha_schedule: it has no effect with `rationales: input`")


@pytest.mark.parametrize("use", ["before", "input"])
def test_rationales_are_learnt_before_the_answer_or_read_with_the_question(cli, project, use):
    project.change("train.rationales", use)
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    targets = json.loads(said.out)["train"]["targets"]
    assert set(targets) == ({"answer", "ada", "bob"} if use == "before" else {"answer"})
    assert read_student(project.run / "student").card.reasons_as == ("ada" if use == "before" else "")
    tested = [p for p in read_jsonl(project.run / "predictions.jsonl") if p["split"] == "test"]
    if use == "before":
        assert targets["answer"] == 2 * targets["ada"], "once after each rationale"
        assert all(("ada" in p.get("rationales", {})) == (p["stage"] == "after") for p in tested)
        assert cli("ask", project.run, "Which is cold?", "-c", "ice", "-c", "fire").code == 0
        refused(cli("export", project.run, "--to", "onnx"), "writes a rationale before it answers")


def test_a_folder_that_cannot_be_made(cli, project):
    (project.folder / "file").write_text("", encoding="utf-8")
    refused(cli("run", project.config, "--run-dir", project.folder / "file" / "run"), "file")
    if sys.platform == "linux":
        for command in ("check", "run"):
            refused(cli(command, project.config, "--run-dir", "/proc/run"), "No folder can be made at /proc/run")
    assert cli("check", project.config, "--run-dir", project.folder / "new" / "run").code == 0
    assert not (project.folder / "new").exists()


def test_a_disk_with_less_space_than_training_may_take_is_told_before(cli, project, monkeypatch):
    parameters = tiny_model("t5").num_parameters()

    def told(free: int, *more: str, command: str = "check") -> str:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        said = cli(command, project.config, *more)
        assert said.code == 0, said.err
        return " ".join(said.err.split())

    assert "training may take about 0.0 GB of it, for checkpoints and the student" in told(28 * parameters - 1)
    assert "training may take" not in told(28 * parameters)
    assert "training may take" not in told(4 * parameters, "--set", "student.adapter=lora")
    assert "training may take" in told(0, "--set", "evaluate.rationales=0", command="run")
    assert "training may take" not in told(0, command="check"), "it is trained"


def test_the_stages_can_be_run_one_by_one_and_print_json(cli, project):
    for command in ("check", "generate", "train", "evaluate", "report"):
        said = cli(command, project.config, "--json")
        assert said.code == 0, said.err
        json.loads(said.out)
    from_folder = cli("evaluate", project.run, "--json", "--set", "evaluate.scorers=[likelihood]")
    assert from_folder.code == 0, from_folder.err
    assert set(json.loads(from_folder.out)["accuracy"]) == {"likelihood", "likelihood_normalised"}


def test_a_causal_student_by_lora_and_step_by_step(cli, project, tiny_llama):
    project.change("student", {"model": str(tiny_llama), "adapter": "lora", "layout": "cloze"})
    project.change("train.method", "step-by-step")
    project.change("train.teacher", "bob")
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    assert set(json.loads(said.out)["train"]["targets"]) == {"answer", "bob"}


@pytest.mark.parametrize(
    ("family", "adapter", "layout"),
    [("llama", "full", "cloze"), ("llama", "lora", "labelled"), ("t5", "full", "labelled"), ("t5", "lora", "cloze")],
)
def test_a_student_learns_to_choose_and_its_probabilities_are_calibrated(
    cli, project, tiny_t5, tiny_llama, family, adapter, layout
):
    model = {"t5": tiny_t5, "llama": tiny_llama}[family]
    project.change("student", {"model": str(model), "adapter": adapter, "layout": layout})
    project.change("train.answer", "both")
    project.change("data.cut", {"valid": 0.5, "test": 0.2})
    assert cli("generate", project.config).code == 0
    assert "targets: 6 answer, 6 answer (choices), 6 ada, 6 bob" in cli("train", project.config, "--plan").out
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    temperature = read_student(project.run / "student").card.temperature
    assert temperature != 1
    metrics = json.loads(said.out)
    assert metrics["calibration"]["temperature"] == temperature
    assert metrics["calibration"]["n"] == 4
    assert metrics["calibration"]["ece"] != metrics["calibration"]["ece_uncalibrated"]
    assert "6 answers by comparing the choices and by writing" in (project.run / "student" / "README.md").read_text()
    bins = (metrics["calibration"]["reliability"], metrics["calibration"]["reliability_uncalibrated"])
    assert [sum(b["n"] for b in some) for some in bins] == [4, 4]
    assert bins[0] != bins[1]
    page = (project.run / "report.html").read_text(encoding="utf-8")
    assert "Calibration error" in page
    assert "Reliability on the test questions" in page
    asked = json.loads(cli("ask", project.run, "Which is cold?", "-c", "ice", "-c", "the moon", "--json").out)
    student = read_student(project.run / "student")
    question = Question("asked", "Which is cold?", ("ice", "the moon"), 0)
    scores = score_options(student, student.learner(), [question])[0]
    first, second = scores.mean if layout == "cloze" else scores.total
    assert asked["probabilities"][0] == pytest.approx(1 / (1 + math.exp((second - first) / temperature)), abs=1e-5)


def test_the_plan_can_be_printed_and_is_kept(cli, project):
    assert cli("generate", project.config).code == 0
    said = cli("train", project.config, "--plan")
    assert said.code == 0, said.err
    assert "3 optimizer steps of up to 4 questions; targets: 12 answer, 12 ada, 12 bob" in said.out
    assert "packed" in said.out
    assert "0.0 % padding" in said.out
    assert not (project.run / "student").exists()
    planned = json.loads(cli("train", project.config, "--plan", "--json").out)
    shared = json.loads(cli("train", project.config, "--plan", "--json", "--nproc", "2").out)
    assert shared["processes"] == 2
    assert all(len(step["micro_batches"]) % 2 == 0 for step in shared["plan"])
    assert cli("train", project.config).code == 0
    kept = json.loads((project.run / "plan.json").read_text(encoding="utf-8"))
    assert kept == planned


def test_several_processes_train_the_student_of_one(cli, project):
    project.change("train.micro_batch_tokens", 200)
    assert cli("generate", project.config).code == 0
    found = {}
    for name, more in (("one", []), ("two", ["--nproc", "2"])):
        shutil.rmtree(project.run / "student", ignore_errors=True)
        done = run_tinyllm("train", project.config, "--json", *more)
        assert done.returncode == 0, done.err
        assert json.loads(done.out)["steps"] == 3, "one of them speaks"
        assert done.err.count("Saving the student") <= 2
        found[name] = load_file(project.run / "student" / "model.safetensors")
        log = read_jsonl(project.run / "train_log.jsonl")
        found[name]["losses"] = torch.tensor([line["loss"] for line in log])
    for tensor, value in found["one"].items():
        torch.testing.assert_close(found["two"][tensor], value, rtol=1e-4, atol=1e-5, msg=tensor)


def test_a_mistake_is_told_once_whatever_the_number_of_processes(cli, project):
    assert cli("generate", project.config).code == 0
    project.change("student.model", "nowhere/to-be-found")
    ranks = run_together(2, command_line, ["train", str(project.config)])
    assert [rank.returncode for rank in ranks] == [2, 2]
    # Of the second, `launch` shows nothing if the first has an error of its own (tests/system/test_launch.py).
    assert ranks[0].err.count("cannot load 'nowhere/to-be-found'") == 1
    assert not any("Traceback" in rank.err for rank in ranks)


def test_settings_of_training_that_do_not_go_together_are_told_together(cli, project):
    project.change("train.keep", "best")
    project.change("train.patience", 2)
    project.change("train.alpha_schedule", {"adda": "linear"})
    project.change("train.compile", True)
    project.change("train.gradient_checkpointing", True)
    refused(
        cli("check", project.config),
        "train.validate_steps: missing; it is required for patience: 2 and keep: best", "alpha_schedule.adda", "Did you mean 'ada'?",
        "train.compile: it has no effect together with gradient_checkpointing",
    )  # fmt: skip


def test_looks_at_validation_questions_that_are_not_there_are_told_before_anything_is_spent(cli, project):
    project.change("train.validate_steps", 1)
    project.change("data.cut", {"valid": 0.0, "test": 0.3})
    for command in ("check", "run"):
        refused(cli(command, project.config), "train.validate_steps needs validation questions")
    assert not project.run.exists()


def test_a_key_that_stands_there_twice_is_told(cli, project):
    text = project.config.read_text("utf-8")
    project.config.write_text(f"{text}\ntrain: {{epochs: 3}}\n", "utf-8")
    refused(cli("check", project.config), "train: lines", "keep one")


def test_the_best_student_is_kept_from_the_command_line(cli, project):
    for setting in ("validate_steps", "patience"):
        project.change(f"train.{setting}", 1)
    project.change("train.keep", "best")
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    figures = json.loads(said.out)["train"]
    assert (
        figures["best_step"] == 1
        or figures["valid_accuracy"]["1"] < figures["valid_accuracy"][str(figures["best_step"])]
    )
    assert "the best on the validation questions" in said.err


def test_ask_answers_and_explains(cli, project):
    cli("run", project.config)
    said = cli("ask", project.run, "Which is cold?", "-c", "ice", "-c", "fire", "--explain", "--json")
    assert said.code == 0, said.err
    answered = json.loads(said.out)
    assert answered["text"] in {"ice", "fire"}
    assert sum(answered["probabilities"]) == pytest.approx(1)
    assert set(answered["rationales"]) == {"ada", "bob"}
    assert "%" in cli("ask", project.run, "Which is cold?", "-c", "ice", "-c", "fire").out
    silent = _answer_text(["a"], {"choice": 0, "probabilities": [1.0], "rationales": {"ada": ""}})
    assert "as ada: (the student ended without a text" in silent
    alone = cli("ask", project.run, "Which is cold?", "-c", "ice")
    assert (alone.code, "two or more different choices" in alone.err) == (2, True)


def test_a_student_that_is_not_shown_the_choices_does_not_mind_a_long_one(cli, project):
    project.change("student.layout", "cloze")
    cli("run", project.config)
    student = read_student(project.run / "student")
    choices = ("ice", "a green leaf in the sun beside the moon and all of the stars", "iron")
    score = score_options(student, student.learner(), [Question("asked", "Which is cold?", choices, 0)])[0]
    said = cli("ask", project.run, "Which is cold?", *(a for c in choices for a in ("-c", c)), "--json")
    assert json.loads(said.out)["text"] == choices[score.best_normalised]
    assert json.loads(said.out)["probabilities"][1] > 0.01  # by the total it would be next to nothing


def test_fine_tuning_needs_no_teachers(cli, project):
    project.change("teachers", [])
    project.change("train.method", "fine-tuning")
    said = cli("run", project.config)
    assert said.code == 0, said.err


def test_the_preset_release_is_taken_and_named(cli, project):
    project.change("preset", "release")
    project.change("train.max_input_tokens", 200)
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    metrics = json.loads(said.out)
    assert metrics["preset"] == "release"
    assert set(metrics["accuracy"]) == {"generation"}
    card = (project.run / "student" / "README.md").read_text(encoding="utf-8")
    assert "| `ada` | `explain: ` |" in card
    assert "| `bob` | `rationale: ` |" in card


def test_real_questions_teach_a_tiny_t5(cli, project):
    folder = repository().parent / "shared" / "data" / "obqa"
    if not folder.is_dir():
        pytest.skip("the shared data are not there")
    project.tree["data"] = {"dataset": "obqa", "folder": str(folder), "limit": 24}
    project.tree["teachers"] = [{"name": n, "kind": "given"} for n in ("flan-t5-xl", "llama-2-7b-chat")]
    project.change("train.max_steps", 3)
    said = cli("run", project.config, "--json")
    assert said.code == 0, said.err
    metrics = json.loads(said.out)
    assert metrics["teachers"]["flan-t5-xl"]["rationales"] >= 20
    log = read_jsonl(project.run / "train_log.jsonl")
    assert len(log) == 3
    assert log[-1]["loss"] < log[0]["loss"]


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_several_mistakes_in_one_message(cli, project):
    project.tree["trian"] = {}
    project.tree["train"] |= {"lerning_rate": 1, "alpha": {"ada": 1.0, "bop": 1.0}}
    project.tree["teachers"][0]["kind"] = "skripted"
    project.save()
    refused(
        cli("run", project.config),
        "problems",
        "trian: unknown key. Did you mean 'train'?",
        "train.lerning_rate: unknown key. Did you mean 'learning_rate'?",
        "unknown kind 'skripted'. Did you mean 'scripted'?",
        "train.alpha.bop: no such teacher. Did you mean 'bob'?",
        "line ",
    )
    assert not project.run.exists()


def test_a_mistake_on_the_command_line_is_not_laid_to_a_line_of_the_file(cli, project):
    said = cli("check", project.config, "--set", "train.learning_rat=1", "--set", "train.epochs=many")
    refused(said, "--set train.learning_rat: unknown key", "--set train.epochs: a whole number is needed, got 'many'")
    assert "line " not in said.err


def test_what_is_to_be_done_next_has_the_options_of_what_was_done(cli, project):
    said = cli("check", project.config, "--run-dir", "else where", "--set", "train.seed=1")
    assert said.code == 0, said.err
    assert f"Next: tinyllm run {project.config} --run-dir 'else where' --set train.seed=1" in said.out


def test_a_run_folder_that_is_a_file_and_an_engine_that_is_not_there_are_found_by_check(cli, project, monkeypatch):
    refused(cli("check", project.config, "--run-dir", project.config), "is a file, so no folder can be made at")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    refused(cli("check", project.config, "--set", "rationales.engine=ray"), "needs Ray")


def test_alpha_and_teachers_must_agree(cli, project):
    project.change("train.alpha", {"ada": 1.0, "bop": 0.5})
    refused(
        cli("run", project.config),
        "no such teacher. Did you mean 'bob'?",
        "teacher 'bob' has no weight; add `bob: 1.0`",
    )
    project.change("train.alpha", 1.0)
    project.tree["teachers"][1]["name"] = "ada"
    project.save()
    refused(cli("run", project.config), "the name 'ada' is used 2 times")


def test_a_configuration_that_is_not_there_or_not_yaml(cli, project):
    refused(cli("run", "tinyllm.yml"), "There is no configuration tinyllm.yml", "Did you mean 'tinyllm.yaml'?")
    (project.folder / ".hooks.yaml").write_text("{}", encoding="utf-8")
    refused(cli("run", "other.yaml"), "Configurations there: tinyllm.yaml.")
    project.config.write_text("data: [1, 2\ntrain: {", encoding="utf-8")
    refused(cli("run", project.config), "tinyllm.yaml, line 2: not YAML")
    project.config.write_bytes(b"name: \xff\xfe")
    refused(cli("run", project.config), "is not UTF-8 (byte 6)")
    refused(cli("run", project.folder), "There is no configuration")


def test_a_command_that_is_like_no_other_is_answered_by_all_of_them(cli):
    refused(cli("store", "show"), "The commands: ls, export, import, prune, salvage.")
    refused(cli("models", "lst"), "Did you mean 'list'?")
    refused(
        cli("ask", "runs/mine", "What", "is", "it?", "-c", "a", "-c", "b"),
        "A text with blanks stands in quotation marks.",
    )


def test_check_says_where_the_steps_end_before_max_steps_and_how_long_all_takes(cli, project):
    said = cli("check", project.config, "--set", "train.max_steps=500").out
    assert "  train.max_steps: 500 is not reached in 1 epoch; train.epochs allows more\n" in said
    assert "  Training and evaluation take a minute or less on this machine\n" in said
    assert "is not reached" not in cli("check", project.config, "--set", "train.max_steps=2").out


def test_a_setting_without_an_equals_sign(cli, project):
    refused(cli("check", project.config, "--set", "train.epochs", "1"), "Write --set train.epochs=1")
    refused(cli("check", project.config, "--set", "train.epochs"), "as in --set train.epochs=VALUE")
    refused(cli("check", project.config, "--set", "epochs"), "as in --set train.seed=1")


BAD_ROWS = [
    ('{"id": "x", "question": "Why', "line 3: ", "not"),
    ({**rows(1)[0], "id": "q1"}, "line 3: ", "q1", "line 2"),
    ({**rows(1)[0], "id": "x", "choices": ["only"]}, "line 3: ", "at least two"),
    ({**rows(1)[0], "id": "x", "choices": ["ice", "ice", "iron"]}, "line 3: ", "is there 2 times"),
    ({**rows(1)[0], "id": "x", "answer": 4}, "line 3: ", "4", "0"),
    ({**rows(1)[0], "id": "x", "answer": "water"}, "line 3: ", "water", "answer_as: text"),
    ({"id": "x", "choices": ["a", "b"], "answer": 0}, "line 3: ", "question"),
]


@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: str(case[1:]))
def test_bad_rows_are_named_with_their_line_and_can_be_left_out(cli, project, case):
    bad, *words = case
    project.write_questions([*rows(2), bad, *rows(20)[2:]])
    refused(cli("run", project.config), "questions.jsonl", "data.on_invalid: drop", *words)
    assert not (project.run / "student").exists()

    said = cli("run", project.config, "--set", "data.on_invalid=drop", "--json")
    assert said.code == 0, said.err
    dropped = json.loads(said.out)["data"]["dropped"]
    assert len(dropped) == 1
    assert "line 3" in dropped[0]["where"]
    assert "line 3" in (project.run / "report.html").read_text(encoding="utf-8")


def test_all_problems_of_the_questions_are_told_at_once(cli, project):
    some = rows(20)
    some[1] |= {"id": "q0", "choices": ["only"]}  # two problems of one row
    some[2] |= {"answer": 9}
    some[3] |= {"answer": None}
    some[4] |= {"question": "why " * 300}
    project.write_questions(some)
    said = cli("check", project.config, "--set", "train.max_input_tokens=256", "--set", "data.cut.test=0")
    refused(
        said,
        "questions: 3 problems",
        "line 2: 1 choice; a question needs at least two; add one, or remove the row",
        "line 2: its id is also that of line 1",
        "line 3: answer 9 is out of range",
        "1 of 16 ('q3'), needed to train on",
        "question 'q4': ",
        "data.on_invalid: drop",
    )
    project.write_questions(some)
    project.change("student.model", str(project.folder / "nowhere"))
    refused(cli("check", project.config), "line 3: answer 9", "nowhere")


def test_bad_files(cli, project):
    project.questions.write_bytes(b"")
    refused(cli("run", project.config), "questions.jsonl", "empty")
    project.questions.write_bytes(b'{"id": "caf\xe9"}\n')
    refused(cli("run", project.config), "questions.jsonl", "UTF-8")
    project.questions.rename(project.folder / "question.jsonl")
    refused(cli("run", project.config), "questions.jsonl", "Did you mean", "question.jsonl")


def test_a_choice_twice_that_is_not_the_answer_is_a_counted_warning(cli, project):
    project.write_questions(
        [*rows(19), {**rows(1)[0], "id": "x", "choices": ["ice", "iron", "iron", "tin"], "answer": 0}]
    )
    said = cli("check", project.config, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["warnings"] == {"choice twice": 1}


def test_a_question_longer_than_the_limit(cli, project):
    project.write_questions([*rows(19), {**rows(1)[0], "id": "long", "question": "why " * 300}])
    refused(
        cli("run", project.config, "--set", "train.max_input_tokens=256"),
        "1 questions are longer", "question 'long'", "256 allowed", "train.max_input_tokens", "data.on_invalid: drop",
    )  # fmt: skip
    said = cli("run", project.config, "--set", "train.max_input_tokens=256", "--set", "data.on_invalid=drop", "--json")
    assert said.code == 0, said.err
    assert "'long'" in json.loads(said.out)["data"]["dropped"][0]["where"]


def test_a_student_that_is_not_there(cli, project):
    refused(
        cli("run", project.config, "--set", "student.model=smolm2-135m-instruct"),
        "cannot load",
        "There is no such folder here. Did you mean 'smollm2-135m-instruct'?",  # and the hub was not asked
    )
    refused(cli("run", project.config, "--set", "student.model=no.gguf"), "no file no.gguf")


def test_a_teacher_model_that_is_not_there(cli, project):
    project.change("teachers", [{"name": "g", "kind": "llamacpp", "model": "gema3-270m"}])
    refused(cli("run", project.config), "Teacher 'g'", "Did you mean 'gemma3-270m'?")
    refused(cli("check", project.config), "Teacher 'g'", "Did you mean 'gemma3-270m'?")


def test_an_endpoint_that_does_not_answer(cli, project):
    project.change(
        "teachers",
        [{"name": "far", "kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": None}],
    )
    refused(cli("run", project.config), "Teacher 'far'", "nothing answers at http://127.0.0.1:9/v1", "base_url")
    assert not (project.run / "rationales.parquet").exists()


def test_a_missing_and_a_wrong_key(cli, project, monkeypatch):
    from aiohttp import web

    def wrong_key(_body):
        return web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)

    endpoint = FakeEndpoint(wrong_key)
    with in_thread(endpoint) as url:
        teacher = {"name": "far", "kind": "openai", "model": "m", "base_url": url, "api_key_env": "TINY_TEST_KEY"}
        project.change("teachers", [teacher])
        monkeypatch.delenv("TINY_TEST_KEY", raising=False)
        said = cli("check", project.config)
        assert said.code == 2, "a script goes on to a run that cannot start"
        assert "cannot run yet:\n  Teacher 'far' needs a key, and the environment variable TINY_TEST_KEY" in said.out
        assert "No price is known for 'far'" in said.out
        assert "`price: {prompt: 0.15, completion: 0.6}`" in said.out
        refused(cli("check", project.config, "--pilot", "1"), "TINY_TEST_KEY")
        refused(cli("run", project.config), "TINY_TEST_KEY")
        monkeypatch.setenv("TINY_TEST_KEY", "sk-secret-of-mine")
        said = cli("run", project.config)
        refused(said, "401", "Incorrect API key provided")
        assert "sk-secret" not in said.err
    for file in project.folder.rglob("*"):
        assert not file.is_file() or b"sk-secret" not in file.read_bytes(), file


def test_requests_without_a_reply_end_with_exit_code_3(cli, project):
    from aiohttp import web

    def too_long(_body):
        return web.json_response({"error": {"message": "maximum context length exceeded"}}, status=400)

    with in_thread(FakeEndpoint(too_long)) as url:
        project.tree["teachers"][1] = {
            "name": "bob",
            "kind": "openai",
            "model": "m",
            "base_url": url,
            "api_key_env": None,
        }
        project.save()
        said = cli("run", project.config)
    assert said.code == 3, said.err
    assert "rejected.jsonl" in said.err
    rejected = read_jsonl(project.run / "rejected.jsonl")
    assert {(r["teacher"], r["reason"]) for r in rejected} == {("bob", "too_long")}
    assert "Running the same command again" not in said.err  # it would not help
    assert len(rejected) == 12


def test_a_run_folder_of_another_configuration(cli, project):
    assert cli("run", project.config).code == 0
    before = (project.run / "metrics.json").read_bytes()
    refused(
        cli("run", project.config, "--set", "train.alpha=0.25"),
        "another configuration", "train.alpha: 1.0 → 0.25", "--run-dir",
    )  # fmt: skip
    assert (project.run / "metrics.json").read_bytes() == before


def test_check_tells_a_mistake_together_with_the_run_folder_and_the_questions(cli, project):
    from tinyllm.config import load_config
    from tinyllm.stages.folder import RunFolder

    project.change("teachers", [{"name": "gemma3", "kind": "llamacpp", "model": "gemma3-270m"}])
    project.run.joinpath("student").mkdir(parents=True)
    with RunFolder(project.run).claimed(load_config(project.config)):
        pass
    project.tree["teachers"][0]["model"] = "gema3-270m"
    project.change("opinions.teachers", ["gemma3"])
    missing, folder = "no model 'gema3-270m'. Did you mean 'gemma3-270m'?", "holds a run of another configuration"
    said = cli("check", project.config)
    refused(said, missing, folder, "  - teachers.gemma3.model: 'gemma3-270m' → 'gema3-270m'\nChoose")
    assert said.err.count(missing) == 1
    project.write_questions([*rows(20), {"id": "bad", "question": "?", "choices": ["one"], "answer": 0}])
    refused(cli("check", project.config, "--pilot", "1"), missing, folder, "line 21: 1 choice")


def test_a_run_folder_in_use(cli, project):
    from tinyllm.config import load_config
    from tinyllm.stages.folder import RunFolder

    with RunFolder(project.run).claimed(load_config(project.config)):
        refused(cli("run", project.config), "Another process is at work", "--run-dir")


def test_evaluating_before_training(cli, project):
    refused(cli("evaluate", project.config), "no trained student", "tinyllm train")


def test_the_version(cli):
    said = cli("--version")
    assert (said.code, said.out.startswith("tinyllm 0.")) == (0, True)


def test_an_unknown_option_is_no_traceback(cli, project):
    said = cli("run", project.config, "--fast")
    assert said.code == 2
    assert "--fast" in said.err


def _small_disk(folder) -> bool:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return done.returncode == 0


@pytest.mark.parametrize("stage", ["generate", "train"])
def test_a_full_disk_loses_nothing_and_says_so(cli, project, stage):
    disk = project.folder / "disk"
    if not _small_disk(disk):
        pytest.skip("a small disk can be mounted by root only")
    try:
        if stage == "generate":
            (disk / "ballast").write_bytes(b"x" * 360_000)
            project.change("rationales.store", str(disk / "replies.sqlite"))
            refused(cli("generate", project.config), "The disk is full", "Free some space")
            (disk / "ballast").unlink()
            assert cli("generate", project.config).code == 0
        else:
            assert cli("generate", project.config, "--run-dir", disk / "run").code == 0
            (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - 40_000))
            refused(cli("train", project.config, "--run-dir", disk / "run"), "The disk is full", "Free some space")
            assert not (disk / "run" / "student").exists()
            (disk / "ballast").unlink()
            assert (disk / "run" / "rationales.parquet").is_file()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_an_interrupted_training_keeps_its_checkpoint_and_goes_on(project):
    project.change("train.epochs", 40)
    process = start_tinyllm("run", project.config)
    log = project.run / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) > 5):
        assert process.poll() is None, process.err
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.err
    assert "Finishing this step and saving it; Ctrl-C again stops at once." in process.err
    assert "Everything finished so far is kept" in process.err
    assert "Traceback" not in process.err
    steps = len(log.read_text(encoding="utf-8").splitlines())
    assert (project.run / "checkpoints" / f"checkpoint-{steps}" / "trainer_state.json").is_file()

    done = run_tinyllm("run", project.config)
    assert done.returncode == 0, done.err
    lines = [json.loads(line)["step"] for line in log.read_text(encoding="utf-8").splitlines()]
    assert lines == list(range(1, 121))


def test_the_end_of_the_program_looks_for_no_cycles():
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0))\n"
        "from tinyllm.cli import main\n"
        "main(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert "frozen True" in done.stdout, done.stderr


def test_help_loads_no_heavy_package():
    code = (
        "import sys, tinyllm.cli\n"
        "try: tinyllm.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'pyarrow', 'pydantic', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"import-release" in done.stdout
