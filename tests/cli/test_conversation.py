"""`tinyllm init` on a terminal: a few questions, and a configuration that loads."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from support import repository
from tinyllm.config import load_config


def typed(folder, *lines: str, code: int = 0) -> str:
    """Call `tinyllm init` on a terminal and type these lines; return what it showed.

    Args:
        code: the exit code that is expected.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tinyllm", "init"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository() / "src"), "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, "".join(f"{line}\n" for line in lines).encode())
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-z]", "", shown.decode())
    assert process.wait(60) == code, text
    return text


def test_enter_takes_what_is_proposed(tmp_path):
    shown = typed(tmp_path, "", "", "", "")
    assert "Wrote tinyllm.yaml" in shown
    config = load_config(tmp_path / "tinyllm.yaml")
    assert config.data.dataset == "starter"
    assert [t.name for t in config.teachers] == ["smollm2", "gemma3"]


@pytest.mark.parametrize("rows", [4, 40])
def test_a_file_a_service_and_a_student_of_ones_own(tmp_path, rows):
    lines = ["question,A,B,answer", *(f"Which is cold {i}?,ice,fire,{'AB'[i % 2]}" for i in range(rows))]
    (tmp_path / "quiz.csv").write_text("\n".join(lines), "utf-8")
    (tmp_path / "taken.yaml").touch()
    shown = typed(
        tmp_path, "quizz.csv", "quiz.csv", "", "9", "2", "http://127.0.0.1:11434/v1", "", "llama3", "", "no/such folder",
        "google/flan-t5-small", "taken.yaml", "",
    )  # fmt: skip
    assert "There is no quizz.csv. Did you mean 'quiz.csv'?" in shown
    assert shown.count("question: 'question'") == 1  # before the teachers are asked for, and not again at the end
    assert shown.index("question: 'question'") < shown.index("Which models teach?")
    assert "'9' is none of them; type 1, 2 or 3." in shown
    assert "There is no folder 'no/such folder', and this is no name on the hub" in shown
    assert "Most addresses end in /v1" not in shown
    assert "taken.yaml is there already" in shown
    config = load_config(tmp_path / "quiz.yaml")
    assert config.data.train is not None
    assert config.student.model == "google/flan-t5-small"
    (teacher,) = config.teachers
    assert (teacher.kind, teacher.model, teacher.api_key_env) == ("openai", "llama3", None)
    assert teacher.base_url == ("http://127.0.0.1:11434/v1",)


def test_nobody_explains_the_answers_of_a_few_questions(tmp_path):
    (tmp_path / "quiz.csv").write_text("question,A,B,answer\nWhich is cold?,ice,fire,A\nHot?,ice,fire,B\n", "utf-8")
    typed(tmp_path, "quiz.csv", "", "3", "", "")
    config = load_config(tmp_path / "quiz.yaml")
    assert (config.teachers, config.train.method) == ((), "fine-tuning")


def test_ctrl_d_at_a_question_is_no_traceback(tmp_path):
    shown = typed(tmp_path, "", "\x04", code=130)
    assert "tinyllm: Interrupted. Nothing was changed." in shown
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_right_is_asked_again_and_a_pasted_key_is_neither_shown_nor_written(tmp_path):
    key = "sk-proj-abcdefghijklmnopqrstuvwxyz123456"
    answers = [
        "",
        "2",
        "api.openai.com",
        "",
        "",
        key,
        "MY_KEY",
        "smollm2-135",
        "smollm2-135m-instruct",
        "mine",
        "mine.yaml",
    ]
    shown = typed(tmp_path, *answers)
    assert "Not taken: an address begins with http:// or https://" in shown
    assert "Not taken: the name of the environment variable that holds the key is needed" in shown
    assert "There is no packaged model, and no folder, 'smollm2-135'. Did you mean 'smollm2-135m-instruct'?" in shown
    assert "MY_KEY is not set now. Set it before `tinyllm check`: export MY_KEY=" in shown
    assert "A configuration has a name that ends in .yaml." in shown
    assert [f.name for f in tmp_path.iterdir()] == ["mine.yaml"]
    (teacher,) = load_config(tmp_path / "mine.yaml").teachers
    assert (teacher.model, teacher.api_key_env) == ("gpt-4o-mini", "MY_KEY")
    assert key not in (tmp_path / "mine.yaml").read_text("utf-8")


def test_a_name_that_is_taken_is_not_proposed_again(tmp_path):
    (tmp_path / "tinyllm.yaml").write_text("")
    (tmp_path / "tinyllm-2.questions.jsonl").write_text("")
    assert "Wrote tinyllm-3.yaml" in typed(tmp_path, "", "", "", "")


def test_after_a_file_of_the_wrong_kind_another_one_is_asked_for(tmp_path):
    (tmp_path / "notes.md").write_text("# Notes\n\nNothing to ask.\n", "utf-8")
    (tmp_path / "quiz.csv").write_text("question,A,B,answer\nWhich is cold?,ice,fire,A\nHot?,ice,fire,B\n", "utf-8")
    shown = typed(tmp_path, "notes.md", "quiz.cvs", "quiz.csv", "y", "3", "", "")
    assert "There is no quiz.cvs." in shown
    assert "Wrote quiz.yaml" in shown
    assert "Nothing was written." in typed(tmp_path, "notes.md", "", code=2)


def test_the_option_that_a_message_names_can_be_typed(tmp_path):
    rows = [f"{n},What is thing {n}?,ice {n},fire {n},sand {n},{1 + n % 3}" for n in range(9)]
    (tmp_path / "quiz.csv").write_text("\n".join(["No,Item,Option 1,Option 2,Option 3,Key", *rows]), "utf-8")
    shown = typed(tmp_path, "quiz.csv", "--answer", "--wrong", "--help", "--answer Key", "", "3", "", "")
    assert "use --answer Key, otherwise --no-answers" in shown
    assert "No such option: --wrong" in shown
    assert "line 4 holds the number of choices, and no row holds 0" in shown
    assert load_config(tmp_path / "quiz.yaml").data.fields.answer == "Key"


def test_of_texts_to_be_classified_the_classes_are_asked_for(tmp_path):
    rows = [f"Ticket number {n} is about it.;{'Billing' if n % 3 else 'Account'}" for n in range(30)]
    (tmp_path / "tickets.csv").write_text("\n".join(["ticket;team", *rows]), "utf-8")
    shown = typed(tmp_path, "tickets.csv", "Billing, Acount", "Billing, Account", "", "3", "", "")
    assert "none of the classes Billing, Acount: 10 × 'Account'. Did you mean 'Acount'?" in " ".join(shown.split())
    first = json.loads((tmp_path / "tickets.questions.jsonl").read_text("utf-8").splitlines()[0])
    assert (first["choices"], first["answer"]) == (["Billing", "Account"], 1)


def test_a_file_that_is_read_in_another_way_than_meant_is_read_anew(tmp_path):
    rows = [f"Thing {n}?,ice,fire,{'AB'[n % 2]},{'BA'[n % 3 == 0]},story {n}" for n in range(30)]
    (tmp_path / "quiz.csv").write_text("\n".join(["question,A,B,answer,given,story", *rows]), "utf-8")
    shown = typed(tmp_path, "quiz.csv", "n", "--answer given", "n", "--no-context", "y", "3", "", "")
    assert shown.index("answer:   'answer'") < shown.index("answer:   'given'") < shown.index("Which models teach?")
    fields = load_config(tmp_path / "quiz.yaml").data.fields
    assert (fields.answer, fields.context) == ("given", "context")  # the second option does not undo the first


def test_options_for_one_file_do_not_hold_for_another_one(tmp_path):
    (tmp_path / "quiz.csv").write_text("question,A,B,answer,given\nCold?,ice,fire,A,A\nHot?,ice,fire,B,B\n", "utf-8")
    (tmp_path / "other.csv").write_text("question,A,B,answer\nWet?,sea,sand,A\nDry?,sea,sand,B\n", "utf-8")
    shown = typed(tmp_path, "quiz.csv", "n", "--answer given", "n", "other.csv", "", "3", "", "")
    assert "Wrote other.yaml" in shown


def test_the_start_of_a_packaged_models_name_is_enough_for_a_hint(tmp_path):
    shown = typed(tmp_path, "", "3", "gemma", "smollm2-135m-instruct", "")
    assert "There is no packaged model, and no folder, 'gemma'. Did you mean 'gemma3-270m'?" in shown


def test_a_key_is_proposed_for_a_service_and_none_for_a_server_of_ones_own(tmp_path):
    typed(tmp_path, "", "2", "http://localhost:8000/v1", "mine", "", "", "own.yaml")
    typed(tmp_path, "", "2", "https://openrouter.ai/api/v1", "theirs", "", "", "service.yaml")
    ((own,), (service,)) = (load_config(tmp_path / f"{n}.yaml").teachers for n in ("own", "service"))
    assert (own.api_key_env, service.api_key_env) == (None, "OPENAI_API_KEY")
