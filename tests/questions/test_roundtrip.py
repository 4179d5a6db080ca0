"""What is written as JSONL, CSV or Parquet is read back equal, whatever the texts hold."""

import csv
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from questions.made import train
from tinyllm.questions import Question
from tinyllm.questions._files import to_record, write_questions

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
TEXT = TEXT.map(str.strip).filter(bool)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def questions(draw: st.DrawFn) -> tuple[Question, ...]:
    made = []
    for name in draw(st.lists(TEXT, min_size=1, max_size=4, unique=True)):
        choices = tuple(draw(st.lists(TEXT, min_size=2, max_size=5, unique=True)))
        answer = draw(st.integers(0, len(choices) - 1))
        context = draw(st.none() | TEXT)
        rationales = draw(st.dictionaries(st.sampled_from(["flan-t5-xl", "b.c", "ü"]), TEXT, max_size=2))
        made.append(Question(name, draw(TEXT), choices, answer, context, rationales))
    return tuple(made)


@FEW
@given(questions())
def test_jsonl(made: tuple[Question, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_questions(Path(folder) / "t.jsonl", made)
        assert [p.name for p in Path(folder).iterdir()] == ["t.jsonl"]
        assert train(Path(folder) / "t.jsonl") == made


@FEW
@given(questions())
def test_parquet(made: tuple[Question, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        records = [to_record(q) | {"context": q.context, "rationales": json.dumps(dict(q.rationales))} for q in made]
        pq.write_table(pa.Table.from_pylist(records), path)
        assert train(path) == made


@FEW
@given(questions())
def test_csv_with_a_column_for_each_choice(made: tuple[Question, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "question", "context", *"ABCDE", "answer", "rationales"])
            for q in made:
                cells = [*q.choices, *[""] * (5 - len(q.choices))]
                writer.writerow([q.id, q.question, q.context, *cells, q.answer, json.dumps(dict(q.rationales))])
        assert train(path, fields={"choices": list("ABCDE")}) == made


@FEW
@given(questions())
def test_csv_with_choices_as_json(made: tuple[Question, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "question", "context", "choices", "answer", "rationales"])
            for q in made:
                rationales = json.dumps(dict(q.rationales)) if q.rationales else ""
                writer.writerow([q.id, q.question, q.context, json.dumps(q.choices), q.answer, rationales])
        assert train(path) == made
