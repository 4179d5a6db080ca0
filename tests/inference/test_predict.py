"""`tinyllm predict`: it reads files of any shape, answers every row once and in order, and continues after a stop."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import python_calamine

import tinyllm
from tinyllm.inference import _predict

WORDS = ["ice", "water vapour", "a thermometer", "the moon", "iron"]


def rows(count: int, **more: object) -> list[dict[str, object]]:
    return [
        {
            "id": f"q{n}",
            "question": f"Which is {'really ' * (n % 4)}number {n}?",
            "choices": WORDS[: 2 + n % 4],
            "answer": n % 2,
            **more,
        }
        for n in range(count)
    ]


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("some.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows(20)), "utf-8")
    return tmp_path


def test_every_row_gets_the_same_answer_as_the_single_question_in_the_order_of_the_file(
    cli, here, student, monkeypatch
):
    monkeypatch.setattr(_predict, "_FIRST_BLOCK", 7)
    said = cli("predict", student, "some.jsonl", "--json")
    assert said.code == 0, said.err
    done = json.loads(said.out)
    found = lines(here / "some.predictions.jsonl")
    assert [r["id"] for r in found] == [f"q{n}" for n in range(20)]
    loaded, right = tinyllm.load(student), 0
    for row, asked in zip(found, rows(20), strict=True):
        alone = loaded.choose(asked["question"], asked["choices"])
        assert (row["choice"], row["text"]) == (alone.choice, alone.text)
        assert row["probabilities"] == pytest.approx(alone.probabilities, abs=1e-5)
        assert row["probability"] == max(row["probabilities"])
        right += alone.choice == asked["answer"]
    assert (done["rows"], done["answered"], done["accuracy"]["n"]) == (20, 20, 20)
    assert done["accuracy"]["value"] == pytest.approx(right / 20)
    assert done["accuracy"]["ci95"][0] < done["accuracy"]["value"] < done["accuracy"]["ci95"][1]
    assert sorted(f.name for f in here.iterdir()) == ["some.jsonl", "some.predictions.jsonl"]


def test_the_three_formats_have_the_same_content(cli, here, student):
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        assert cli("predict", student, "some.jsonl", "-o", name, "--explain", "bob", "--quiet").code == 0
    plain = lines(here / "out.jsonl")
    assert all(set(r["rationales"]) == {"bob"} for r in plain)
    with Path("out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    columns = pq.read_table("out.parquet").to_pylist()
    for one, two, three in zip(plain, table, columns, strict=True):
        assert (one["id"], str(one["choice"]), one["text"]) == (two["id"], two["choice"], two["text"])
        assert (one["choice"], one["probabilities"], one["rationales"]["bob"]) == (
            three["choice"], three["probabilities"], three["rationale_bob"],
        )  # fmt: skip
        assert (one["answer_letter"], one["letter"]) == ("AB"[one["answer"]], "ABCDE"[one["choice"]])
        for name in ("answer_letter", "letter"):
            assert one[name] == two[name] == three[name]
        assert json.loads(two["probabilities"]) == one["probabilities"]


@pytest.mark.parametrize(
    ("name", "encoding", "separator", "begins"),
    [("q.csv", "utf-8-sig", ";", b"\xef\xbb\xbfrow;id;"), ("q.csv", "utf-8", ",", b"row,id,"),
     ("q.csv", "windows-1252", ";", b"\xef\xbb\xbfrow;id;"), ("q.tsv", "utf-8-sig", "\t", b"row,id,")],
)  # fmt: skip
def test_a_table_of_answers_opens_where_the_table_of_questions_does(
    cli, here, student, name, encoding, separator, begins
):
    asked = [
        ["Frage", "A", "B", "Antwort"],
        *(["Wie heißt Öl, Käse; Büro?", "Müll", "Mäuse", "AB"[n % 2]] for n in range(6)),
    ]
    with Path(name).open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=separator).writerows(asked)
    said = cli("predict", student, name, "-o", "out.csv", "-q")
    assert said.code == 0, said.err
    assert (here / "out.csv").read_bytes().startswith(begins)
    with (here / "out.csv").open(newline="", encoding="utf-8-sig") as file:
        table = list(csv.DictReader(file, delimiter=chr(begins[begins.index(b"row") + 3])))
    assert {row["question"] for row in table} == {"Wie heißt Öl, Käse; Büro?"}


def test_a_workbook_has_each_value_in_its_column_and_no_formula(cli, here, student):
    asked = rows(3)
    asked[1]["question"] = "=1+1"
    del asked[2]["answer"]
    Path("f.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked), "utf-8")
    for name in ("out.parquet", "out.xlsx"):
        assert cli("predict", student, "f.jsonl", "-o", name, "-q", "--explain", "--min-confidence", "0.5").code == 0
    book = python_calamine.CalamineWorkbook.from_path("out.xlsx").get_sheet_by_name("predictions")
    head, *body = book.to_python()
    for cells, row in zip(body, pq.read_table("out.parquet").to_pylist(), strict=True):
        told = {name: "" if cell is None else cell for name, cell in row.items()}
        told |= {name: json.dumps(cell) for name, cell in row.items() if isinstance(cell, list)}
        told |= {name: " ".join(cell.split()) for name, cell in told.items() if name.startswith("rationale_")}
        assert dict(zip(head, cells, strict=True)) == told
    assert body[1][2] == "=1+1"  # as text


def test_a_file_with_more_rows_than_a_sheet_is_refused_before_it_is_answered(cli, here, student, monkeypatch):
    monkeypatch.setattr(_predict, "MOST_ROWS_OF_WORKBOOK", 19)
    said = cli("predict", student, "some.jsonl", "-o", "out.xlsx")
    assert (said.code, "has 20 rows" in said.err, Path("out.xlsx.part").exists()) == (2, True, False)


def test_explain_without_a_name_means_all_teachers(cli, here, student):
    assert cli("predict", student, "some.jsonl", "-q", "--explain").code == 0
    assert set(lines(here / "some.predictions.jsonl")[0]["rationales"]) == {"ada", "bob"}


def test_files_are_read_as_init_reads_them_with_or_without_answers(cli, here, student):
    Path("quiz.tsv").write_text(
        "stem\tA\tB\tanswerKey\n" + "".join(f"Which {n}?\tice\tfire\t{'AB'[n % 2]}\n" for n in range(6)), "utf-8"
    )
    said = cli("predict", student, "quiz.tsv")
    assert "Accuracy: " in said.out, said.err
    assert len(lines(here / "quiz.predictions.jsonl")) == 6
    Path("blank.csv").write_text("question,A,B\n" + "".join(f"Which {n}?,ice,fire\n" for n in range(6)), "utf-8")
    said = cli("predict", student, "blank.csv")
    assert (said.code, "6 rows: 6 answered" in said.out, "Accuracy" in said.out) == (0, True, False)
    Path("n.csv").write_text("question,A,B,correct\n" + "".join(f"Which {n}?,ice,fire,1\n" for n in range(6)), "utf-8")
    assert "--answers-from 0 or --answers-from 1" in cli("predict", student, "n.csv").err
    assert cli("predict", student, "n.csv", "--answers-from", 1).code == 0


def test_rows_that_cannot_be_answered_get_a_row_with_the_reason(cli, here, student):
    bad = [{"id": "long", "question": "very " * 2000, "choices": ["a", "b"], "answer": 0},
           {"id": "same", "question": "Which?", "choices": ["a", "a ", "b"], "answer": 2}]  # fmt: skip
    many = rows(60)
    many[3:3] = bad
    Path("bad.jsonl").write_text("".join(json.dumps(r) + "\n" for r in many) + "{torn\n", "utf-8")
    said = cli("predict", student, "bad.jsonl")
    assert "3 that cannot be answered" in said.out, said.err
    found = lines(here / "bad.predictions.jsonl")
    assert [r["row"] for r in found] == list(range(1, 64))
    assert "tokens with its choices" in found[3]["problem"]
    assert found[3]["question"].startswith("very very")
    assert "different choices" in found[4]["problem"]
    assert found[62]["choice"] is None


def test_letters_are_those_of_the_columns_where_a_choice_is_empty(cli, here, student):
    asked = [["No.", "Question", *(f"Option {n}" for n in range(1, 6)), "Correct"],
             *([str(n), f"Which land is {n}?", "Japan", "Peru", "Italy", "Spain", "", "ABCD"[n % 4]] for n in range(8)),
             ["21", "Which land is shaped like a boot?", "Japan", "", "Italy", "Spain", "", "C"]]  # fmt: skip
    with Path("q.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows(asked)
    said = cli("predict", student, "q.csv")
    assert said.code == 0, said.err
    for row, cells in zip(lines(here / "q.predictions.jsonl"), asked[1:], strict=True):
        assert (row["answer_letter"], len(row["probabilities"])) == (cells[7], 4 - (cells[3] == ""))
        assert cells[2 + "ABCDE".index(row["letter"])] == row["text"] == [c for c in cells[2:7] if c][row["choice"]]


def test_a_question_with_a_wrong_answer_key_is_answered_and_not_scored(cli, here, student):
    asked = [f"Which {n}?,ice,fire,{'F' if n == 9 else 'AB'[n % 2]}" for n in range(30)]
    Path("key.csv").write_text("\n".join(["question,A,B,answer", *asked]), "utf-8")
    said = cli("predict", student, "key.csv", "-o", "key.csv.out.parquet")
    assert "30 rows: 30 answered\nThe known answer of 1 row is not used" in said.out, said.err
    assert "left out" not in said.err
    row = pq.read_table("key.csv.out.parquet").to_pylist()[9]
    assert (row["text"] in ("ice", "fire"), row["answer"], row["mark"], row["problem"]) == (True, None, None, None)
    assert row["answer_problem"] == "line 11: the answer 'F' in 'answer' is none of the choices"


def test_rows_below_the_minimum_confidence_get_no_choice_and_are_counted(cli, here, student):
    cli("predict", student, "some.jsonl", "-q")
    middle = sorted(r["probability"] for r in lines(here / "some.predictions.jsonl"))[10]
    said = cli("predict", student, "some.jsonl", "-o", "sure.jsonl", "--min-confidence", middle, "--json", "-q")
    done, found = json.loads(said.out), lines(here / "sure.jsonl")
    assert done["abstained"] == sum(r["probability"] < middle for r in found) > 0
    assert done["accuracy"]["n"] == done["answered"] == 20 - done["abstained"]
    assert all((r["choice"] is None) == (r["probability"] < middle) == r.get("abstained", False) for r in found)


def test_no_file_is_overwritten_and_no_answers_are_mixed(cli, here, student):
    assert cli("predict", student, "some.jsonl", "-q").code == 0
    again = cli("predict", student, "some.jsonl")
    assert (again.code, "exists already" in again.err) == (2, True)
    assert "Known: .jsonl, .csv, .parquet" in cli("predict", student, "some.jsonl", "-o", "a.txt").err
    Path("b.jsonl.part").write_text('{"row": 1}\n', "utf-8")
    Path("b.jsonl.part.json").write_text('{"student": "another"}', "utf-8")
    mixed = cli("predict", student, "some.jsonl", "-o", "b.jsonl")
    assert (mixed.code, "other settings (student, questions, " in mixed.err) == (2, True)


def test_the_settings_of_a_command_that_stopped_before_its_first_row_are_replaced(cli, here, student, monkeypatch):
    command = ("predict", student, "some.jsonl", "-o", "c.jsonl", "-q")
    with monkeypatch.context() as patched:
        patched.setattr(_predict, "_answer", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*command, "--min-confidence", 0.9).code == 130  # before a row was written
    with monkeypatch.context() as patched:
        patched.setattr(_predict, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli(*command).code == 130  # after all rows
    mixed = cli(*command, "--min-confidence", 0.9)
    assert (mixed.code, "other settings (min confidence)" in mixed.err) == (2, True)
    assert cli(*command).code == 0
    assert not any(r.get("abstained") for r in lines(here / "c.jsonl"))
