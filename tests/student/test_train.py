"""Training: resume, several processes, precision, losses that are not finite, what is saved."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from forked import Started, run_together
from support import FAMILIES, TEACHERS, some_questions, some_rationales, tiny_student
from tinyllm.config import ANSWER_TASK, CHOICES_TASK, AnswerKind, LoraSection, TrainSection
from tinyllm.errors import MissingDependencyError, NonFiniteLossError, StudentError
from tinyllm.scoring.score import score_options
from tinyllm.student._checkpoints import (
    FOLDER,
    WEIGHTS_FILE,
    discard_checkpoints,
    gathered_weights,
    load_weights,
    newest_checkpoint,
    put_weights,
    steps_done,
    trained_weights,
    whole,
)
from tinyllm.student._trainer import PlanTrainer
from tinyllm.student._watch import Saving, TrainLog, read_log
from tinyllm.student.mixture import MixtureSettings, mix
from tinyllm.student.model import Student, add_lora, read_student, save_student
from tinyllm.student.train import plan_steps, tokenise, train

TASKS = (ANSWER_TASK, *TEACHERS)
SECTION = TrainSection(batch_size=4, epochs=3, micro_batch_tokens=400, learning_rate=1e-2, save_steps=2, seed=3)


def run_training(
    folder: Path,
    student: Student,
    section: TrainSection = SECTION,
    count: int = 10,
    answer: AnswerKind = "text",
    **more,
):
    questions = some_questions(count)
    settings = MixtureSettings(student.card.prefixes, dict.fromkeys(TEACHERS, 0.5), answer)
    targets = mix("tinyllm", questions, some_rationales(questions, [("q1", "ada")]), settings)
    learner = student.learner()
    rows = tokenise(student.encoder(share_prompt=learner.share_prompt), questions, targets)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    shape = learner.shape(section.micro_batch_tokens)
    plan = plan_steps(rows, section, shape, teachers=TEACHERS, processes=processes)
    return train(student, learner, plan, section, tasks=(*TASKS, CHOICES_TASK), folder=folder, **more)


def weights(student: Student) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in student.model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_every_family_learns_is_saved_and_answers_as_before(tmp_path, family, adapter):
    student = tiny_student(family)
    if adapter == "lora":
        add_lora(student, LoraSection(rank=4, alpha=8), seed=0)
    before = weights(student)
    result = run_training(tmp_path, student)
    log = read_log(tmp_path / "train_log.jsonl")
    assert [line["step"] for line in log] == list(range(1, result.steps + 1))
    assert log[-1]["loss"] < log[0]["loss"]
    assert set(log[0]["losses"]) == set(TASKS)
    total = log[0]["losses"][ANSWER_TASK] + 0.5 * sum(log[0]["losses"][t] for t in TEACHERS)
    assert log[0]["loss"] == pytest.approx(total, rel=1e-4)
    assert any(not torch.equal(before[n], p) for n, p in weights(student).items()), "no weight moved"

    tokens = torch.arange(3, 40)[None]
    inputs = {"input_ids": tokens} | ({"decoder_input_ids": tokens[:, :5]} if student.is_encoder_decoder else {})
    with torch.no_grad():
        answered = student.model.eval()(**inputs).logits
    save_student(student, tmp_path / "student", "# card")
    reloaded = read_student(tmp_path / "student")
    with torch.no_grad():
        torch.testing.assert_close(reloaded.model.eval()(**inputs).logits, answered, rtol=1e-4, atol=1e-5)
    assert reloaded.card == student.card
    assert not list((tmp_path / "student").glob("adapter*")), "adapters are merged, so from_pretrained needs no peft"
    assert not [f for f in (tmp_path / "student").iterdir() if f.suffix in {".bin", ".pt", ".pkl"}]


def test_a_student_that_learns_to_choose_chooses_the_right_answers(tmp_path):
    student, questions = tiny_student("llama"), some_questions(10)
    section = SECTION.model_copy(update={"epochs": 60, "save_steps": None})

    def right() -> int:
        scores = score_options(student, student.learner(learns=False), questions)
        return sum(s.best == q.answer for s, q in zip(scores, questions, strict=True))

    before = right()
    run_training(tmp_path, student, section, answer="choices")
    log = read_log(tmp_path / "train_log.jsonl")
    assert set(log[0]["losses"]) == {CHOICES_TASK, *TEACHERS}
    assert log[-1]["losses"][CHOICES_TASK] < 0.1 * log[0]["losses"][CHOICES_TASK]
    assert before < right() >= 9


def test_lora_trains_adapters_only(tmp_path):
    student = tiny_student("llama")
    add_lora(student, LoraSection(rank=4), seed=0)
    before = weights(student)
    run_training(tmp_path, student, answer="both", until=2)
    moved = {n for n, p in weights(student).items() if not torch.equal(before[n], p)}
    assert moved
    assert all("lora_" in n for n in moved)
    checkpoint = newest_checkpoint(tmp_path / "checkpoints")
    assert (checkpoint / "trained.safetensors").stat().st_size < 100_000


def test_unknown_lora_targets_name_the_modules_there_are():
    with pytest.raises(StudentError, match=r"nonsense.*Linear modules: .*q_proj"):
        add_lora(tiny_student("llama"), LoraSection(targets=("nonsense",)), seed=0)


def train_slowly(folder: Path, family: str) -> None:
    """Train in a process of its own that is to be killed, with a moment for it after each step."""
    add = TrainLog.add

    def slow(log: TrainLog, line: dict) -> None:
        add(log, line)
        time.sleep(0.3)

    TrainLog.add = slow
    run_training(folder, tiny_student(family, dropout=0.1))


@pytest.mark.parametrize(("family", "after"), [("t5", 1), ("t5", 5), ("llama", 3), ("llama", 8)])
def test_a_training_killed_at_any_step_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, family, after):
    whole = tiny_student(family, dropout=0.1)
    run_training(tmp_path / "whole", whole)

    process = Started(train_slowly, tmp_path / "killed", family)
    log = tmp_path / "killed" / "train_log.jsonl"
    deadline = time.monotonic() + 120
    while len(read_log(log)) < after:
        assert process.poll() is None, process.err
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 0 < len(read_log(log)) < 9

    resumed = tiny_student(family, dropout=0.1)
    run_training(tmp_path / "killed", resumed)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(resumed)[name]), name
    timed = {"seconds", "tokens_per_second", "memory_bytes"}
    logs = [[{k: v for k, v in line.items() if k not in timed} for line in read_log(f / "train_log.jsonl")] for f in (tmp_path / "whole", tmp_path / "killed")]  # fmt: skip
    assert logs[0] == logs[1]


@pytest.mark.parametrize("save_steps", [2, None])
def test_a_training_that_stops_on_its_way_goes_on_as_if_it_had_not(tmp_path, save_steps, monkeypatch):
    section = SECTION.model_copy(update={"save_steps": save_steps})
    whole = tiny_student("llama", dropout=0.1)
    run_training(tmp_path / "whole", whole, section)
    trained, train_step = [], PlanTrainer.training_step

    def counted(self, *arguments, **more):
        trained.append(self.state.global_step)
        return train_step(self, *arguments, **more)

    monkeypatch.setattr(PlanTrainer, "training_step", counted)
    for until, done in ((3, 3), (3, 3), (4, 4), (9, 9), (9, 9), (None, 9)):
        torch.manual_seed(until or 0)  # what else a process does meanwhile
        student = tiny_student("llama", dropout=0.1)
        assert run_training(tmp_path / "parts", student, section, until=until).steps == done
    assert [line["step"] for line in read_log(tmp_path / "parts" / "train_log.jsonl")] == list(range(1, 10))
    assert trained == list(range(9)), "no step twice"
    assert all(torch.equal(w, weights(student)[name]) for name, w in weights(whole).items())


def test_a_training_that_has_lost_patience_does_not_go_on(tmp_path):
    looks = {"validate_steps": 1, "patience": 2, "keep": "best"}
    section = SECTION.model_copy(update=looks | {"save_steps": None})
    figures = iter([0.5, 0.6, 0.4, 0.4])
    for until, steps in ((8, 4), (9, 4)):
        student = tiny_student("llama")
        result = run_training(tmp_path, student, section, until=until, validate=lambda: next(figures))
        assert result.steps == steps
    assert result.best_step == 2


@pytest.mark.parametrize(("every_s", "kept"), [(0.0, 4), (3600.0, 0)])
def test_without_a_number_of_steps_a_checkpoint_is_made_by_the_clock(tmp_path, monkeypatch, every_s, kept):
    monkeypatch.setattr("tinyllm.student.train.Saving", partial(Saving, every_s=every_s))
    section = SECTION.model_copy(update={"save_steps": None})

    def killed(done: int, total: int, note: str) -> None:
        if done == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_training(tmp_path / "killed", tiny_student("llama"), section, progress=killed)
    assert steps_done(newest_checkpoint(tmp_path / "killed" / FOLDER)) == kept
    whole, resumed = tiny_student("llama"), tiny_student("llama")
    run_training(tmp_path / "whole", whole, section)
    run_training(tmp_path / "killed", resumed, section)
    assert all(torch.equal(w, weights(resumed)[name]) for name, w in weights(whole).items())


@pytest.mark.parametrize(("save_steps", "saved"), [(3, [3, 6]), (None, [])])
def test_no_checkpoint_is_written_after_the_last_step(tmp_path, save_steps, saved):
    told = []
    section = SECTION.model_copy(update={"save_steps": save_steps, "validate_steps": 9})
    run_training(
        tmp_path,
        tiny_student("llama"),
        section,
        validate=lambda: 0.5,
        progress=lambda step, _, note: told.append((step, note)),
    )
    made = sorted(int(folder.name.split("-")[1]) for folder in (tmp_path / FOLDER).glob("checkpoint-*"))
    assert made == saved
    assert [step for step, note in told if note == "saving a checkpoint"] == saved
    assert (9, "answering the validation questions") in told


def test_a_search_goes_on_from_the_end_of_a_training_so_its_weights_are_kept_and_no_more(tmp_path):
    run_training(tmp_path, tiny_student("llama"), until=9)
    newest = newest_checkpoint(tmp_path / FOLDER)
    assert steps_done(newest) == 9
    assert not (newest / "optimizer.pt").exists()
    assert (newest.with_name("checkpoint-8") / "optimizer.pt").is_file()


def test_a_checkpoint_cut_short_is_ignored(tmp_path):
    run_training(tmp_path, tiny_student("llama"), until=4)
    newest = newest_checkpoint(tmp_path / "checkpoints")
    later = newest.with_name("checkpoint-999")
    later.mkdir()
    (later / "trainer_state.json").write_text('{"global_st', encoding="utf-8")
    assert newest_checkpoint(tmp_path / "checkpoints") == newest
    discard_checkpoints(tmp_path)
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def in_two_processes(work: Callable[..., object], *arguments: object) -> None:
    """Run a function in two processes that know of each other; the first saves what it returns."""
    for rank in run_together(2, _saving, work, *arguments):
        assert rank.returncode == 0, rank.err


def _saving(work: Callable[..., object], file: Path, *arguments: object) -> None:
    torch.set_num_threads(1)
    found = work(*arguments)
    if dist.get_rank() == 0:
        torch.save(found, file)
    dist.destroy_process_group()


def _trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    student = tiny_student("t5")
    run_training(folder, student, answer="both")
    return weights(student)


def test_two_processes_give_the_weights_of_one(tmp_path):
    one = tiny_student("t5")
    run_training(tmp_path / "one", one, answer="both")
    in_two_processes(_trained_weights, tmp_path / "two.pt", tmp_path / "two")
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, weight in weights(one).items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    # AdamW forgets the scale of gradients, so the gradients are compared too.
    for figure in ("loss", "grad_norm"):
        curves = [[line[figure] for line in read_log(tmp_path / f / "train_log.jsonl")] for f in ("one", "two")]
        assert curves[1] == pytest.approx(curves[0], rel=1e-3 if figure == "grad_norm" else 1e-4), figure


def first_loss(learner) -> torch.Tensor:
    """The loss of one micro-batch, with its gradients in the student."""
    questions = some_questions(4)
    prefixes = {ANSWER_TASK: "predict: ", **{t: f"explain as {t}: " for t in TEACHERS}}
    settings = MixtureSettings(prefixes, dict.fromkeys(TEACHERS, 0.5), "both")
    targets = mix("tinyllm", questions, some_rationales(questions), settings)
    rows = tokenise(tiny_student("t5" if learner.is_encoder_decoder else "llama").encoder(), questions, targets)
    plan = plan_steps(rows, SECTION, learner.shape(10_000), teachers=TEACHERS)
    loss, _ = learner(learner.collate(plan[0].micro_batches[0], TASKS))
    loss.backward()
    return loss.detach()


def _sharded(family: str) -> dict[str, object]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    student = tiny_student(family)
    learner, model = student.learner(), student.model
    for layer in model.model.layers if family == "llama" else [*model.encoder.block, *model.decoder.block]:
        fully_shard(layer, mesh=mesh)
    fully_shard(learner, mesh=mesh)
    assert gathered_weights(learner) is not None
    loss = first_loss(learner)
    gradients = {n: whole(p.grad) for n, p in learner.named_parameters()}
    put_weights(learner, trained_weights(learner))
    return {"loss": loss, "weights": trained_weights(learner), "gradients": gradients}


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_student_whose_weights_are_shards_has_the_loss_and_gradients_of_a_whole_one(tmp_path, family):
    one = tiny_student(family)
    loss = first_loss(one.learner())
    in_two_processes(_sharded, tmp_path / "found.pt", family)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert float(found["loss"]) == pytest.approx(float(loss), rel=1e-5)
    for name, parameter in one.model.named_parameters():
        assert torch.equal(found["weights"][f"student.{name}"], parameter.detach()), name
        torch.testing.assert_close(
            found["gradients"][f"student.{name}"], parameter.grad, rtol=1e-4, atol=1e-6, msg=name
        )


def test_fp16_with_t5_is_refused_with_a_reason(tmp_path):
    with pytest.raises(StudentError, match=r"fp16 makes T5 overflow.*bf16"):
        run_training(tmp_path, tiny_student("t5"), SECTION.model_copy(update={"precision": "fp16"}))


def test_a_loss_that_is_not_finite_stops_and_names_step_and_questions(tmp_path):
    student = tiny_student("llama")
    with torch.no_grad():
        student.model.lm_head.weight[:, 0] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"The loss is (nan|inf) at step 1 of 9, on the questions q\d"):
        run_training(tmp_path, student)


def test_bf16_keeps_float32_weights(tmp_path):
    student = tiny_student("t5")
    run_training(tmp_path, student, SECTION.model_copy(update={"precision": "bf16", "epochs": 1}))
    assert {p.dtype for p in student.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_gradient_checkpointing_changes_nothing(tmp_path, family):
    plain, checkpointed = tiny_student(family), tiny_student(family)
    run_training(tmp_path / "a", plain)
    run_training(tmp_path / "b", checkpointed, SECTION.model_copy(update={"gradient_checkpointing": True}))
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(checkpointed)[name], weight, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch.compile looks at what it traces
@pytest.mark.parametrize("adapter", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_compiling_the_layers_changes_nothing(tmp_path, adapter):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    plain, compiled = tiny_student("llama"), tiny_student("llama")
    if adapter == "lora":
        for student in (plain, compiled):
            add_lora(student, LoraSection(rank=2, alpha=4), seed=1)
    run_training(tmp_path / "plain", plain)
    run_training(tmp_path / "compiled", compiled, SECTION.model_copy(update={"compile": True}))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    for name, weight in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], weight, rtol=1e-3, atol=1e-5)
    assert all(m._compiled_call_impl is None for m in compiled.model.modules())


def test_compiling_without_a_compiler_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(StudentError, match="apt-get install g"):
        run_training(tmp_path, tiny_student("llama"), SECTION.model_copy(update={"compile": True}))


def test_tensorboard_gets_the_losses(tmp_path):
    pytest.importorskip("tensorboard")
    run_training(
        tmp_path, tiny_student("llama"), SECTION.model_copy(update={"report_to": ("tensorboard",), "epochs": 1})
    )
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_the_log_is_json_lines(tmp_path):
    run_training(tmp_path, tiny_student("llama"), SECTION.model_copy(update={"epochs": 1}))
    for line in (tmp_path / "train_log.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        assert {"step", "epoch", "loss", "losses", "learning_rate", "grad_norm", "seconds"} <= told.keys()
        assert told["tokens_per_second"] > 0
        assert told["padding_fraction"] == 0
        assert told["memory_bytes"] > 1e7


# --- schedules, validation ---------------------------------------------------------------------------------------


def test_the_weights_of_rationales_fall_and_in_the_end_only_answers_are_learnt(tmp_path):
    section = SECTION.model_copy(update={"alpha_schedule": "linear", "answers_only": 0.34})
    run_training(tmp_path, tiny_student("llama"), section)
    log = read_log(tmp_path / "train_log.jsonl")
    assert [set(line["losses"]) == {ANSWER_TASK} for line in log] == [False] * 6 + [True] * 3
    for line in log:
        factor = 1 - (line["step"] - 1) / 6
        rest = sum(0.5 * factor * line["losses"].get(t, 0) for t in TEACHERS)
        assert line["loss"] == pytest.approx(line["losses"][ANSWER_TASK] + rest, rel=1e-4)


class Accuracies:
    """Says one accuracy after the other, and remembers the weights that it was asked about."""

    def __init__(self, student: Student, *said: float) -> None:
        self.student, self.said, self.seen = student, list(said), []

    def __call__(self) -> float:
        self.seen.append(weights(self.student))
        return self.said[len(self.seen) - 1]


def test_the_best_student_by_validation_accuracy_is_kept(tmp_path):
    student = tiny_student("t5")
    section = SECTION.model_copy(update={"validate_steps": 3, "keep": "best"})
    validate = Accuracies(student, 0.2, 0.6, 0.6)
    result = run_training(tmp_path, student, section, validate=validate)
    assert (result.steps, result.best_step, result.valid_accuracy) == (9, 6, {3: 0.2, 6: 0.6, 9: 0.6})
    assert all(torch.equal(validate.seen[1][n], w) for n, w in weights(student).items())
    log = read_log(tmp_path / "train_log.jsonl")
    assert {line["step"]: line["valid_accuracy"] for line in log if "valid_accuracy" in line} == result.valid_accuracy


def test_training_stops_early_when_patience_is_at_its_end(tmp_path):
    student = tiny_student("llama")
    section = SECTION.model_copy(update={"validate_steps": 1, "patience": 2})
    result = run_training(tmp_path, student, section, validate=Accuracies(student, 0.3, 0.5, 0.4, 0.5, 0.9))
    assert (result.steps, result.best_step) == (4, None)
    assert result.examples_per_second > 0
    assert len(read_log(tmp_path / "train_log.jsonl")) == 4


def test_validation_changes_nothing_of_the_training(tmp_path):
    plain, looked = tiny_student("t5", dropout=0.1), tiny_student("t5", dropout=0.1)
    run_training(tmp_path / "a", plain)
    learner = looked.learner()

    def validate() -> float:
        score_options(looked, learner, some_questions(4))
        return 0.5

    run_training(tmp_path / "b", looked, SECTION.model_copy(update={"validate_steps": 2}), validate=validate)
    assert all(torch.equal(weights(plain)[n], w) for n, w in weights(looked).items())


def test_looking_at_validation_questions_needs_some(tmp_path):
    with pytest.raises(StudentError, match=r"validate_steps needs validation questions.*data.valid"):
        run_training(tmp_path, tiny_student("t5"), SECTION.model_copy(update={"validate_steps": 2}))


def test_the_figures_are_of_the_whole_training_however_seldom_it_is_logged(tmp_path):
    result = run_training(
        tmp_path, tiny_student("t5"), SECTION.model_copy(update={"logging_steps": 100, "save_steps": None})
    )
    assert result.final_loss is not None
    assert result.seconds > 0
    assert [line["step"] for line in read_log(tmp_path / "train_log.jsonl")] == [result.steps]


# --- what must not go wrong in silence ---------------------------------------------------------------------------


def test_a_training_that_moves_no_weight_is_an_error(tmp_path):
    with pytest.raises(StudentError, match="No weight has moved"):
        run_training(tmp_path, tiny_student("t5"), SECTION.model_copy(update={"learning_rate": 1e-30}))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_read_back_unmerged_answer_as_the_trained_student(tmp_path, family):
    student = tiny_student(family)
    add_lora(student, LoraSection(rank=4, alpha=8), seed=0)
    run_training(tmp_path, student, until=9)  # the last step, with a checkpoint
    again = tiny_student(family)
    add_lora(again, LoraSection(rank=4, alpha=8), seed=5)
    load_weights(again.learner(), newest_checkpoint(tmp_path / "checkpoints") / WEIGHTS_FILE)
    scores = [score_options(s, s.learner(), some_questions(4)) for s in (student, again)]
    assert scores[0] == scores[1]


def test_a_saved_student_that_answers_otherwise_is_refused(tmp_path):
    student = tiny_student("llama")
    real = student.model.save_pretrained

    def damaged(folder, **more):
        with torch.no_grad():
            student.model.lm_head.weight.mul_(1.5)
        real(folder, **more)

    student.model.save_pretrained = damaged
    with pytest.raises(StudentError, match="does not answer as the student that was trained"):
        save_student(student, tmp_path / "student", "# card")
    assert not (tmp_path / "student").exists()


def test_loggers_that_are_not_installed_are_named_with_their_remedy(tmp_path):
    section = SECTION.model_copy(update={"report_to": ("wandb", "mlflow")})
    with pytest.raises(MissingDependencyError, match="pip install wandb mlflow"):
        run_training(tmp_path, tiny_student("t5"), section)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        whole = tiny_student("llama")
        run_training(tmp_path / "whole", whole)
        filler = disk / "filler"

        class Fills:
            def __call__(self) -> float:
                if newest_checkpoint(disk / "run" / "checkpoints") is not None and not filler.exists():
                    with filler.open("wb") as file, contextlib.suppress(OSError):
                        while file.write(b"0" * 4096):
                            file.flush()
                    os.truncate(filler, filler.stat().st_size - 32_768)  # room for the log, and none for weights
                return 0.5

        section = SECTION.model_copy(update={"validate_steps": 1, "save_steps": 3})
        with pytest.raises(OSError, match=r"No space left|error 28"):
            run_training(disk / "run", tiny_student("llama"), section, validate=Fills())
        assert newest_checkpoint(disk / "run" / "checkpoints").name == "checkpoint-3"
        filler.unlink()
        resumed = tiny_student("llama")
        run_training(disk / "run", resumed, SECTION)
        assert all(torch.equal(weights(whole)[n], w) for n, w in weights(resumed).items())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
