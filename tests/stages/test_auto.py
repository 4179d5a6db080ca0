"""`train.method: auto` chooses settings on validation questions, and trains no step twice."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from forked import start_tinyllm
from projects import rows
from tinyllm.comparison._statistics import wilson
from tinyllm.config import build_config, candidates_of, teachers_in_use
from tinyllm.questions import Question, Splits
from tinyllm.stages import _auto
from tinyllm.stages._auto import _Look, _rank, few_to_choose_by, search_of
from tinyllm.student._trainer import PlanTrainer
from tinyllm.student.model import read_student
from tinyllm.system.files import read_jsonl, write_jsonl

_RATES = (1e-5, 1e-2, 3e-2)


def config(**sections):
    tree = {"data": {"train": "q.csv"}, "train": {"method": "auto"}} | sections
    return build_config(tree, source="test")


@pytest.fixture
def searching(project):
    """A project in which three learning rates are tried, its test questions in a file of their own."""
    for split, count in (("train", 16), ("valid", 12), ("test", 6)):
        write_jsonl(project.folder / f"{split}.jsonl", rows(count))
    project.tree["data"] = {split: str(project.folder / f"{split}.jsonl") for split in ("train", "valid", "test")}
    project.tree["train"] = {"method": "auto", "epochs": 3, "batch_size": 4, "save_steps": 1}
    tried = [{"answer": "choices", "learning_rate": rate} for rate in _RATES]
    tried[1] = {"method": "tinyllm", "alpha": 0.5, "learning_rate": _RATES[1]}
    project.change("auto", {"candidates": tried, "rungs": 2, "keep": 3})
    return project


def weights(student: Path):
    return load_file(student / "model.safetensors")


def same(one, other):
    return all(torch.equal(of, other[name]) for name, of in one.items())


# --- what it will try ---------------------------------------------------------------------------------------------


def test_the_default_candidates_depend_on_the_teachers():
    alone = config()
    assert [c.train.method for c in candidates_of(alone)] == ["fine-tuning"] * len(candidates_of(alone))
    assert teachers_in_use(alone) == ()
    taught = config(teachers=[{"name": "ada", "kind": "given"}])
    ways = {(c.train.method, c.train.answer, c.train.rationales) for c in candidates_of(taught)}
    assert ways >= {
        ("fine-tuning", "choices", "target"),
        ("tinyllm", "both", "target"),
        ("tinyllm", "choices", "input"),
    }
    assert [t.name for t in teachers_in_use(taught)] == ["ada"]
    opinions = {"opinions": {"teachers": ["ada"]}, "train": {"method": "auto", "soft": {"weight": 1}}}
    blind = candidates_of(config(teachers=[{"name": "ada", "kind": "given"}], **opinions))
    assert {(c.train.method, c.train.soft.weight) for c in blind} == {("fine-tuning", 1)}, "one learns the answers"
    unheard = config(teachers=[{"name": "ada", "kind": "given"}], auto={"candidates": [{"answer": "choices"}]})
    assert teachers_in_use(unheard) == (), "a teacher is asked although no candidate learns from it"


def test_few_validation_questions_are_told_with_the_width_of_the_interval():
    def told(count, **sections):
        return few_to_choose_by(config(**sections), Splits((), valid=tuple(made(count))))

    assert "on 12 validation questions. The 95 % interval" in told(12)
    assert "is up to 49 points wide" in told(12)
    low, high = wilson(6, 12)
    assert round(100 * (high - low)) == 49
    assert "at least 100 (data.valid, data.cut.valid, train.validate_questions)" in told(99)
    assert told(100) == ""
    assert "on 50 validation questions" in told(100, train={"method": "auto", "validate_questions": 50})
    assert told(12, train={"method": "fine-tuning"}) == ""
    assert told(12, auto={"candidates": [{"answer": "choices"}]}) == ""  # nothing to choose


def test_check_warns_of_few_validation_questions(cli, searching):
    assert (
        "warning: train.method: auto compares settings on 12 validation questions."
        in cli("check", searching.config).err
    )
    searching.change("data.train", str(searching.folder / "valid.jsonl"))
    searching.change("auto.candidates", [{"answer": "choices"}])
    assert "warning: train.method" not in cli("check", searching.config).err


def made(count):
    return (Question(f"q{i}", "Why?", ("x", "y"), 0) for i in range(count))


def test_each_rung_keeps_a_fraction_and_the_last_finishes_the_training():
    tried = [{"learning_rate": 1e-5 * n} for n in range(1, 10)]
    found = search_of(config(auto={"candidates": tried, "budget": 100}), 160)
    assert found.rungs == ((9, 1 / 9), (3, 1 / 3), (1, 1.0))
    assert found.steps == (10,) * 9
    assert found.most_steps == 9 * 1 + 3 * (3 - 1) + (10 - 3)
    assert found.names[:2] == ("learning_rate 1e-05", "learning_rate 2e-05")


def test_a_candidate_is_named_by_the_settings_in_which_it_differs():
    tried = [{"soft": None}, {"soft": {"weight": 0.5}}, {"soft": {"weight": 1, "trust": 0.5}}]
    found = search_of(
        config(
            auto={"candidates": tried, "budget": 100},
            teachers=[{"name": "ada", "kind": "given"}],
            opinions={"teachers": {"ada": "given"}},
            train={"method": "auto", "answer": "choices", "soft": {}},
        ),
        160,
    )
    assert found.names == ("soft off", "soft weight 0.5 trust auto", "soft weight 1 trust 0.5")


def test_the_budget_leaves_out_the_last_candidates():
    tried = [{"learning_rate": 1e-5 * n, "epochs": n} for n in range(1, 10)]
    found = search_of(config(auto={"candidates": tried, "budget": 1.5}), 1600)
    assert found.most_steps <= 1.5 * 900
    assert len(found.names) + len(found.left_out) == 9
    assert found.left_out[-1].startswith("learning_rate 9e-05")
    more = search_of(config(auto={"candidates": tried, "budget": 2.5}), 1600)
    assert len(more.names) > len(found.names)
    alone = search_of(config(auto={"candidates": tried[:1], "rungs": 3}), 1600)
    assert (alone.rungs, alone.most_steps) == (((1, 1.0),), 100)


def test_wrong_candidates_are_reported_before_anything_is_spent(cli, searching):
    searching.change("auto.candidates", [{"learning_rat": 1}, {"answer": "maybe"}, {"method": "auto"}, {"alpha": -1}])
    said = cli("check", searching.config)
    assert said.code == 2
    for words in (
        "auto.candidates[0].learning_rat: unknown key. Did you mean 'learning_rate'?",
        "auto.candidates[1].answer: Input should be 'text', 'choices' or 'both', got 'maybe'",
        "auto.candidates[2].method: a candidate cannot be `auto`; name another method",
        "auto.candidates[3]: train.alpha: a weight must be a finite number, at least 0, got -1",
    ):
        assert words in said.err, said.err


def test_auto_needs_validation_questions(cli, searching):
    searching.change("data", {"train": str(searching.questions), "cut": {"valid": 0, "test": 0.3}})
    said = cli("check", searching.config)
    assert (said.code, "train.method: auto needs validation questions" in said.err) == (2, True)


def test_check_lists_the_candidates_and_the_steps(cli, searching):
    said = cli("check", searching.config)
    assert said.code == 0, said.err
    # 3 candidates x 4 steps, and the 8 that are left of one
    tried = "Training: three settings are tried for a third of the steps, the best one to the end: at most 20 optimizer"
    assert tried in said.out
    assert "1. method fine-tuning, answer choices, learning_rate 1e-05 (12 steps)" in said.out
    assert "2. method tinyllm, answer text, alpha 0.5, learning_rate 0.01 (12 steps)" in said.out
    planned = cli("train", searching.config, "--plan")
    assert (planned.code, "has not chosen yet what is learnt" in planned.err) == (2, True)


def test_candidates_are_ranked_by_accuracy_and_then_by_log_loss():
    looks = [_Look(0, 4, *figures, 1.0) for figures in ((0.3, 1.2), (0.4, 1.5), (0.4, 1.4), (0.2, 1.0))]
    assert [looks.index(look) for look in sorted(looks, key=_rank)] == [2, 1, 0, 3]


# --- the search ---------------------------------------------------------------------------------------------------


def test_the_chosen_candidate_becomes_the_student_and_no_step_is_trained_twice(cli, searching, monkeypatch):
    trained, train = [], PlanTrainer.training_step

    def counted(self, *arguments, **more):
        trained.append(self.state.global_step)
        return train(self, *arguments, **more)

    monkeypatch.setattr(PlanTrainer, "training_step", counted)
    said = cli("run", searching.config, "--json")
    assert said.code == 0, said.err
    assert "warning: train.method: auto compares settings on 12 validation questions." in said.err
    learnt = "test question that is also a training or validation question"
    assert f"warning: 6 × {learnt}." in said.err
    assert json.loads(said.out)["data"]["warnings"][learnt] == 6
    assert len(trained) == 20
    told = [line for line in said.err.splitlines() if line.startswith("  round ")]
    assert len(told) == 4, "not one line a candidate and round"
    assert [line.partition(" %, ")[2].partition(":")[0] for line in told] == ["kept", "stopped", "stopped", "chosen"]
    assert "✓ Trying settings · " in said.err
    assert said.err.count("Loading the student") == 1, "the search tells of its inner tasks"
    found = json.loads((searching.run / "auto.json").read_text())
    chosen = found["candidates"][found["chosen"] - 1]
    looks = [c["looks"] for c in found["candidates"]]
    assert [len(of) for of in looks] == [2 if n + 1 == found["chosen"] else 1 for n in range(3)]
    first = [(of[0]["accuracy"], -of[0]["log_loss"]) for of in looks]
    assert first.index(max(first)) + 1 == found["chosen"]
    assert [line["step"] for line in read_jsonl(searching.run / "train_log.jsonl")] == list(range(1, 13))
    assert found["steps"] == 20
    assert json.loads(said.out)["train"]["chosen"]["name"] == chosen["name"]
    assert not list((searching.run / "auto").glob("*/checkpoints")), "a candidate that does not continue has weights"
    assert len(np.load(searching.run / "learnt.npy")) == 16, "the 12 validation questions are among the 16 of training"
    page = (searching.run / "report.html").read_text("utf-8")
    assert "Settings tried on validation questions" in page
    assert "Its validation accuracy is optimistic, because it is the highest of several." in page
    assert "(chosen)" in page
    again = cli("run", searching.config)
    assert (again.code, "already trained" in again.err, "Trying" in again.err) == (0, True, False)
    assert "warning" not in again.err
    assert "Loading the student" not in again.err

    assert "12 optimizer steps" in cli("train", searching.config, "--plan").out
    others = cli("train", searching.config, "--plan", "--set", "train.epochs=4")
    assert (others.code, "has not chosen yet what is learnt" in others.err) == (2, True)
    assert json.loads((searching.run / "auto.json").read_text()) == found, "a plan changes something"

    searching.change("train", chosen["settings"])
    searching.change("auto", {})
    alone = searching.folder / "alone"
    assert cli("generate", searching.config, "--run-dir", alone).code == 0
    assert cli("train", searching.config, "--run-dir", alone).code == 0
    assert same(weights(searching.run / "student"), weights(alone / "student"))
    assert read_student(searching.run / "student").card == read_student(alone / "student").card


def test_a_setting_that_fails_ends_last(cli, searching):
    searching.change("auto.candidates", [{"answer": "choices", "learning_rate": rate} for rate in (1e38, 1e-2)])
    said = cli("run", searching.config)
    assert said.code == 0, said.err
    assert "note: setting 1 (learning_rate 1e+38) is left: The" in said.err
    assert "round 1: failed: 1. learning_rate 1e+38" in said.err
    found = json.loads((searching.run / "auto.json").read_text())
    assert (found["chosen"], bool(found["candidates"][0]["looks"][0]["failed"])) == (2, True)
    assert ">failed<" in (searching.run / "report.html").read_text("utf-8")


def test_where_every_setting_fails_the_message_names_one_and_the_next_command_tries_again(cli, searching):
    searching.change("auto.candidates", [{"answer": "choices", "learning_rate": rate} for rate in (1e38, 2e38)])
    for _ in range(2):
        said = cli("run", searching.config)
        assert (said.code, "has no setting left to train. The last one, 1. learning_rate 1e+38" in said.err) == (
            2,
            True,
        )
        assert not (searching.run / "auto.json").exists()


def test_the_first_steps_of_a_search_may_be_those_of_the_warm_up(cli, searching):
    searching.change("train.warmup_steps", 5)
    searching.change("auto.rungs", 3)
    said = cli("run", searching.config)
    assert said.code == 0, said.err


def test_auto_does_not_read_the_test_questions(cli, searching):
    searching.change("auto.candidates", [{"learning_rate": rate} for rate in _RATES[1:]])
    searching.change("train.epochs", 1)
    (searching.folder / "test.jsonl").unlink()
    said = cli("train", searching.config)
    assert said.code == 0, said.err
    assert json.loads((searching.run / "auto.json").read_text())["chosen"]
    said = cli("evaluate", searching.config)
    assert (said.code, "no such file" in said.err) == (2, True), "evaluation reads them"


def test_changed_validation_questions_restart_the_search(cli, searching):
    searching.change("auto.candidates", [{"learning_rate": rate} for rate in _RATES[1:]])
    searching.change("train.epochs", 1)
    assert cli("train", searching.config).code == 0
    valid = searching.folder / "valid.jsonl"
    write_jsonl(valid, [r | {"answer": (r["answer"] + 1) % len(r["choices"])} for r in rows(12)])
    said = cli("train", searching.config)
    assert said.code == 0, said.err
    assert "so the search starts again" in said.err


def test_another_choice_replaces_the_student_of_the_earlier_one(cli, searching, monkeypatch):
    """The two differ in the learning rate alone, so they learn the same targets in the same order."""
    searching.change("auto.candidates", [{"learning_rate": rate} for rate in _RATES[1:]])
    searching.change("train.epochs", 1)

    def prefer(rate):
        liked = lambda config, *_: (float(config.train.learning_rate == rate), 1.0)  # noqa: E731
        monkeypatch.setattr(_auto, "validation_scores", liked)

    prefer(_RATES[1])
    assert cli("train", searching.config).code == 0
    first = weights(searching.run / "student")
    write_jsonl(searching.folder / "valid.jsonl", rows(12)[1:])
    prefer(_RATES[2])
    said = cli("train", searching.config)
    assert said.code == 0, said.err
    assert json.loads((searching.run / "auto.json").read_text())["chosen"] == 2
    assert not same(first, weights(searching.run / "student"))
    figures = json.loads((searching.run / "train_result.json").read_text())
    assert figures["chosen"]["name"] == "learning_rate 0.03"
    assert "already trained" in cli("train", searching.config).err


def test_a_killed_search_continues_and_ends_with_the_same_student(cli, searching):
    whole, killed = searching.folder / "whole", searching.folder / "killed"
    for folder in (whole, killed):
        assert cli("generate", searching.config, "--run-dir", folder).code == 0
    assert cli("train", searching.config, "--run-dir", whole).code == 0
    process = start_tinyllm("train", searching.config, "--run-dir", killed, "--quiet")
    log = killed / "auto" / "2" / "train_log.jsonl"
    while not (log.is_file() and len(log.read_text().splitlines()) >= 2):
        assert process.poll() is None, "the training ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    before = json.loads((killed / "auto.json").read_text())
    assert (before["chosen"], len(before["candidates"][0]["looks"])) == (None, 1)
    said = cli("train", searching.config, "--run-dir", killed)
    assert said.code == 0, said.err
    ours, theirs = (json.loads((folder / "auto.json").read_text()) for folder in (killed, whole))
    is_kept = ours["candidates"][0]["looks"][0] == before["candidates"][0]["looks"][0]
    assert is_kept, "a finished candidate was trained again"
    for found in (ours, theirs):
        for look in [look for c in found["candidates"] for look in c["looks"]]:
            del look["seconds"]
    assert ours["candidates"] == theirs["candidates"]
    assert ours["chosen"] == theirs["chosen"]
    assert same(weights(killed / "student"), weights(whole / "student"))
