"""Runs on a real Ray of this machine give the same records as without it."""

from __future__ import annotations

import pytest

from experiments.grids import grid_tree, write_grid
from tinyllm.comparison.records import read_records
from tinyllm.errors import TinyLLMError
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._run import run_experiment
from tinyllm.system.news import News

pytest.importorskip("ray", reason="Ray is not installed (the extra ray)")
# Ray leaves its subprocesses to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


def test_a_cluster_leaves_the_same_records(tmp_path, tiny_llama):
    experiment = load_experiment(
        write_grid(tmp_path, grid_tree(tmp_path, tiny_llama, methods=["fine-tuning", "tinyllm"], seeds=[0]))
    )
    there = run_experiment(experiment, tmp_path / "there", News(quiet=True), ray_address="local", workers=2)
    here = run_experiment(experiment, tmp_path / "here", News(quiet=True))
    assert (there.done, there.failed) == (here.done, {}) == (4, {})
    for mine, theirs in zip(read_records(tmp_path / "here"), read_records(tmp_path / "there"), strict=True):
        assert mine.key == theirs.key
        assert mine.answers.accuracies() == theirs.answers.accuracies()


def test_a_cluster_that_is_not_there_is_one_message(tmp_path, tiny_llama):
    experiment = load_experiment(write_grid(tmp_path, grid_tree(tmp_path, tiny_llama)))
    with pytest.raises(TinyLLMError, match="Ray at 127\\.0\\.0\\.1:9 cannot be used"):
        run_experiment(experiment, tmp_path / "out", News(quiet=True), ray_address="127.0.0.1:9")
