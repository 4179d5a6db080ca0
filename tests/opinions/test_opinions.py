"""From a configuration to `opinions.parquet`, with real stages, a real store and a real endpoint on this machine."""

from __future__ import annotations

import json
import math
import re
import time

import pyarrow.parquet as pq
import pytest
from aiohttp import web

from projects import Project, in_thread, rows
from teachers.fake_endpoint import FakeEndpoint, good, status
from tinyllm.cli.app import main
from tinyllm.errors import RunFolderError
from tinyllm.opinions.files import read_opinions
from tinyllm.system.files import read_jsonl

LIKES = {"ice": 2.0, "water": 1.0, "iron": 0.0, "the moon": -1.0}  # logits of the choices, the same for each question
PLACES = (1.5, 0.0, 0.0, -0.5)  # bias of the logit at each position


@pytest.fixture
def project(tmp_path, tiny_t5) -> Project:
    made = Project(tmp_path, tiny_t5)
    made.tree["teachers"].append({"name": "cat", "kind": "openai", "model": "m", "api_key_env": None})
    made.change("train.alpha", {"ada": 1.0, "bob": 1.0, "cat": 0.0})
    made.change("opinions", {"teachers": ["cat"], "orders": 4})
    return made


def biased(body):
    """Answer with log-probabilities that depend on the choices' texts and on their places."""
    listed = re.findall(r"^([A-D])\. (.*)$", body["messages"][-1]["content"], re.MULTILINE)
    logits = [LIKES[text] + PLACES[place] for place, (_, text) in enumerate(listed)]
    norm = math.log(sum(map(math.exp, logits)))
    top = [{"token": a, "logprob": logit - norm} for (a, _), logit in zip(listed, logits, strict=True)]
    reply = json.loads(good(body).text)
    reply["choices"][0] |= {"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}
    return web.json_response(reply)


def run(project: Project, command: str = "generate", *more: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([command, str(project.config), "--run-dir", str(project.run), *more])
    return ended.value.code


def figures(project: Project) -> dict:
    return json.loads((project.run / "opinions.json").read_text())


def test_opinions_by_letter_are_stored_averaged_and_counted(project, capsys):
    endpoint = FakeEndpoint(biased)
    with in_thread(endpoint) as url:
        project.tree["teachers"][2]["base_url"] = url
        project.save()
        assert run(project, "check") == 0
        assert "cat (opinions)" in capsys.readouterr().out
        assert endpoint.requests == []
        assert run(project, "generate", "--quiet") == 0
        first = endpoint.requests[0]
        assert (first["logprobs"], first["top_logprobs"], first["max_tokens"]) == (True, 20, 1)
        sent = len(endpoint.requests)
        assert sent == 4 * 12  # four orders of twelve training questions; no rationales are needed
        assert run(project, "generate", "--quiet") == 0  # all replies are in the store
        assert len(endpoint.requests) == sent
    total = sum(map(math.exp, LIKES.values()))
    opinions = list(read_opinions(project.run))
    assert len(opinions) == 12
    for opinion in opinions:  # each choice was at each position, so the bias cancels
        assert opinion.probabilities == pytest.approx([math.exp(v) / total for v in LIKES.values()])
        assert (opinion.way, opinion.orders, opinion.mass) == ("letters", 4, pytest.approx(1.0))
    assert set(pq.read_table(project.run / "opinions.parquet")["split"].to_pylist()) == {"train"}
    found = figures(project)["teachers"]["cat"]
    answers = [int(o.question_id[1:]) % 4 for o in opinions]
    assert found["accuracy"]["value"] == pytest.approx(answers.count(0) / 12)
    assert found["ece"] == pytest.approx(abs(math.exp(2.0) / total - answers.count(0) / 12))
    assert (found["replies"], found["opinions"], found["rejected"]) == (48, 12, {})


def test_opinions_that_nothing_learns_from_are_said_to_be_for_the_report_only(project, capsys):
    told = "they are asked for the report only. To ask for none, add --set opinions=null"
    with in_thread(FakeEndpoint(biased)) as url:
        project.tree["teachers"][2]["base_url"] = url
        project.save()
        for command in ("check", "generate"):
            assert run(project, command) == 0
            assert told in " ".join(capsys.readouterr().err.split())
    nobody = FakeEndpoint(biased)
    with in_thread(nobody) as url:
        project.tree["teachers"][2]["base_url"] = url
        project.save()
        assert run(project, "generate", "--set", "opinions=null") == 0
    assert told not in " ".join(capsys.readouterr().err.split())
    assert nobody.requests == []


def test_an_endpoint_without_logprobs_ends_with_an_error_and_votes_work(project, capsys):
    endpoint = FakeEndpoint(lambda body: good(body, text="B"))
    with in_thread(endpoint) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 2}
        project.save()
        assert run(project, "generate", "--quiet") == 2
        assert "opinions: {teachers: {cat: votes}}" in capsys.readouterr().err
        assert len(endpoint.requests) <= 2  # those in flight; their replies are not stored
        project.change("opinions", {"teachers": {"cat": "votes"}, "votes": 4, "orders": 4})
        assert run(project, "generate", "--quiet") == 0
    for opinion in read_opinions(project.run):  # the teacher always says B, so all choices get the same probability
        assert opinion.probabilities == pytest.approx([0.25] * 4)
        assert (opinion.way, opinion.orders) == ("votes", 4)


def test_opinions_without_a_reply_are_reported_and_asked_again(project, capsys):
    with in_thread(FakeEndpoint(status(500), biased)) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 1, "max_attempts": 1}
        project.save()
        assert run(project, "generate") == 3
        said = capsys.readouterr().err
        assert "1 of cat (opinions) (failed)" in said
        assert "1 request gave none (1 failed), see rejected.jsonl" in said
        (line,) = read_jsonl(project.run / "rejected.jsonl")
        assert (line["teacher"], line["reason"], line["kind"]) == ("cat", "failed", "opinion")
        assert {o.orders for o in read_opinions(project.run)} == {3, 4}  # the opinion uses the other replies
        assert run(project, "generate", "--quiet") == 0
    assert {o.orders for o in read_opinions(project.run)} == {4}
    assert read_jsonl(project.run / "rejected.jsonl") == []


def test_an_endpoint_with_limits_of_its_own_is_asked_within_them(project, capsys):
    def limited(body):
        if body["top_logprobs"] > 5:
            return status(400, "Requested sample logprobs of 20, which is greater than max allowed: 5")(body)
        if body["max_tokens"] < 16:
            return status(400, "Invalid 'max_output_tokens': below minimum value. Expected a value >= 16, got 1.")(body)
        return biased(body)

    endpoint = FakeEndpoint(limited)
    with in_thread(endpoint) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 1}
        project.save()
        assert run(project, "generate") == 0
        assert len(endpoint.requests) == 4 * 12 + 2
        assert run(project, "generate", "--quiet") == 0
        assert len(endpoint.requests) == 4 * 12 + 2  # the store knows both limits, and nothing is paid again
    said = capsys.readouterr().err
    assert "at most 5 log-probabilities" in said
    assert "at least 16 tokens" in said
    assert {o.orders for o in read_opinions(project.run)} == {4}


def test_the_error_about_refused_logprobs_names_votes(project, capsys):
    with in_thread(
        FakeEndpoint(status(400, "Unsupported parameter: 'logprobs' is not supported with this model."))
    ) as url:
        project.tree["teachers"][2]["base_url"] = url
        project.save()
        assert run(project, "generate", "--quiet") == 2
    said = capsys.readouterr().err
    assert "gives no log-probabilities" in said
    assert "{cat: votes}" in said
    assert "Traceback" not in said


def thinking(*switches):
    """A model that thinks first, unless one of the fields `switches` says not to. Other such fields are refused."""

    def answer(body):
        for name in {"chat_template_kwargs", "reasoning_effort"} & body.keys() - {*switches}:
            return web.json_response({"error": {"message": f"Unrecognized request argument: {name}"}}, status=400)
        if any(name in body for name in switches):
            return biased(body)
        reply = json.loads(good(body, text="<think>").text)
        top = [{"token": "<think>", "logprob": -0.01}, {"token": "B", "logprob": -5.0}]
        reply["choices"][0] |= {"logprobs": {"content": [{"token": "<think>", "top_logprobs": top}]}}
        return web.json_response(reply)

    return answer


@pytest.mark.parametrize("switch", ["chat_template_kwargs", "reasoning_effort"])
def test_a_model_that_thinks_is_asked_without_its_thoughts(project, switch):
    endpoint = FakeEndpoint(thinking(switch))
    with in_thread(endpoint) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 1}
        project.save()
        assert run(project, "generate", "--quiet") == 0
    assert switch not in endpoint.requests[0]
    assert len([body for body in endpoint.requests if switch in body]) == 48  # it is learnt once
    assert len(endpoint.requests) <= 50
    assert {o.orders for o in read_opinions(project.run)} == {4}
    assert figures(project)["teachers"]["cat"]["rejected"] == {}


def test_the_error_about_a_model_that_always_thinks_names_votes(project, capsys):
    endpoint = FakeEndpoint(thinking())
    with in_thread(endpoint) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 1}
        project.save()
        assert run(project, "generate", "--quiet") == 2
    said = capsys.readouterr().err
    assert "the model thinks before it answers" in said
    assert "{cat: votes}" in said
    assert len(endpoint.requests) == 3


def test_requests_stop_if_no_reply_begins_with_a_letter(project, capsys):
    def rambles(body):
        time.sleep(0.05)  # the next request is sent while a reply is committed, which a busy disk delays
        reply = json.loads(good(body, text="Okay").text)
        top = [{"token": "Okay", "logprob": -0.1}, {"token": "First", "logprob": -3.0}]
        reply["choices"][0] |= {"logprobs": {"content": [{"token": "Okay", "top_logprobs": top}]}}
        return web.json_response(reply)

    endpoint = FakeEndpoint(rambles)
    with in_thread(endpoint) as url:
        project.tree["teachers"][2] |= {"base_url": url, "concurrency": 1}
        project.save()
        assert run(project, "generate", "--quiet") == 2
    assert "Okay First" in (said := capsys.readouterr().err)
    assert "{cat: votes}" in said
    assert len(endpoint.requests) < 20  # of 48


def test_opinions_that_come_with_the_questions_need_no_teacher(project):
    lines = [r | {"opinions": {"expert": [0, 3, 1, 0], "logs": [-1.0, -2.0, -3.0, -4.0]}} for r in rows(20)]
    project.write_questions(lines)
    project.tree["teachers"][2:] = [{"name": "expert", "kind": "given"}, {"name": "logs", "kind": "given"}]
    project.change("train.alpha", {"ada": 1.0, "bob": 1.0, "expert": 0.0, "logs": 0.0})
    project.change("opinions", {"teachers": ["expert", "logs"], "splits": ["train", "valid"]})
    assert run(project, "generate", "--quiet") == 0
    assert {o.probabilities for o in read_opinions(project.run) if o.teacher == "expert"} == {(0, 0.75, 0.25, 0)}
    assert len([o for o in read_opinions(project.run, "valid") if o.teacher == "logs"]) == 2
    assert figures(project)["agreement"] == [{"teachers": ["expert", "logs"], "n": 14, "same": 0.0}]


def test_changed_settings_remove_the_opinions_but_not_the_rationales(project):
    with in_thread(FakeEndpoint(biased)) as url:
        project.tree["teachers"][2]["base_url"] = url
        project.save()
        assert run(project, "generate", "--quiet") == 0
    before = (project.run / "rationales.parquet").stat().st_mtime_ns
    project.change("opinions", {})
    assert run(project, "generate", "--quiet") == 0
    assert not (project.run / "opinions.parquet").exists()
    assert (project.run / "rationales.parquet").stat().st_mtime_ns >= before
    with pytest.raises(RunFolderError, match="Name teachers in `opinions`"):
        list(read_opinions(project.run))


@pytest.mark.parametrize(
    ("opinions", "words"),
    [
        ({"teachers": ["bab"]}, "no such teacher. Did you mean 'bob'?"),
        ({"teachers": {"ada": "letters"}}, "a teacher of kind scripted cannot be asked with `letters`"),
        ({"teachers": ["cat"], "splits": ["test"]}, "'train' or 'valid'"),
    ],
)
def test_wrong_settings_are_reported_before_any_request(project, capsys, opinions, words):
    project.change("opinions", opinions)
    assert run(project, "check") == 2
    assert words in capsys.readouterr().err


def test_a_wrong_number_of_scores_is_refused(project, capsys):
    project.write_questions([r | {"opinions": {"cat": [1, 2]}} for r in rows(20)])
    assert run(project, "check") == 2
    assert "give one number per choice (4)" in capsys.readouterr().err


def test_the_opinion_of_a_student_is_its_probabilities(project, tmp_path):
    import tinyllm

    alone = ("teachers=[]", "train.method=fine-tuning", "train.alpha=1.0", "opinions.teachers={}")
    assert run(project, "train", "--quiet", *(part for setting in alone for part in ("--set", setting))) == 0
    student = project.run.rename(tmp_path / "earlier")
    card = student / "student" / "tinyllm.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"temperature": 0.02}))
    project.tree["teachers"][2] = {"name": "tot", "kind": "student", "run": str(student), "folds": 0}
    project.change("train.alpha", {"ada": 1.0, "bob": 1.0})
    project.change("opinions", {"teachers": ["tot"]})
    assert run(project, "generate", "--quiet") == 0
    texts = {f"q{n}": row for n, row in enumerate(rows(20))}
    opinions = list(read_opinions(project.run))
    assert len(opinions) == 12
    loaded = tinyllm.load(student)
    for opinion in opinions[:3]:
        row = texts[opinion.question_id]
        asked = loaded.choose(row["question"], row["choices"])
        assert opinion.probabilities == pytest.approx(asked.probabilities, abs=1e-4)
    assert set(json.loads((project.run / "yields.json").read_text())) == {"ada", "bob"}
