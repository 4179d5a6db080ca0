"""The runner: order, failures and interruptions, with places that pretend to work."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from tokenizers import normalizers

from experiments.grids import base, grid_tree, write_dataset, write_grid
from support import save_tiny, tiny_tokenizer
from tinyllm.comparison.answers import Answer, Answers
from tinyllm.comparison.records import Record, cells
from tinyllm.config import build_config, dump_config
from tinyllm.errors import DataError, RunFolderError
from tinyllm.experiments._cell import KEPT, run_job
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._places import LocalProcess
from tinyllm.experiments._runner import Runner
from tinyllm.experiments._shared import Shared, outline, read_questions, write_rationales
from tinyllm.rationales.files import read_rationales
from tinyllm.system.files import write_text
from tinyllm.system.news import News


class Pretending:
    """Writes a record for each job, fails jobs whose key holds a word, and waits while a gate is shut."""

    shared: Shared

    def __init__(self, fails: str = "never", gate: threading.Event | None = None) -> None:
        self.fails, self.gate, self.keys, self.interrupted = fails, gate, [], threading.Event()

    def work(self, job, tell):
        self.keys.append(job.key)
        tell({"event": "progress", "label": "Pretending", "done": 1, "total": 2})
        while self.gate is not None and not self.gate.is_set():
            if self.interrupted.wait(0.01):
                return {"event": "interrupted"}
        if self.fails in job.key:
            return {"event": "failed", "error": "it was to fail"}
        good = 0 if job.settings.get("train.learning_rate") == 1e-3 else 1
        found = Answers.of([Answer(s, "asked", "q", good, (-1.0, -2.0), (-1.0, -2.0)) for s in ("valid", "test")])
        place = cells(Path(job.folder)) / job.key
        found.write(place)
        figures = {"accuracy": found.accuracies(), "seconds": 1.0}
        record = Record(
            place, job.key, job.dataset, job.student, job.method, job.settings, job.seed,
            self.shared.questions[job.dataset, job.student], job.rationales_hash, job.config, figures,
            self.shared.learnt[job.dataset, job.student],
        )  # fmt: skip
        record.write()
        return {"event": "done"}

    def interrupt(self):
        self.interrupted.set()

    def close(self):
        pass


@pytest.fixture
def runner(tmp_path, tiny_t5):
    """A runner of a small grid with changes."""

    def made(**changes):
        experiment = load_experiment(write_grid(tmp_path, grid_tree(tmp_path, tiny_t5, **changes)))
        folder = tmp_path / "out"
        news = News(quiet=True)
        shared = write_rationales(experiment, folder, read_questions(experiment, news), news)
        Pretending.shared = shared
        return Runner(experiment, folder, shared)

    return made


def test_every_run_is_done_once_and_all_of_a_seed_before_the_next(runner):
    one, place = runner(), Pretending()
    one.open()
    one.run([place], lambda _: None)
    assert len(place.keys) == len(set(place.keys)) == 2 * (1 + 2 + 2)
    assert [k[-1] for k in place.keys] == ["0"] * 6 + ["1"] * 4
    again = Pretending()
    runner().run([again], lambda _: None)
    assert again.keys == []


def test_two_places_share_the_runs(runner):
    one, places = runner(), [Pretending(), Pretending()]
    one.run(places, lambda _: None, every_s=0.01)
    assert sorted(places[0].keys + places[1].keys) == sorted(one.board().done)
    assert len(one.board().done) == 10


def test_a_failed_run_is_told_and_the_rest_goes_on_and_it_is_tried_again_next_time(runner, tmp_path):
    one = runner()
    one.open()
    one.run([Pretending(fails="two--tiny--tinyllm")], lambda _: None)
    assert sorted(one.board().failed) == ["two--tiny--tinyllm--seed0", "two--tiny--tinyllm--seed1"]
    assert len(one.board().done) == 8
    assert len(list((tmp_path / "out" / "failed").glob("*.json"))) == 2
    again, place = runner(), Pretending()
    again.open()
    assert not list((tmp_path / "out" / "failed").glob("*.json"))
    again.run([place], lambda _: None)
    assert sorted(place.keys) == sorted(one.board().failed)


def test_the_best_candidate_gets_the_other_seeds(runner):
    one, place = runner(methods=["fine-tuning"], tune={"train.learning_rate": [1e-2, 1e-3]}), Pretending()
    one.run([place], lambda _: None)
    assert [k for k in place.keys if k.startswith("one")] == [
        "one--tiny--fine-tuning--learning_rate=0.01--seed0",
        "one--tiny--fine-tuning--learning_rate=0.001--seed0",
        "one--tiny--fine-tuning--learning_rate=0.001--seed1",
    ]


def test_an_interruption_reaches_the_places_and_keeps_what_is_done(runner):
    one, gate = runner(), threading.Event()
    gate.set()
    place = Pretending(gate=gate)
    seen = []

    def show(board):
        if len(board.done) >= 3 and not seen:
            seen.append(len(board.done))
            gate.clear()
            raise KeyboardInterrupt

    original = place.work

    def slower(job, tell):
        time.sleep(0.03)
        return original(job, tell)

    place.work = slower
    with pytest.raises(KeyboardInterrupt):
        one.run([place], show, every_s=0.01)
    assert place.interrupted.is_set()
    assert not one.board().failed
    assert set(runner().board().done) == set(one.board().done)


def test_records_of_other_settings_are_refused(runner):
    runner().run([Pretending()], lambda _: None)
    with pytest.raises(RunFolderError, match=r"tinyllm--seed0: train\.epochs: 1 → 2"):
        runner(base=base(epochs=2))


def test_a_candidate_that_fails_has_lost_and_the_others_go_on(runner):
    changes = {"methods": ["fine-tuning"], "tune": {"train.learning_rate": [1e-2, 1e-3]}}
    one = runner(**changes)
    one.open()
    one.run([Pretending(fails="one--tiny--fine-tuning--learning_rate=0.001")], lambda _: None)
    assert [k for k in one.board().done if k.startswith("one")] == [
        "one--tiny--fine-tuning--learning_rate=0.01--seed0",
        "one--tiny--fine-tuning--learning_rate=0.01--seed1",
    ]


def test_what_a_place_left_damaged_is_a_failure_of_that_run(runner):
    class Liar(Pretending):
        def work(self, job, tell):
            return {"event": "done"} if job.seed == 1 else super().work(job, tell)

    one = runner(methods=["fine-tuning"])
    one.open()
    one.run([Liar()], lambda _: None)
    assert len(one.board().done) == 2
    assert all("run.json is not there" in error for error in one.board().failed.values())


def test_other_rationales_and_other_questions_are_noticed(runner, tmp_path):
    runner().run([Pretending()], lambda _: None)
    file = tmp_path / "one" / "train.jsonl"

    def changed(**_):
        experiment = load_experiment(tmp_path / "grid.yaml")
        news, folder = News(quiet=True), tmp_path / "out"
        return Runner(experiment, folder, write_rationales(experiment, folder, read_questions(experiment, news), news))

    file.write_text(file.read_text().replace("always that", "sometimes that"))
    with pytest.raises(RunFolderError, match="one--tiny--tinyllm--seed0: the rationales or opinions have changed"):
        changed()
    test = tmp_path / "two" / "test.jsonl"
    test.write_text(test.read_text().replace("number 3", "number three"))
    with pytest.raises(
        RunFolderError, match="two--tiny--inference--seed0: the test questions, or the rules of scoring, have changed"
    ):
        changed()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_other_questions_to_learn_from_or_to_choose_by_are_noticed(runner, tmp_path, split):
    """Otherwise a table would average over runs with different questions."""
    runner().run([Pretending()], lambda _: None)
    file = tmp_path / "one" / f"{split}.jsonl"
    file.write_text(file.read_text().replace("number 3", "number three"))
    experiment, folder, news = load_experiment(tmp_path / "grid.yaml"), tmp_path / "out", News(quiet=True)
    shared = write_rationales(experiment, folder, read_questions(experiment, news), news)
    with pytest.raises(RunFolderError) as caught:
        Runner(experiment, folder, shared)
    assert "one--tiny--fine-tuning--seed1: the training or validation questions have changed" in str(caught.value)
    assert "inference" not in str(caught.value)  # it learns from none
    assert "two--" not in str(caught.value)


def test_of_older_runs_it_is_said_that_their_questions_are_not_known(runner, tmp_path):
    runner(methods=["fine-tuning"]).run([Pretending()], lambda _: None)
    for file in cells(tmp_path / "out").glob("*--seed1/run.json"):
        raw = json.loads(file.read_text())
        raw.pop("learnt")
        file.write_text(json.dumps(raw))
    assert runner(methods=["fine-tuning"]).undated() == 2


def with_eve():
    """The settings of all runs with a third teacher."""
    settings = base()
    settings["teachers"].append({"name": "eve", "kind": "scripted"})
    return settings


def test_runs_that_learn_from_no_teacher_do_not_mind_another_one(runner):
    runner(methods=["inference", "fine-tuning"]).run([Pretending()], lambda _: None)
    more, place = runner(base=with_eve(), methods=["inference", "fine-tuning", "shuffled"]), Pretending()
    more.run([place], lambda _: None)
    assert not more.board().failed
    assert {k.split("--")[2] for k in place.keys} == {"shuffled"}


def test_what_is_not_trained_does_not_mind_how_the_others_are(runner):
    runner(methods=["inference", "fine-tuning"]).run([Pretending()], lambda _: None)
    with pytest.raises(RunFolderError) as caught:
        runner(base=base(learning_rate=1e-3), methods=["inference", "fine-tuning"])
    assert "fine-tuning--seed0: train.learning_rate" in str(caught.value)
    assert "inference" not in str(caught.value)
    with pytest.raises(RunFolderError, match=r"inference--seed0: train\.max_input_tokens"):
        runner(base=base(max_input_tokens=500), methods=["inference"], baseline="inference")


def test_views_that_finished_runs_were_not_asked_in_are_told(runner):
    runner(views=["asked"], seeds=[0]).run([Pretending()], lambda _: None)
    assert runner(views=["asked"], seeds=[0]).views_lacking() == set()
    assert runner(views=["asked", "rotated"], seeds=[0]).views_lacking() == {"rotated"}


def test_teachers_that_a_run_does_not_learn_from_may_come_and_go(runner):
    runner(methods=["fine-tuning", "step-by-step"]).run([Pretending()], lambda _: None)
    more, place = runner(base=with_eve(), methods=["fine-tuning", "step-by-step"]), Pretending()
    more.run([place], lambda _: None)
    assert {k.split("--")[2] for k in place.keys} == {"step-by-step_eve"}


def test_a_student_that_was_kept_stays(runner, tmp_path):
    runner(keep_students=True).run([Pretending()], lambda _: None)
    kept, other = (tmp_path / "out" / "work" / f"one--tiny--tinyllm--seed{s}" for s in (0, 1))
    for folder in (kept, other):
        (folder / "student").mkdir(parents=True)
    (kept / KEPT).touch()
    runner().open()
    assert kept.is_dir()
    assert not other.exists()


def test_work_of_other_settings_goes_also_where_it_is_not_wanted_yet(runner, tmp_path):
    """The second seed is needed only after the first has chosen. Work of an earlier grid must not be in its way."""
    one = runner(tune={"train.learning_rate": [1e-3, 1e-2]})
    work = tmp_path / "out" / "work" / "one--tiny--tinyllm--learning_rate=0.01--seed1"
    write_text(work / "config.yaml", dump_config(build_config({"data": {"dataset": "starter"}, "preset": "release",
                                                               "train": {"method": "fine-tuning"}})))  # fmt: skip
    one.open()
    assert not work.exists()


def test_who_has_no_weight_is_not_asked(runner, tmp_path):
    runner(base=base(alpha={"ada": 1.0, "bob": 0.0}))
    found = {r.teacher for file in (tmp_path / "out" / "shared").iterdir() for r in read_rationales(file)}
    assert found == {"ada"}


def test_an_interruption_that_comes_before_there_is_a_process_is_not_lost(runner):
    place = LocalProcess(0, 1, 0)
    place.interrupt()
    one = runner()
    try:
        assert place.work(one.job(one.board().left[0]), lambda _: None) == {"event": "interrupted"}
    finally:
        place.close()


def test_questions_that_change_while_an_experiment_runs_fail_their_run(runner, tmp_path):
    one = runner()
    job = one.job(next(c for c in one.board().left if c.dataset == "two" and c.method == "inference"))
    test = tmp_path / "two" / "test.jsonl"
    test.write_text(test.read_text().replace("number 3", "number three"))
    with pytest.raises(DataError, match="test questions of two are not those with which the experiment started"):
        run_job(job, News(quiet=True))
    job = one.job(next(c for c in one.board().left if c.dataset == "one" and c.method == "fine-tuning"))
    valid = tmp_path / "one" / "valid.jsonl"
    valid.write_text(valid.read_text().replace("number 3", "number three"))
    with pytest.raises(DataError, match="training or validation questions of one are not those"):
        run_job(job, News(quiet=True))


def test_more_seeds_and_methods_go_on_with_what_is_there(runner):
    runner().run([Pretending()], lambda _: None)
    more, place = runner(seeds=[0, 1, 2], methods=["inference", "fine-tuning", "tinyllm", "shuffled"]), Pretending()
    more.run([place], lambda _: None)
    assert len(place.keys) == 2 * (2 + 3)  # a third seed of two methods, three seeds of a new one


def test_the_outline_knows_what_is_met_in_validation_and_what_the_majority_answer_gets_right(runner):
    long = {"name": "long", "like": "tinyllm", "set": {"train": {"epochs": 3}}}
    one = runner(methods=["fine-tuning", long, "tinyllm", "shuffled"])
    found = outline(one.experiment, one.shared)
    facts, valid = found.datasets["one"], {f"test{i}" for i in range(8)}  # the same eight are asked in validation
    assert set(facts.valid_exact) == valid
    assert len(facts.exact) == 12
    assert facts.majority == len(facts.majority_right) / 12 == 0.25
    assert found.method("long").settings == {"train": {"epochs": 3}}
    assert found.twin(found.method("shuffled")).id == "tinyllm"  # and not the first of its kind


def test_what_students_are_asked_is_known_of_each_of_them(runner, tmp_path, tiny_t5):
    """Tokenizers differ in which choices they distinguish, so each student answers other questions."""
    others = tmp_path / "others"
    save_tiny(others, "llama")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.save_pretrained(others)
    data = write_dataset(tmp_path / "data")
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    for row in rows[:3]:
        row["choices"] = ["CO2", "CO₂", "iron", "the moon"]
    rows[0]["answer"] = rows[1]["answer"] = rows[2]["answer"] = 0
    (data / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    train = (data / "train.jsonl").read_text()
    long = json.loads(train.splitlines()[0]) | {"id": "long", "question": "Why so? " * 40}
    (data / "train.jsonl").write_text(train + json.dumps(long) + "\n")
    one = runner(
        datasets={"one": {"data": {"folder": str(data), "on_invalid": "drop"}}},
        students={"few": {"student": {"model": str(others)}},
                  "all": {"student": {"model": str(tiny_t5)}, "train": {"max_input_tokens": 200}}},
        methods=["fine-tuning"],
    )  # fmt: skip
    shared = one.shared.splits["one"]
    assert {q.id for q in shared.test} == {r["id"] for r in rows}
    assert "long" in {q.id for q in shared.train}
    assert {"test0", "test1", "test2"} <= {*outline(one.experiment, one.shared).datasets["one"].majority_right}
