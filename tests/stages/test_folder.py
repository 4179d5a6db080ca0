"""Run folders: files that are whole or not there, locks that die with their process."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyllm.config import build_config
from tinyllm.errors import RunFolderError
from tinyllm.stages.folder import RunFolder
from tinyllm.system.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from tinyllm.system.machine import environment

CONFIG = build_config({"data": {"dataset": "starter"}, "train": {"method": "fine-tuning"}})


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "metrics.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(file, {"a": math.nan})
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert read_json(file) == {"a": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["metrics.json"]


def test_lines(tmp_path):
    write_jsonl(tmp_path / "x.jsonl", [{"a": "ü\u2028"}, {"b": 2}])
    assert len((tmp_path / "x.jsonl").read_text(encoding="utf-8").split("\n")) == 3
    assert read_jsonl(tmp_path / "x.jsonl") == [{"a": "ü\u2028"}, {"b": 2}]
    assert read_jsonl(tmp_path / "none.jsonl") == []


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path):
    with pytest.raises(RunFolderError, match="not there; run the stage"):
        read_json(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError, match="damaged"):
        read_json(tmp_path / "metrics.json")


def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from tinyllm.stages.folder import RunFolder; from test_folder import CONFIG\n"
        "with RunFolder(Path(sys.argv[1])).claimed(CONFIG):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{code}",
            str(tmp_path / "run"),
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"in\n"
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunFolderError, match="Another process"), run.claimed(CONFIG):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.1)
    with run.claimed(CONFIG):
        assert run.config() == CONFIG


def test_what_is_bound_to_a_configuration(tmp_path):
    run = RunFolder(tmp_path)
    other_train = build_config({"data": {"dataset": "starter"}, "train": {"method": "fine-tuning", "seed": 1}})
    other_data = build_config({"data": {"dataset": "starter", "limit": 5}, "train": {"method": "fine-tuning"}})
    with run.claimed(CONFIG):
        pass
    with run.claimed(other_data), run.path.joinpath("rationales.parquet").open("w"):
        pass
    with pytest.raises(RunFolderError, match=r"data.limit: 5 → null"), run.claimed(CONFIG):
        pass
    with run.claimed(CONFIG, renews_rationales=True):
        pass
    with run.claimed(other_train):
        (run.path / "student").mkdir()
    with pytest.raises(RunFolderError, match=r"train.seed: 1 → 0"), run.claimed(CONFIG, renews_rationales=True):
        pass


def test_the_environment_names_versions_and_no_secrets(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = environment()
    assert found["packages"]["torch"]
    assert "sk-secret" not in json.dumps(found)


def test_a_folder_of_a_persons_is_never_removed_and_their_file_is_kept(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("# by hand\ndata: {dataset: starter}\ntrain: {method: fine-tuning}\n", "utf-8")
    with pytest.raises(KeyboardInterrupt), RunFolder(mine).claimed(CONFIG):
        raise KeyboardInterrupt
    assert (mine / "config.given.yaml").read_text("utf-8").startswith("# by hand")
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "new").claimed(CONFIG):
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()


def test_a_training_that_never_came_to_a_checkpoint_binds_nothing(tmp_path):
    run = RunFolder(tmp_path)
    other = build_config({"data": {"dataset": "starter"}, "train": {"method": "fine-tuning", "learning_rate": 1.0}})
    checkpoint = tmp_path / "checkpoints" / "checkpoint-1"
    with run.claimed(other):
        checkpoint.mkdir(parents=True)
    with run.claimed(CONFIG):
        pass
    with run.claimed(other):
        (checkpoint / "trainer_state.json").write_text("{}")
    with pytest.raises(RunFolderError, match="or its `checkpoints` to train anew"), run.claimed(CONFIG):
        pass


def test_folders_may_share_an_account(tmp_path):
    whole, part = RunFolder(tmp_path), RunFolder(tmp_path / "part")
    part.path.mkdir()
    part.share_account(whole)
    assert part.account() == whole.account()
    old = RunFolder(tmp_path / "old")
    old.path.mkdir()
    own = old.account()
    old.share_account(whole)
    assert old.account() == own


def test_a_shared_account_is_not_a_folders_own(tmp_path):
    whole, part = RunFolder(tmp_path / "grid"), RunFolder(tmp_path / "grid" / "part")
    for run in (whole, part):
        run.path.mkdir()
    part.share_account(whole)
    assert (whole.owns_account, part.owns_account) == (True, False)
