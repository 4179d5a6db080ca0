"""A question file in Chinese goes the whole way: `init`, `check`, `run`, `predict`."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from projects import in_thread
from support import tiny_model
from teachers.fake_endpoint import FakeEndpoint, good
from tokenizers_of_kinds import byte_level

METALS = ("铁", "水银", "黄金", "铜")


def test_a_spreadsheet_in_chinese_becomes_a_student(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"第{i}天的气温下，哪种金属是液体？,{','.join(METALS)},{'ABCD'[i % 4]}" for i in range(24)]
    Path("题库.csv").write_text("\n".join(["题目,A,B,C,D,答案", *lines]) + "\n", "gb18030")
    student = tmp_path / "student"
    tokenizer = byte_level()  # any text, as the tokenizers of Qwen and Llama 3
    model = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(student)
    tokenizer.save_pretrained(student)

    read = cli("init", "题库.csv", "--out", "zh.yaml")
    assert read.code == 0, read.err
    assert "24" in read.out
    tree = yaml.safe_load(Path("zh.yaml").read_text("utf-8"))
    tree["student"] = {"model": str(student)}
    tree["train"] = {"method": "tinyllm", "learning_rate": 1e-2}
    tree["rationales"]["examples"]["strategy"] = "similar"
    tree["evaluate"] = {"max_new_tokens": 24, "rationales": 1, "max_rationale_tokens": 4, "train_questions": 2}
    with in_thread(FakeEndpoint(lambda body: good(body, "水银在室温下是液体，所以答案正确。"))) as url:
        local = {"kind": "openai", "model": "any", "base_url": url, "api_key_env": None}
        tree["teachers"] = [{"name": "qwen", **local}]
        Path("zh.yaml").write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
        checked = cli("check", "zh.yaml")
        assert checked.code == 0, checked.err
        ran = cli("run", "zh.yaml", "--run-dir", "runs/zh", "--quiet")
    assert ran.code == 0, ran.err
    metrics = json.loads(Path("runs/zh/metrics.json").read_text("utf-8"))
    assert metrics["teachers"]["qwen"]["rationales"] == 17  # all of them: none is "empty" for want of spaces
    assert "哪种金属是液体" in Path("runs/zh/report.html").read_text("utf-8")

    assert cli("predict", "runs/zh", "题库.csv", "-o", "答案.jsonl").code == 0
    answers = [json.loads(line) for line in Path("答案.jsonl").read_text("utf-8").splitlines()]
    assert len(answers) == 24
    assert {a["text"] for a in answers} <= set(METALS)
