"""Generation on Ray: a real Ray on this machine with real workers gives the same result as without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generation import GOOD, REASON, SECTION, Recorder, collect, questions, requests_of, run
from projects import in_thread
from teachers.fake_endpoint import FakeEndpoint, good, slow, status
from tinyllm import config
from tinyllm.errors import MissingDependencyError, TeacherError
from tinyllm.rationales._ray_worker import gpus_of, shared_out
from tinyllm.rationales.generate import Stop
from tinyllm.rationales.ray_engine import _Cluster, _connect, _RayTeacher, generate_on_ray, travels
from tinyllm.replies._store import Store
from tinyllm.spending.budget import Budget
from tinyllm.teachers import make_teacher
from tinyllm.teachers.base import RequestFailed

ADA = config.ScriptedTeacher(name="ada", kind="scripted", template=GOOD)
GIVEN = config.GivenTeacher(name="given", kind="given")
# Ray leaves its subprocesses to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
KEY = "RAY_TEST_KEY"  # set where the workers are, not here


@pytest.fixture(scope="module")
def cluster() -> Iterator[_Cluster]:
    """Ray on this machine, for all tests of this module."""
    ray = pytest.importorskip("ray")
    os.environ[KEY] = "sk-of-the-workers"
    with _Cluster(None) as cluster:
        asyncio.run(cluster.connect())
        del os.environ[KEY]
        yield cluster
    assert not ray.is_initialized()


def made_on_ray(path: Path, asked: Any, specs: Any, section: Any = SECTION, progress: Any = None, **other: Any) -> Any:
    teachers = [make_teacher(spec, asked) for spec in specs]
    with Store(path) as store:
        ended = asyncio.run(
            generate_on_ray(
                requests_of(teachers, asked, section), {spec.name: spec for spec in specs}, store,
                progress or Recorder(), budget=Budget(section.budget, {}), stop=Stop(), **other,
            )
        )  # fmt: skip
        return collect(store, asked, teachers, section, ended)


def endpoint_spec(url: str, **other: Any) -> config.OpenAITeacher:
    return config.OpenAITeacher(
        name="eve", kind="openai", model="m", base_url=url, **{"api_key_env": None, "max_attempts": 1, **other}
    )


# --- the same generation ------------------------------------------------------------------------------------------


def test_a_cluster_gives_the_same_rationales(tmp_path, cluster):
    asked = questions(300)
    here = run(tmp_path / "here", asked, [make_teacher(spec, asked) for spec in (ADA, GIVEN)])
    there = made_on_ray(tmp_path / "there", asked, [ADA, GIVEN], workers=2)
    assert there == here
    assert (there.yields["ada"].rationales, there.yields["given"].missing) == (300, 300)
    with Store(tmp_path / "there") as store:
        assert len(store) == 300


def test_if_everything_is_stored_ray_is_not_needed(tmp_path, cluster):
    asked = questions(20)
    first = made_on_ray(tmp_path / "s", asked, [ADA])
    progress = Recorder()
    second = made_on_ray(tmp_path / "s", asked, [ADA], progress=progress, address="nowhere.invalid:1")
    assert second == first
    assert (progress.standings["ada"].replies, progress.standings["ada"].stored) == (0, 20)


def test_checks_resampling_and_failures_work_on_a_cluster(tmp_path, cluster):
    seen: set[str] = set()

    def answer(body):
        prompt = body["messages"][-1]["content"]
        if "number 3?" in prompt:
            return status(400, "maximum context length is 8 tokens")(body)
        first = prompt not in seen
        seen.add(prompt)
        return good(body, "" if first else REASON)

    section = config.RationalesSection(examples={"strategy": "none"})
    with in_thread(FakeEndpoint(answer)) as url:
        made = made_on_ray(tmp_path / "s", questions(10), [endpoint_spec(url)], section)
    assert {r.text for r in made.rationales} == {REASON}
    assert made.yields["eve"].rationales == 9
    assert made.yields["eve"].resampled == {"empty": 9}
    assert [(r.question_id, r.reason) for r in made.rejections] == [("q3", "too_long")]
    assert "maximum context length" in made.rejections[0].text
    with Store(tmp_path / "s") as store:
        assert len(store) == 18


def test_workers_read_keys_from_their_environment_and_share_limits(tmp_path, cluster):
    endpoint = FakeEndpoint(slow)
    with in_thread(endpoint) as url:
        spec = endpoint_spec(url, concurrency=5, api_key_env=KEY)
        made = made_on_ray(tmp_path / "s", questions(40), [spec], workers=2)
    assert len(made.rationales) == 40
    assert {h["Authorization"] for h in endpoint.headers} == {"Bearer sk-of-the-workers"}
    assert 1 < endpoint.most_in_flight <= 4
    assert b"sk-of-the-workers" not in (tmp_path / "s").read_bytes()


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_teacher_that_gives_up_on_a_node_is_reported_and_others_go_on(tmp_path, cluster, monkeypatch):
    monkeypatch.setenv("ONLY_HERE", "sk-here")
    progress = Recorder()
    with in_thread(FakeEndpoint(status(401, "go away"))) as url:
        without = endpoint_spec(url, api_key_env="ONLY_HERE").model_copy(update={"name": "max"})
        made = made_on_ray(tmp_path / "s", questions(20), [endpoint_spec(url), without, ADA], progress=progress)
    said = {name: str(error) for name, error in progress.gone}
    assert said.keys() == {"eve", "max"}
    assert "go away" in said["eve"]
    assert "ONLY_HERE" in said["max"]
    assert "sk-here" not in said["max"]
    assert all(socket.gethostname() in words for words in said.values())
    assert len(made.ended.errors) == 2
    assert made.yields["ada"].rationales == 20


def test_another_model_on_a_node_is_an_error(cluster):
    async def ask():
        async with _RayTeacher(make_teacher(ADA, ()), ADA.model_copy(update={"template": "{answer}"}), cluster, 1, ()):
            pass

    with pytest.raises(TeacherError, match="is another one here"):
        asyncio.run(ask())


def asked_while(cluster: _Cluster, url: str, happens: Any, *, workers: int = 2, count: int = 40) -> list[Any]:
    """Ask while something happens to the workers."""
    spec, asked = endpoint_spec(url), questions(count)

    async def main() -> list[Any]:
        requests = requests_of([make_teacher(spec, asked)], asked, SECTION)[0].between(0, count)
        async with _RayTeacher(make_teacher(spec, asked), spec, cluster, workers, asked) as teacher:
            await asyncio.gather(*teacher._joining)
            asking = [asyncio.create_task(teacher.ask(r.request)) for r in requests]
            await asyncio.sleep(0.02)
            happens(teacher._ray, teacher._workers)
            return await asyncio.gather(*asking, return_exceptions=True)

    return asyncio.run(main())


def test_a_restarted_worker_gets_its_requests_again(cluster):
    with in_thread(FakeEndpoint(slow)) as url:
        replies = asked_while(cluster, url, lambda ray, them: ray.kill(them[0], no_restart=False), workers=1)
    assert [r.text for r in replies] == ["Because it is so."] * 40


def test_another_worker_gets_the_requests_of_a_dead_worker(cluster):
    with in_thread(FakeEndpoint(slow)) as url:
        replies = asked_while(cluster, url, lambda ray, them: ray.kill(them[0]))
    assert [r.text for r in replies] == ["Because it is so."] * 40


def test_a_teacher_whose_workers_are_all_dead_is_given_up(cluster):
    with in_thread(FakeEndpoint(lambda _: 5.0)) as url:
        replies = asked_while(cluster, url, lambda ray, them: [ray.kill(w) for w in them], count=3)
    assert {type(r) for r in replies} <= {TeacherError, RequestFailed}
    assert any("have died" in str(r) for r in replies)


# --- without Ray --------------------------------------------------------------------------------------------------


def test_without_ray_it_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"tinyllm-distill\[ray\]"):
        made_on_ray(tmp_path / "s", questions(1), [ADA])


def test_an_address_without_a_server_is_reported_at_once():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(TeacherError, match=rf"Ray at {address} cannot be used.*rationales\.ray_address"):
        _connect(None, address)


def test_workers_share_the_limits_of_an_endpoint():
    spec = endpoint_spec("http://h/v1", concurrency=10, requests_per_minute=60)
    workers, part = shared_out(spec, 4)
    assert (workers, part.concurrency, part.requests_per_minute, part.tokens_per_minute) == (4, 2, 15.0, None)
    assert shared_out(endpoint_spec("http://h/v1", concurrency=3), 4)[0] == 3
    assert shared_out(ADA, 4) == (4, ADA)


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ((), 1),
        (("--tensor-parallel-size", "4"), 4),
        (("--max-num-seqs=8", "-tp=2", "--pipeline-parallel-size=2", "--enforce-eager"), 4),
    ],
)
def test_a_worker_of_vllm_gets_the_gpus_that_it_computes_on(arguments, gpus):
    assert gpus_of(config.VllmTeacher(name="v", kind="vllm", model="m", arguments=arguments)) == gpus


def test_only_workers_that_compute_get_a_gpu():
    small = {"name": "t", "model": "m"}
    assert gpus_of(config.TransformersTeacher(kind="transformers", **small)) == 1
    assert gpus_of(config.TransformersTeacher(kind="transformers", device="cpu", **small)) == 0
    assert gpus_of(config.LlamaCppTeacher(kind="llamacpp", gpu_layers=-1, **small)) == 1
    assert gpus_of(config.LlamaCppTeacher(kind="llamacpp", **small)) == 0
    assert gpus_of(endpoint_spec("http://h/v1")) == gpus_of(ADA) == 0


def test_teachers_that_only_wait_stay_on_this_machine():
    assert not travels(config.GivenTeacher(name="g", kind="given"))
    assert not travels(config.OpenAIBatchTeacher(name="b", kind="openai-batch", model="m"))
    assert travels(ADA)
