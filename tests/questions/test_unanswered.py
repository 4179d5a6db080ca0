"""Questions without an answer load everywhere, and are refused once, with one message, where answers are needed."""

from pathlib import Path

import pytest

from questions.made import NO_CUT, load, rows, train, write
from tinyllm.errors import DataError
from tinyllm.questions import Question
from tinyllm.questions._files import to_record, write_questions
from tinyllm.questions._known import with_answers


def unanswered(path: Path, answers: list[object]) -> Path:
    return write(path, *(row | {"answer": a} for row, a in zip(rows(len(answers)), answers, strict=True)))


@pytest.mark.parametrize("absent", [None, "", "  "])
def test_a_row_without_an_answer_is_a_question(tmp_path: Path, absent: object) -> None:
    splits = load(train=unanswered(tmp_path / "t.jsonl", [0, absent, 1]), cut=NO_CUT)
    assert [q.answer for q in splits.train] == [0, None, 1]
    assert splits.warnings == {"no answer": 1}


@pytest.mark.parametrize("mark", [-1, "-1", "?"])
def test_the_mark_of_withheld_answers_is_named_by_the_configuration(tmp_path: Path, mark: object) -> None:
    path = unanswered(tmp_path / "t.jsonl", [0, mark])
    with pytest.raises(DataError):
        train(path)
    assert [q.answer for q in train(path, fields={"no_answer": mark})] == [0, None]


def test_a_file_without_a_column_of_answers_says_so_in_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("question,A,B\nWhich?,x,y\n")
    with pytest.raises(DataError, match=r"no column 'answer'.*or `data.fields.answer: null` if none"):
        train(path, fields={"choices": ["A", "B"]})
    assert train(path, fields={"choices": ["A", "B"], "answer": None})[0].answer is None


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = (Question("a", "Which?", ("x", "y"), None), Question("b", "Which one?", ("x", "y"), 1))
    write_questions(tmp_path / "t.jsonl", made)
    assert to_record(made[0])["answer"] is None
    assert train(tmp_path / "t.jsonl") == made


@pytest.mark.parametrize("in_memory", [10_000, 1])
def test_where_answers_are_needed_one_message_names_them_all(tmp_path: Path, in_memory: int) -> None:
    first, test = (
        unanswered(tmp_path / f"{s}.jsonl", a) for s, a in (("train", [0, None, 1] * 4), ("test", [None] * 3))
    )
    splits = load(in_memory=in_memory, train=first, test=test, cut={"valid": 0})
    assert with_answers(splits, (), drop=False) == splits
    with pytest.raises(DataError) as caught:
        with_answers(splits, ("train", "test"), drop=False)
    text = str(caught.value)
    assert "train: 4 of 12 ('q1', 'q4', 'q7', 'q10'), needed to train on" in text
    assert "test: 3 of 3 ('q0', 'q1', 'q2'), needed to score" in text
    assert "data.on_invalid: drop" in text
    kept = with_answers(splits, ("train",), drop=True)
    assert (len(kept.train), len(kept.test), len(kept.dropped)) == (8, 3, 4)
    with pytest.raises(DataError, match="test: 3 of 3"):  # nothing would be left of it
        with_answers(splits, ("train", "test"), drop=True)


def test_a_single_question_without_an_answer_names_itself() -> None:
    with pytest.raises(DataError, match="The question 'q7' has no answer"):
        _ = Question("q7", "Which?", ("x", "y"), None).answer_text


def test_what_needs_answers_refuses_before_anything_is_spent(project, cli) -> None:
    lines = [{"id": f"q{k}", "question": f"Which {k}?", "choices": ["x", "y"]} for k in range(12)]
    labelled = [row | {"answer": 0} for row in lines]
    project.write_questions([row | {"answer": None} for row in lines[:4]] + labelled[4:])
    said = cli("check", project.config)
    assert (said.code, "questions without an answer" in said.err, "needed to train on" in said.err) == (2, True, True)
    # An unanswered test set is no hindrance to what does not score: check, generate, train.
    project.write_questions(labelled)
    unanswered(project.folder / "test.jsonl", [None] * 3)
    project.change("data.test", str(project.folder / "test.jsonl"))
    assert cli("check", project.config).code == 0
    assert cli("generate", project.config).code == 0
    for command in ("run", "evaluate"):
        said = cli(command, project.config)
        assert (said.code, "Traceback" in said.err) == (2, False)
    assert not (project.run / "student").exists()
    assert "test: 3 of 3 ('q0', 'q1', 'q2'), needed to score" in cli("run", project.config).err


def test_a_number_counts_from_one(tmp_path: Path) -> None:
    path = unanswered(tmp_path / "t.jsonl", [1, "2"])
    assert [q.answer for q in train(path, fields={"answer_as": "number"})] == [0, 1]
    unanswered(path, [0, 3, "B"])
    with pytest.raises(DataError) as caught:
        train(path, fields={"answer_as": "number"})
    assert "answer 0 is out of range: the 2 choices are numbered 1 to 2" in str(caught.value)
    assert "answer 'B' is text; give the number of the right choice, 1 for the first" in str(caught.value)


def test_classes_are_the_same_choices_for_every_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label\nIt broke.,complaint\nLovely!,praise\nWhen?,\n")
    fields = {"question": "text", "answer": "label", "answer_as": "text"}
    read = train(path, fields=fields, choices=["praise", "complaint"])
    assert [(q.question, q.choices, q.answer) for q in read] == [
        ("It broke.", ("praise", "complaint"), 1),
        ("Lovely!", ("praise", "complaint"), 0),
        ("When?", ("praise", "complaint"), None),
    ]
    asked = train(path, fields=fields, choices=["praise", "complaint"], question="Which class fits?")
    assert (asked[0].question, asked[0].context) == ("Which class fits?", "It broke.")
    with pytest.raises(DataError, match=r"answer 'complaint' equals none of the choices"):
        train(path, fields=fields, choices=["praise", "blame"])
