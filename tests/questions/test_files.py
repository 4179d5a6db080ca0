"""Every bad input has a message that names file, line and remedy; here they are read as `load_splits` raises them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from questions.made import NO_CUT, load, train, write
from tinyllm.config import FieldMap
from tinyllm.errors import DataError
from tinyllm.questions import Question

GOOD = {"id": "a", "question": "What is wet?", "choices": ["water", "sand"], "answer": 0}


def message(path: Path, **more: object) -> str:
    with pytest.raises(DataError) as caught:
        train(path, **more)
    return str(caught.value)


# --- the file as a whole ---


def test_missing_file_names_the_nearest_one_there(tmp_path: Path) -> None:
    write(tmp_path / "training.jsonl", GOOD)
    text = message(tmp_path / "trainig.jsonl")
    assert f"{tmp_path / 'trainig.jsonl'}: no such file. Did you mean 'training.jsonl'?" in text
    assert f"In {tmp_path}: training.jsonl" in text
    assert "on_invalid" not in text  # dropping rows mends no missing file


def test_missing_folder(tmp_path: Path) -> None:
    assert f"no such file, and no folder {tmp_path / 'nowhere'}" in message(tmp_path / "nowhere" / "train.csv")


def test_folder_given_as_a_file(tmp_path: Path) -> None:
    assert "is a folder; give a file, or give the folder as `data.folder`" in message(tmp_path)


@pytest.mark.parametrize(("name", "hint"), [("train.txt", "'.txt'"), ("train.json", "`tinyllm init")])
def test_unknown_extension(tmp_path: Path, name: str, hint: str) -> None:
    text = message(write(tmp_path / name, GOOD))
    assert "unknown extension" in text
    assert "known: .jsonl, .csv, .parquet" in text
    assert hint in text


@pytest.mark.parametrize(("name", "content"), [("t.jsonl", ""), ("t.jsonl", " \n\n"), ("t.csv", ""), ("t.parquet", "")])
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert f"{tmp_path / name}: empty file; write one question per row" in message(tmp_path / name)


def test_header_without_rows(tmp_path: Path) -> None:
    assert "has no rows" in message(write(tmp_path / "t.csv", "question,A,B,answer"))


def test_not_utf8_names_byte_and_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": "caf\xe9"}\n')
    assert f"{path}, line 2: not UTF-8: byte 19 is 0xe9; save the file as UTF-8" in message(path)


def test_not_utf8_counts_the_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfab\xff")
    assert "byte 5 is 0xff" in message(path)


def test_utf16_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("question,answer\n".encode("utf-16"))
    assert "it looks like UTF-16" in message(tmp_path / "t.csv")


def test_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,A,B,answer\nq,x,y,1\n", encoding="utf-8-sig")
    assert train(tmp_path / "t.csv", fields={"choices": ["A", "B"]})[0].question == "q"


def test_truncated_json_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD | {"id": "b"})[:40])
    text = message(path)
    assert f"{path}, line 3: not JSON (" in text
    assert "the file seems to be cut off here" in text


def test_malformed_json_inside_a_file_is_not_called_cut_off(tmp_path: Path) -> None:
    text = message(write(tmp_path / "t.jsonl", GOOD, '{"id": b}', GOOD | {"id": "c"}))
    assert "line 2: not JSON (Expecting value, column 8); correct the line" in text
    assert "cut off" not in text


def test_a_line_that_ends_inside_a_text_is_told_as_such(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, '{"id": "a', GOOD | {"id": "c"})
    assert "line 2: not JSON (Unterminated string starting at, column 8); correct the line" in message(path)


def test_json_that_is_no_object(tmp_path: Path) -> None:
    text = message(write(tmp_path / "t.jsonl", GOOD, "[1, 2]", '"x"'))
    assert "line 2: a list, not an object; write {'question'" in text
    assert "line 3: text, not an object" in text


def test_json_nested_thousands_deep_is_a_bad_line_not_a_crash(tmp_path: Path) -> None:
    assert "line 2: not readable JSON" in message(write(tmp_path / "t.jsonl", GOOD, "[" * 200_000))


def test_json_over_several_lines(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps([GOOD], indent=1))
    assert "one JSON text over several lines" in message(tmp_path / "t.jsonl")


def test_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    row = GOOD | {"question": "a\u2028b"}
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert train(path)[0].question == "a\u2028b"


def test_missing_column_is_said_once_with_the_columns_there(tmp_path: Path) -> None:
    rows = [{"id": str(i), "quesion": "q", "choices": ["a", "b"], "label": 0} for i in range(30)]
    text = message(write(tmp_path / "t.jsonl", *rows))
    assert text.startswith("questions: 2 problems")
    assert "no column 'question' for the question. Did you mean 'quesion'?" in text
    assert "Columns: id, quesion, choices, label. Name it with `data.fields.question`" in text
    assert "no column 'answer' for the answer" in text


def test_missing_choices_column_shows_the_form_with_several(tmp_path: Path) -> None:
    text = message(write(tmp_path / "t.csv", "question,A,B,answer", "q,x,y,0"))
    assert "no column 'choices' for the choices. Columns: question, A, B, answer" in text
    assert "(or several, as in `[A, B, C, D]`)" in text


def test_csv_with_semicolons(tmp_path: Path) -> None:
    assert "separated by semicolons; save it with commas" in message(
        write(tmp_path / "t.csv", "question;answer", "q;1")
    )


def test_csv_with_an_open_quote_names_the_line_where_the_row_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "question,A,B,answer", 'q,"x\ny",z,0', 'q2,"x,y,0', "q3,x,y,0")
    assert f"{path}, line 4: not CSV (unexpected end of data): a quote is not closed" in message(path)


def test_csv_with_too_many_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "question,A,B,answer", "Well, what?,x,y,0", "ok,x,y,0")
    assert "line 2: 5 cells for 4 columns; put texts with commas in quotes" in message(
        path, fields={"choices": ["A", "B"]}
    )


def test_csv_with_a_column_twice(tmp_path: Path) -> None:
    assert "there are two columns 'A'" in message(write(tmp_path / "t.csv", "question,A,A,answer", "q,x,y,0"))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then nothing")
    assert f"{tmp_path / 't.parquet'}: not a readable Parquet file" in message(tmp_path / "t.parquet")


# --- rows ---

BAD_ROWS = [
    ({"question": ""}, "empty question (column 'question'); write its text"),
    ({"question": None}, "empty question"),
    ({"question": 7}, "the question is a number (7), not text; put it in quotes"),
    ({"question": "\ud83d"}, "holds half a character (\\ud83d without its pair)"),
    ({"choices": ["water"]}, "1 choice; a question needs at least two"),
    ({"choices": []}, "0 choices; a question needs at least two"),
    ({"choices": None}, "no choices (column 'choices')"),
    ({"choices": "water or sand"}, "choices are text ('water or sand'), not a list of texts"),
    ({"choices": ["water", " "]}, "choices[1] is empty; write its text"),
    ({"choices": ["water", 3]}, "choices[1] is a number (3), not text"),
    (
        {"choices": ["water", "sand", "water"]},
        "choice 'water' is there 2 times (choices[0], choices[2])",
    ),
    ({"answer": 2}, "answer 2 is out of range: the 2 choices are numbered 0 to 1"),
    (
        {"answer": -1},
        "out of range: the 2 choices are numbered 0 to 1; in test sets, -1 often means that the answer is withheld: set `data.fields.no_answer: -1`",
    ),
    ({"answer": True}, "answer true is true or false; give the 0-based index"),
    ({"answer": 1.0}, "answer 1.0 is a decimal number; give the 0-based index of the right choice as a whole number"),
    ({"answer": [1]}, "answer [1] is a list; give"),
    (
        {"answer": "sand"},
        "answer 'sand' is text, not an index; it equals choices[1], which `data.fields.answer_as: text`",
    ),
    ({"answer": "B"}, "as a letter it means choices[1], which `data.fields.answer_as: letter` reads"),
    ({"answer": "1"}, "answer '1' is text, not an index; write the number 1 without quotes"),
    ({"answer": "watr"}, "equals none of the choices. Did you mean 'water'? Give the 0-based index"),
    ({"id": 1.5}, "the id is a decimal number (1.5), not text"),
    ({"context": 3}, "the context is a number (3), not text"),
    ({"rationales": "because"}, "rationales are text ('because'), not a mapping from teacher to text"),
    ({"rationales": {"t": 5}}, "the rationale of 't' is a number (5), not text"),
]


@pytest.mark.parametrize(("change", "expected"), BAD_ROWS)
def test_bad_row_in_jsonl(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, "", GOOD | {"id": "b"} | change)
    text = message(path)
    assert text.startswith("questions: 1 problem\n")
    assert f"{path}, line 3: " in text
    assert expected in text
    assert "set `data.on_invalid: drop` to leave them out" in text


def test_a_row_with_several_mistakes_tells_all(tmp_path: Path) -> None:
    text = message(write(tmp_path / "t.jsonl", GOOD, {"id": [], "question": "", "choices": ["x"]}))
    assert text.startswith("questions: 3 problems")
    assert text.count("line 2: ") == 3


def test_duplicate_ids_name_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, GOOD | {"id": "b"}, GOOD)
    assert f"{path}, line 3: the id 'a' is also that of line 1; give each question its own id" in message(path)


def test_parquet_rows_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, GOOD | {"id": "b", "answer": 5}]), path)
    assert f"{path}, row 2: answer 5 is out of range" in message(path)


@pytest.mark.parametrize(
    ("cells", "fields", "expected"),
    [
        ("q,x,y,2.0", {}, "answer '2.0' is text; give the 0-based index of the right choice as a whole number"),
        ("q,x,y,y", {}, "it equals choices[1]"),
        ("q,,y,0", {}, "choices[0] is empty"),
        ("q,x,,0", {}, "1 choice; a question needs at least two"),
        ("q,x,y,C", {"answer_as": "letter"}, "answer 'C' is out of range: the 2 choices are A to B"),
        ("q,x,y,3", {"answer_as": "letter"}, "answer '3' is out of range: the 2 choices are numbered 1 to 2"),
        (
            "q,x,yes,yes",
            {"answer_as": "letter"},
            "is not a letter; give the letter of the right choice, A for the first",
        ),
        ("q,water,sand,Water", {"answer_as": "text"}, "equals none of the choices. Did you mean 'water'?"),
    ],
)
def test_bad_row_in_csv(tmp_path: Path, cells: str, fields: dict[str, object], expected: str) -> None:
    path = write(tmp_path / "t.csv", "question,A,B,answer", "", cells)
    text = message(path, fields={"choices": ["A", "B"], **fields})
    assert f"{path}, line 3: " in text
    assert expected in text


def test_python_lists_in_a_csv_cell_are_told_how_to_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "question,choices,answer", "q,\"['x', 'y']\",0")
    assert 'not a JSON list; write ["first", "second"] with double quotes, or give each choice a column' in message(
        path
    )


# --- what is read ---


def test_field_map_with_nested_columns_and_labels(tmp_path: Path) -> None:
    row = {"q": {"stem": "Wet?"}, "opts": {"text": ["water", "sand"], "label": ["A", "B"]}, "key": "B", "extra": 1}
    fields = {
        "question": "q.stem",
        "choices": "opts.text",
        "labels": "opts.label",
        "answer": "key",
        "answer_as": "label",
    }
    (question,) = train(write(tmp_path / "t.jsonl", row), fields=fields)
    assert question == Question("train-1", "Wet?", ("water", "sand"), 1)


def test_lists_of_objects_are_entered_item_by_item(tmp_path: Path) -> None:
    row = {"question": "q", "choices": [{"text": "x", "label": "1"}, {"text": "y", "label": "2"}], "answer": "2"}
    fields = {"choices": "choices.text", "labels": "choices.label", "answer_as": "label"}
    assert train(write(tmp_path / "t.jsonl", row), fields=fields)[0].answer_text == "y"


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "choices": ["x", "y"], "labels": ["A"], "answer": "A"},
        {"question": "q", "choices": ["x", "y"], "labels": ["A", "B"], "answer": "C"},
    ]
    text = message(write(tmp_path / "t.jsonl", *rows), fields={"answer_as": "label", "labels": "labels"})
    assert "line 1: 1 labels for 2 choices (column 'labels')" in text
    assert "line 2: answer 'C' is not one of the labels A, B" in text


@pytest.mark.parametrize(
    ("answer_as", "given"), [("index", "2"), ("letter", "C"), ("letter", "c"), ("letter", "3"), ("text", " z ")]
)
def test_csv_answers(tmp_path: Path, answer_as: str, given: str) -> None:
    path = write(
        tmp_path / "t.csv", "question,A,B,C,D,answer", f"q,x,y,z,,{given}", ",,,,,", "q2,x,y,z,w," + given.strip()
    )
    fields = {"choices": ["A", "B", "C", "D"], "answer_as": answer_as}
    assert train(path, fields=fields) == (
        Question("train-1", "q", ("x", "y", "z"), 2),
        Question("train-2", "q2", ("x", "y", "z", "w"), 2),
    )


def test_rationales_are_read_and_blank_ones_are_absent(tmp_path: Path) -> None:
    row = GOOD | {"rationales": {"a": " Water wets. ", "b": "  ", "c": "", "d": None}}
    assert train(write(tmp_path / "t.jsonl", row))[0].rationales == {"a": "Water wets."}


def test_parquet_maps_structs_and_json_texts_hold_rationales(tmp_path: Path) -> None:
    base = {"question": ["q"], "choices": [["x", "y"]], "answer": [0]}
    columns = {
        "map": pa.array([[("t", "why"), ("u", None)]], pa.map_(pa.string(), pa.string())),
        "struct": pa.array([{"t": "why", "u": None}]),
        "text": pa.array(['{"t": "why", "u": null}']),
    }
    for name, column in columns.items():
        pq.write_table(pa.table({**base, "rationales": column}), tmp_path / f"{name}.parquet")
        assert train(tmp_path / f"{name}.parquet")[0].rationales == {"t": "why"}, name


def test_unknown_keys_are_ignored_and_a_list_of_paragraphs_is_a_context(tmp_path: Path) -> None:
    (question,) = train(write(tmp_path / "t.jsonl", GOOD | {"long_answer": 3, "context": ["One.", "", "Two."]}))
    assert question.context == "One.\nTwo."


def test_another_choice_twice_is_a_counted_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD | {"choices": ["water", "sand", "sand"]}, GOOD | {"id": "b"})
    splits = load(train=path, cut=NO_CUT)
    assert splits.warnings == {"choice twice": 1}
    assert len(splits.train) == 2


def test_default_fields_are_the_contract() -> None:
    names = FieldMap().model_dump()
    assert [names[k] for k in ("id", "question", "context", "choices", "answer", "rationales")] == [
        "id", "question", "context", "choices", "answer", "rationales",
    ]  # fmt: skip
