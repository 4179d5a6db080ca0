"""`tinyllm init` writes a configuration that fits a person's own file."""

from __future__ import annotations

import json

import pytest

from tinyllm.config import load_config
from tinyllm.questions import load_splits
from tinyllm.questions.guess import guess_fields

FILES = {
    "letters.csv": (
        "stem,A,B,C,D,answerKey\n" + "".join(f"Which is cold {i}?,ice,fire,steam,lava,A\n" for i in range(10)),
        {"question": "stem", "answer": "answerKey", "choices": ["A", "B", "C", "D"], "answer_as": "letter"},
    ),
    "texts.csv": (
        "id,question,option_1,option_2,correct\n"
        + "".join(f"q{i},Which is cold {i}?,ice,fire,ice\n" for i in range(10)),
        {"answer": "correct", "choices": ["option_1", "option_2"], "answer_as": "text"},
    ),
    "numbers (1).csv": (
        "question,1,2,answer\n" + "".join(f"Which is cold {i}?,ice,fire,{1 + i % 2}\n" for i in range(10)),
        {"choices": ["1", "2"], "answer_as": "letter"},
    ),
    "ours.jsonl": (
        "".join(json.dumps({"question": f"Why {i}?", "choices": ["a", "b"], "answer": 0}) + "\n" for i in range(10)),
        {},
    ),
    "dots.jsonl": (
        "".join(json.dumps({"prompt": f"Why {i}?", "options": ["a", "b"], "label": 1}) + "\n" for i in range(10)),
        {"question": "prompt", "choices": "options", "answer": "label"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_it_is_named(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, fields = FILES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert guess_fields(tmp_path / name) == fields
    said = cli("init", "mine.yaml", "--data", name)
    assert said.code == 0, said.err
    assert "tinyllm check mine.yaml" in said.out
    config = load_config(tmp_path / "mine.yaml")
    splits = load_splits(config.data)
    questions = [*splits.train, *splits.valid, *splits.test]
    assert len(questions) == 10
    assert {len(q.choices) for q in questions} <= {2, 4}


@pytest.mark.parametrize("name", ["2024", "no", "null", "2026-01-02", "1e3"])
def test_a_files_name_is_a_text_whatever_it_looks_like(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_text(FILES["texts.csv"][0], encoding="utf-8")
    assert cli("init", "mine.yaml", "--data", f"{name}.csv").code == 0
    assert load_config(tmp_path / "mine.yaml").name == name


def test_without_a_file_it_takes_the_starter_dataset_and_never_writes_over_one(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("init").code == 0
    assert load_config(tmp_path / "tinyllm.yaml").data.dataset == "starter"
    again = cli("init")
    assert (again.code, "there already" in again.err) == (2, True)


def test_a_few_bad_rows_do_not_change_what_a_column_is(tmp_path):
    rows = [f"Which is cold {i}?,ice,fire,{'AB'[i % 2]}\n" for i in range(20)] + ["Which is hot?,ice,fire,fire\n"]
    (tmp_path / "some.csv").write_text("question,A,B,answer\n" + "".join(rows), encoding="utf-8")
    assert guess_fields(tmp_path / "some.csv")["answer_as"] == "letter"


def test_a_file_without_choices_is_refused(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.csv").write_text("question,answer\nWhich is cold?,ice\n", encoding="utf-8")
    said = cli("init", "mine.yaml", "--data", "some.csv")
    assert (said.code, "no column of choices, got the columns question, answer" in said.err) == (2, True)


def test_a_file_that_is_not_there(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("init", "mine.yaml", "--data", "question.csv")
    assert (said.code, "question.csv" in said.err) == (2, True)
    assert not (tmp_path / "mine.yaml").exists()
