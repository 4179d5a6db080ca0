"""Learning from pooled opinions, with and without answers."""

from __future__ import annotations

import json
import math
import re

import pytest
from aiohttp import web

from projects import Project, in_thread, rows
from teachers.fake_endpoint import FakeEndpoint, good
from tinyllm.cli import main
from tinyllm.config import Config, SoftSection, load_config
from tinyllm.errors import DataError
from tinyllm.inference import load
from tinyllm.rationales.files import read_rationales
from tinyllm.report import verdict_in_words
from tinyllm.stages._prepare import prepare_training
from tinyllm.stages._soft import _mixed, explained, taught, weak_teachers
from tinyllm.stages.asking import opened_asking
from tinyllm.stages.check import checked_questions
from tinyllm.stages.folder import RunFolder
from tinyllm.stages.train import plan_run
from tinyllm.system.news import News

UNLABELLED = """question,A,B,C
Which metal is liquid at room temperature?,Iron,Mercury,Gold
Which is a mammal?,The trout,The bat,The wasp
What do we call the study of numbers?,Arithmetic,Botany,Geology
"""
KNOWS = ("Mercury", "The bat", "Arithmetic", "iron")


def opinion(number: int, *, right: float = 0.8) -> dict[str, list[float]]:
    """An opinion that is right on all but every fifth question."""
    best = number % 4 if number % 5 else (number + 1) % 4
    return {"expert": [right if k == best else (1 - right) / 3 for k in range(4)], "dull": [1.0, 1.0, 1.0, 1.0]}


def with_opinions(count: int, first: int = 0) -> list[dict]:
    lines = rows(first + count)[first:]
    return [row | {"opinions": opinion(int(row["id"][1:]))} for row in lines]


@pytest.fixture
def project(tmp_path, tiny_t5) -> Project:
    """40 questions (4 of them for validation), and 20 more without answers; opinions come with all of them."""
    made = Project(tmp_path, tiny_t5)
    made.write_questions(with_opinions(40))
    extra = [row | {"answer": None, "question": f"And which of them is {row['id']}?"} for row in with_opinions(20, 40)]
    (tmp_path / "extra.jsonl").write_text("".join(json.dumps(row) + "\n" for row in extra))
    made.tree["data"] |= {"more": [str(tmp_path / "extra.jsonl")]}
    made.tree["teachers"] = [{"name": "expert", "kind": "given"}, {"name": "dull", "kind": "given"}]
    made.tree["opinions"] = {"teachers": ["expert", "dull"]}
    made.tree["train"] |= {"method": "fine-tuning", "answer": "choices", "soft": {"weight": 0.25, "trust": 0}}
    made.tree["evaluate"]["before"] = False
    made.save()
    return made


def run(project: Project, command: str = "run", *more: str) -> int:
    quiet = () if command == "check" else ("--quiet",)
    with pytest.raises(SystemExit) as ended:
        main([command, str(project.config), "--run-dir", str(project.run), *quiet, *more])
    return ended.value.code


def prepared(project: Project):
    """The questions that would be learnt, with their targets."""
    config, folder = load_config(project.config), RunFolder(project.run)
    splits, _ = checked_questions(config, News(quiet=True))
    return taught(config, folder, splits), splits


def test_opinions_are_learnt_with_and_without_answers(project):
    assert run(project) == 0
    figures = json.loads((project.run / "train_result.json").read_text())
    soft = figures["soft"]
    assert figures["targets"] == {"answer (choices)": 24 + 20}
    assert (soft["with_answer"], soft["without_answer"], soft["learnt_without_answer"]) == (24, 20, 20)
    assert soft["weights_from"] == "learned on 24 training questions"  # four validation questions are too few
    assert soft["weights"]["expert"] > 0.5
    found, splits = prepared(project)
    by_id = {q.id: q for q in found.questions}
    assert by_id.keys() == {q.id for q in (*splits.train, *splits.more)}
    assert found.guessed == {q.id for q in splits.more}
    for question in found.questions:
        number = int(re.search(r"q(\d+)$", question.id)[1])
        best = number % 4 if number % 5 else (number + 1) % 4
        shares = found.shares[question.id]
        assert sum(shares) == pytest.approx(1)
        if question.id in found.guessed:
            assert question.answer == best == shares.index(max(shares))
        else:
            assert question.answer == number % 4
            assert shares[question.answer] >= 0.75
    page = (project.run / "report.html").read_text()
    assert "learned on 24 training questions" in page
    assert "20 of 20 without an answer" in page
    assert "explains the pooled opinion" in page  # of the script


def test_the_report_shows_the_opinions_on_training_questions_without_an_answer(project):
    made = with_opinions(30)
    parts = {"train": [row | {"answer": None} for row in made[:10]], "valid": made[10:22], "test": made[22:]}
    for name, part in parts.items():
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    project.change("data", {name: str(project.folder / f"{name}.jsonl") for name in parts})
    project.change("evaluate.before", True)
    assert run(project) == 0
    page = (project.run / "report.html").read_text("utf-8")
    questions = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page)[1])["questions"]
    shown = {q["id"]: dict(q["opinions"]) for q in questions if q["split"] == "train"}
    assert len(shown) == 3  # evaluate.train_questions
    assert shown["q1"].keys() == {"expert", "dull", ""}
    assert shown["q1"]["expert"].index(max(shown["q1"]["expert"])) == 1
    assert shown["q1"][""].index(max(shown["q1"][""])) == 1
    assert all(q["answer"] is None for q in questions if q["split"] == "train")
    assert not any("opinions" in q for q in questions if q["split"] == "test")  # nobody is asked about them


def test_the_plan_has_the_pooled_opinions_as_targets(project):
    assert run(project, "generate") == 0
    found, _ = prepared(project)
    plan = plan_run(load_config(project.config), RunFolder(project.run), News(quiet=True)).plan
    learnt = {rows_[0].question_id: tuple(b.share for row in rows_ for b in row.branches) for rows_ in plan.questions}
    assert learnt.keys() == found.shares.keys()
    for name, shares in found.shares.items():
        assert learnt[name] == pytest.approx(shares)


def test_questions_with_a_pooled_opinion_below_trust_are_left_out(project):
    assert run(project, "generate") == 0
    project.change("train.soft", {"teachers": {"expert": 1.0}, "trust": 0.9})
    found, _ = prepared(project)
    assert (found.figures["untrusted"], len(found.questions), found.guessed) == (20, 24, frozenset())
    project.change("train.soft", {"teachers": {"expert": 1.0}, "trust": 0.7})
    assert len(prepared(project)[0].guessed) == 20
    project.change("train.soft", {"teachers": {"expert": 1.0}, "temperature": 100, "trust": 0.7})
    found, _ = prepared(project)  # trust looks at the opinion, and the target at its temperature
    assert len(found.guessed) == 20
    assert max(max(found.shares[name]) for name in found.guessed) < 0.27


def test_check_says_that_questions_below_trust_make_fewer_steps(project, capsys):
    project.change("train.soft", {"teachers": {"expert": 1.0}, "trust": 0.9})
    assert run(project, "check") == 0
    assert (
        "Training: at most 11 optimizer steps\n  Of 20 questions without an answer, those below train.soft.trust are left out\n"
        in capsys.readouterr().out
    )
    assert run(project) == 0
    assert json.loads((project.run / "train_result.json").read_text())["steps"] == 6
    assert run(project, "check", "--set", "train.soft.trust=0", "--run-dir", str(project.folder / "new")) == 0
    assert "Training: 11 optimizer steps\n" in capsys.readouterr().out


def test_the_control_learns_from_opinions_on_other_questions(project):
    assert run(project, "generate") == 0
    own, _ = prepared(project)
    project.change("train.soft.shuffle", True)
    found, _ = prepared(project)
    assert found.figures["shuffled"]
    assert [q.id for q in found.questions] == [q.id for q in own.questions]
    assert {q.answer for q in found.questions if q.id in found.guessed} == {0, 1, 2, 3}
    assert sum(found.shares[q.id] != own.shares[q.id] for q in own.questions) > 20
    known = {q.id: q.answer for q in found.questions if q.id not in found.guessed}
    assert known == {q.id: q.answer for q in own.questions if q.id not in own.guessed}
    assert run(project, "run") == 0


def test_with_answer_text_the_target_is_the_choice_of_the_pooled_opinion(project, capsys):
    project.change("train.answer", "text")
    assert run(project, "generate") == 0
    assert run(project, "train") == 0
    assert json.loads((project.run / "train_result.json").read_text())["targets"] == {"answer": 44}
    with pytest.raises(SystemExit):
        main(["check", str(project.config), "--run-dir", str(project.run)])
    said = capsys.readouterr()
    assert "learns only the likeliest choice of the pooled opinion" in said.err + said.out
    assert "20 questions without an answer are learnt from the teachers' pooled opinions" in said.err + said.out


def test_a_trained_run_refuses_other_opinions(project, capsys):
    assert run(project) == 0
    project.change("opinions", {"teachers": ["expert"], "seed": 1})
    assert run(project) == 2
    assert "opinions.seed" in capsys.readouterr().err
    project.change("opinions", {"teachers": ["expert", "dull"]})
    before = (project.run / "student").stat().st_mtime_ns
    assert run(project) == 0
    assert (project.run / "student").stat().st_mtime_ns == before  # nothing to do
    lines = [row | {"opinions": opinion(int(row["id"][1:]) + 1)} for row in with_opinions(40)]
    project.write_questions(lines)
    assert run(project) == 0  # other opinions: other targets, so it is trained again
    assert (project.run / "student").stat().st_mtime_ns != before


def test_training_without_the_needed_opinions_is_an_error(project, capsys):
    project.change("train.soft", None)
    assert run(project, "generate") == 0
    project.change("train.soft", {})
    assert run(project, "train") == 2
    assert "no opinions on the questions of data.more" in capsys.readouterr().err
    project.change("train.soft", None)
    assert run(project, "train") == 0  # without opinions, questions without answers are not learnt
    assert json.loads((project.run / "train_result.json").read_text())["targets"] == {"answer (choices)": 24}


def test_rationales_of_pooled_answers_are_marked(project):
    project.tree["teachers"].append({"name": "ada", "kind": "scripted"})
    project.change("train.method", "tinyllm")
    project.change("train.alpha", {"expert": 0, "dull": 0, "ada": 1.0})
    assert run(project, "generate") == 0
    assert len(read_rationales(project.run)) == 24
    project.change("rationales", {"pooled": True})
    assert run(project, "check") == 0
    assert run(project, "generate") == 0
    found = read_rationales(project.run)
    assert (len(found), sum(r.pooled for r in found)) == (44, 20)
    assert {r.pooled for r in found if r.question_id.startswith("extra/")} == {True}
    config = load_config(project.config)
    asked, guessed = explained(config, RunFolder(project.run), checked_questions(config, News(quiet=True))[0])
    answers = {q.id: q for q in asked}
    for rationale in found:
        assert answers[rationale.question_id].answer_text in rationale.text
    assert guessed == {r.question_id for r in found if r.pooled}
    assert run(project) == 0
    figures = json.loads((project.run / "train_result.json").read_text())
    assert figures["targets"] == {"answer (choices)": 44, "ada": 44}


def knowing(body):
    """Answer with the letter of the right choice."""
    listed = re.findall(r"^([A-D])\. (.*)$", body["messages"][-1]["content"], re.MULTILINE)
    logits = [2.0 if text in KNOWS else 0.0 for _, text in listed]
    norm = math.log(sum(map(math.exp, logits)))
    top = [{"token": a, "logprob": logit - norm} for (a, _), logit in zip(listed, logits, strict=True)]
    reply = json.loads(good(body).text)
    reply["choices"][0] |= {"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    return web.json_response(reply)


@pytest.mark.parametrize(("answer", "method", "test"), [("choices", "fine-tuning", True), ("text", "tinyllm", False)])
def test_a_student_can_be_trained_without_any_answer(tmp_path, tiny_t5, capsys, answer, method, test):
    project = Project(tmp_path, tiny_t5)
    questions = tmp_path / "unlabelled.csv"
    questions.write_text(UNLABELLED)
    project.tree["data"] = {"train": str(questions), "fields": {"choices": ["A", "B", "C"], "answer": None}}
    project.tree["evaluate"] = {**project.tree.get("evaluate", {}), "before": True}
    if test:  # without answers, too
        (tmp_path / "test.csv").write_text("question,A,B,C\nWhich is a fish?,The trout,The bat,The wasp\n")
        project.tree["data"]["test"] = str(tmp_path / "test.csv")
    project.tree["opinions"] = {"teachers": ["one", "two"], "orders": 3}
    project.tree["train"] |= {"method": method, "answer": answer, "soft": {}, "epochs": 8, "batch_size": 3}
    with in_thread(FakeEndpoint(knowing)) as url:
        of_both = {"kind": "openai", "model": "m", "api_key_env": None, "base_url": url}
        project.tree["teachers"] = [{"name": name, **of_both, "model": name} for name in ("one", "two")]
        project.save()
        assert run(project, "check") == 0
        assert run(project) == 0
    assert "not scored" in capsys.readouterr().out
    assert (project.run / "student" / "config.json").is_file()
    page = (project.run / "report.html").read_text("utf-8")
    assert "No test question has an answer, so the student is not scored." in page
    assert "This run is not complete" not in page
    island = re.search(r'<script type="application/json" id="island">(.*?)</script>', page, re.DOTALL)
    assert island is not None
    shown = json.loads(island[1])["questions"]
    assert [(len(q["opinions"]), q["answer"], "after" in q) for q in shown] == [
        (3, None, True)
    ] * 3  # and the pooled one
    figures = json.loads((project.run / "train_result.json").read_text())
    assert figures["soft"]["learnt_without_answer"] == 3
    assert figures["soft"]["weights"] == {"one": 0.5, "two": 0.5}
    found, _ = prepared(project)
    assert [q.answer_text for q in found.questions] == list(KNOWS[:3])
    assert run(project, "evaluate") == 0
    assert "not scored" in capsys.readouterr().out
    before = (project.run / "metrics.json").read_text()
    assert run(project) == 0
    assert (project.run / "metrics.json").read_text() == before
    chosen = load(project.run).choose("Which is a mammal?", ["The trout", "The bat", "The wasp"])
    assert sum(chosen.probabilities) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"opinions": {}}, "train.soft: no teacher is asked for an opinion"),
        ({"opinions": {"teachers": ["expert"], "splits": ["valid"]}}, "opinions.splits: `train.soft` learns from"),
        ({"train.soft": {"teachers": {"exprt": 1}}}, "not in `opinions.teachers`. Did you mean 'expert'?"),
        ({"train.soft": {"teachers": {"expert": 0}}}, "no teacher has a weight above 0"),
        ({"train.soft": {"teachers": {"expert": -1}}}, "a weight must be a finite number, at least 0, got -1"),
        ({"train.soft": {"weight": 2}}, "train.soft.weight"),
        ({"train.soft": {"weight": 1}, "train.method": "tinyllm"}, "train.soft.weight: 1 uses no answer of a training"),
        ({"train.soft": None, "rationales": {"pooled": True}}, "there is no pooled opinion without `train.soft`"),
        ({"data.more": [{"name": "x"}]}, "data.more[0]: it names no questions; give a file, or exactly one of"),
        ({"data.more": [{"trian": "x"}]}, "data.more[0].trian: unknown key. Did you mean 'train'?"),
        ({"data.more": "extra.jsonl"}, "data.more: a list is needed"),
    ],
)
def test_wrong_settings_are_reported_before_any_request(project, capsys, changes, words):
    for path, value in changes.items():
        project.change(path, value)
    assert run(project, "check") == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_the_error_about_no_question_left_says_what_to_do(project, capsys):
    project.write_questions([row | {"answer": None} for row in with_opinions(40)])
    project.change("train.soft", {"trust": 1.0, "teachers": {"expert": 1.0}})
    assert run(project) == 2
    said = capsys.readouterr().err
    assert "No question is left to train on" in said
    assert "train.soft.trust (1)" in said


def test_a_target_is_a_weighted_mean_of_the_answer_and_the_opinion():
    assert _mixed(1, (0.5, 0.3, 0.2), 0.25) == pytest.approx((0.125, 0.825, 0.05))
    assert _mixed(1, (0.5, 0.3, 0.2), 1.0) == (0.5, 0.3, 0.2)
    assert _mixed(1, (0.5, 0.3, 0.2), 0.0) == (0.0, 1.0, 0.0)


def test_a_weight_of_1_uses_no_answer_of_a_training_question(project):
    """Also where a teacher has no opinion, or one that is not trusted: the student learns nothing there."""
    project.change("train.soft", {"weight": 1, "teachers": {"expert": 1.0}, "trust": 0})
    assert run(project, "generate") == 0
    found, splits = prepared(project)
    assert (found.figures["with_answer"], found.figures["learnt_without_answer"]) == (0, 44)
    assert found.guessed == {q.id for q in (*splits.train, *splits.more)}
    assert all(found.shares[q.id].index(max(found.shares[q.id])) == q.answer for q in found.questions)
    project.change("train.soft", {"weight": 1, "teachers": {"expert": 1.0}, "trust": 0.9})
    with pytest.raises(DataError, match="None of the 44 questions has an answer"):
        prepared(project)


def test_a_weight_of_1_learns_no_rationale_of_a_known_answer(project):
    """Also where other runs have asked for these rationales, as in an experiment."""
    project.tree["teachers"].append({"name": "ada", "kind": "scripted"})
    project.change("train.method", "tinyllm")
    project.change("train.alpha", {"expert": 0, "dull": 0, "ada": 1.0})
    assert run(project, "generate") == 0
    config, folder = load_config(project.config), RunFolder(project.run)
    blind = replace_soft(config, weight=1, teachers={"expert": 1.0}, trust=0)
    splits, _ = checked_questions(config, News(quiet=True))
    assert prepare_training(config, folder, News(quiet=True), splits).targets["ada"] == 24
    assert "ada" not in prepare_training(blind, folder, News(quiet=True), splits).targets
    project.change("rationales", {"pooled": True})
    project.change("train.soft", {"weight": 1, "teachers": {"expert": 1.0}, "trust": 0})
    assert run(project, "generate") == 0
    assert {r.pooled for r in read_rationales(project.run)} == {True}


@pytest.mark.parametrize(("weight", "shown"), [(1, 0), (0.5, 24)])
def test_with_a_weight_of_1_no_prompt_shows_a_known_answer(project, monkeypatch, weight, shown):
    """Neither as an example, nor in a pilot."""
    project.tree["teachers"].append({"name": "ada", "kind": "scripted"})
    project.change("train.method", "tinyllm")
    project.change("train.alpha", {"expert": 0, "dull": 0, "ada": 1.0})
    project.change("rationales", {"pooled": True})
    project.change("train.soft", {"weight": weight, "teachers": {"expert": 1.0}, "trust": 0})
    asked, given = [], []

    def opened(config, folder, questions, *, examples, **more):
        asked.append(len(questions))
        given.append(len(examples))
        return opened_asking(config, folder, questions, examples=examples, **more)

    monkeypatch.setattr("tinyllm.stages.generate.opened_asking", opened)
    monkeypatch.setattr("tinyllm.stages.check.opened_asking", opened)
    assert run(project, "check", "--pilot", "2") == 0
    assert run(project, "generate") == 0
    assert (asked, given) == ([shown, 44], [shown, shown])


def replace_soft(config: Config, **soft) -> Config:
    train = config.train.model_copy(update={"soft": SoftSection(**soft)})
    return config.model_copy(update={"train": train})


@pytest.mark.parametrize(
    ("soft", "said"),
    [
        ({"with_answer": 0, "learnt_without_answer": 9, "shuffled": False}, "opinions, without an answer, helped"),
        ({"with_answer": 3, "learnt_without_answer": 9, "shuffled": False}, "Training helped"),
        ({"with_answer": 0, "learnt_without_answer": 9, "shuffled": True}, "opinions about other questions"),
        (None, "Training helped"),
    ],
)
def test_the_end_of_a_run_says_what_was_really_learnt(soft, said):
    gain = {"difference": 0.2, "ci95": (0.1, 0.3), "p": 0.01, "n": 100}
    accuracy = {"value": 0.5, "n": 100, "ci95": (0.4, 0.6)}
    metrics = {"accuracy": {"likelihood": accuracy}, "gain": {"likelihood": gain}, "majority": 0.45, "chance": 0.25}
    metrics |= {"train": {"soft": soft} if soft else {}, "over_majority": {"likelihood": {"p": 0.3}}}
    told = verdict_in_words(metrics, "likelihood", "Likelihood")
    assert said in told
    assert told.endswith(
        "likelihood. It is not shown to beat always giving the most frequent answer (45.0 %, p = 0.30)."
    )
    metrics["over_majority"]["likelihood"]["p"] = 0.01
    assert verdict_in_words(metrics, "likelihood", "Likelihood").endswith("scored by likelihood.")


@pytest.mark.parametrize(
    ("known", "valid", "taught_by", "student", "told"),
    [
        (40, 40, 0.4, 0.5, True),
        (40, 40, 0.5, 0.4, False),
        (0, 40, 0.4, 0.5, False),
        (40, 39, 0.4, 0.5, False),  # a few validation questions show nothing
        (40, 40, None, 0.5, False),
        (40, 40, 0.4, None, False),
    ],
)
def test_a_student_that_knows_more_than_its_teachers_is_told(known, valid, taught_by, student, told):
    said = list(weak_teachers({"valid_accuracy": taught_by, "valid": valid, "with_answer": known}, student))
    assert bool(said) == told
    assert not told or "right on 50 % of the validation questions, the opinions that it learnt from on 40 %" in said[0]
    assert not list(weak_teachers({}, student))
