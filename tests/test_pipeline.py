"""What the stages do before anything is spent."""

import pytest

from support import tiny_tokenizer
from tinyllm.errors import DataError
from tinyllm.news import News
from tinyllm.pipeline import fit_questions
from tinyllm.questions import Dropped, Question, Splits
from tinyllm.questions.spool import gather
from tinyllm.student.encode import Encoder

PREFIXES = {"answer": "predict: ", "ada": "explain as ada would explain: "}
ENCODER = Encoder(tiny_tokenizer(), is_encoder_decoder=True, max_input_tokens=100)


def made(count: int, long_at: tuple[int, ...]) -> tuple[Question, ...]:
    return tuple(Question(f"q{i}", "Why " + "so " * 20 * (i in long_at) + "?", ("x", "y"), 0) for i in range(count))


@pytest.mark.parametrize("in_memory", [0, 9999], ids=["disk", "memory"])
def test_questions_too_long_are_left_out_and_named(in_memory):
    train, test = made(2500, (0, 999, 1000, 2499)), made(3, (1,))
    splits = Splits(
        gather(train, in_memory), (), gather(test, in_memory), (Dropped("train", "row 1", "bad"),), {"odd": 1}
    )
    fitted = fit_questions(splits, ENCODER, PREFIXES, "drop", News(quiet=True))
    assert tuple(fitted.train) == tuple(q for i, q in enumerate(train) if i not in (0, 999, 1000, 2499))
    assert (tuple(fitted.valid), tuple(fitted.test)) == ((), (test[0], test[2]))
    assert [(d.split, d.where) for d in fitted.dropped] == [
        ("train", "row 1"),
        *(("train", f"question 'q{i}'") for i in (0, 999, 1000, 2499)),
        ("test", "question 'q1'"),
    ]
    assert fitted.warnings == {"odd": 1}


def test_questions_that_all_fit_stay_where_they_are():
    splits = Splits(gather(made(30, ()), 9))
    assert fit_questions(splits, ENCODER, PREFIXES, "error", News(quiet=True)).train is splits.train


def test_of_many_questions_too_long_the_first_twenty_are_listed_and_all_are_counted():
    splits = Splits(made(2, ()), made(15, tuple(range(15))), made(30, tuple(range(30))))
    with pytest.raises(DataError) as caught:
        fit_questions(splits, ENCODER, PREFIXES, "error", News(quiet=True))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("45 questions are longer than the longest input")
    assert lines[1].startswith("  - valid: question 'q0': ")
    assert lines[20].startswith("  - test: question 'q4': ")
    assert lines[21] == "  … and 25 more"


def test_measuring_says_how_far_it_is(capsys):
    fit_questions(Splits(made(2500, ())), ENCODER, PREFIXES, "error", News())
    assert "Measuring questions" in capsys.readouterr().err
