"""What the stages do before anything is spent."""

import json
from dataclasses import replace

import pytest

from support import tiny_tokenizer
from tinyllm.config import build_config
from tinyllm.errors import DataError
from tinyllm.questions import Dropped, Question, Splits
from tinyllm.questions._spool import gather
from tinyllm.stages._prepare import cut_targets
from tinyllm.stages.check import _fit_questions, checked_questions
from tinyllm.stages.effort import _questions_passed
from tinyllm.student.encode import Encoder
from tinyllm.student.mixture import Target
from tinyllm.system.news import News
from tokenizers_of_kinds import unigram

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
    fitted = _fit_questions(splits, ENCODER, PREFIXES, "drop", News(quiet=True))
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
    assert _fit_questions(splits, ENCODER, PREFIXES, "error", News(quiet=True)).train is splits.train


def test_of_many_questions_too_long_the_first_twenty_are_listed_and_all_are_counted():
    splits = Splits(made(2, ()), made(15, tuple(range(15))), made(30, tuple(range(30))))
    with pytest.raises(DataError) as caught:
        _fit_questions(splits, ENCODER, PREFIXES, "error", News(quiet=True))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("45 questions are longer than the longest input")
    assert lines[1].startswith("  - valid: question 'q0': ")
    assert lines[20].startswith("  - test: question 'q4': ")
    assert lines[21] == "  … and 25 more"


def test_measuring_says_how_far_it_is(capsys):
    _fit_questions(Splits(made(2500, ())), ENCODER, PREFIXES, "error", News())
    assert "Measuring questions" in capsys.readouterr().err


def test_choices_that_are_the_same_tokens_are_refused_or_left_out_and_named():
    encoder = Encoder(unigram(), is_encoder_decoder=True)
    fine = made(3, ())
    odd = Question("cities", "Which?", ("北京", "上海", "ice"), 2)
    silent = Question("silent", "Which?", ("ice", "\u200b"), 0)
    begins = Question("long", "Which?", ("x" * 300, "x" * 299 + "y"), 0)
    splits = Splits((*fine, odd), (silent,), (*fine, begins, odd))
    with pytest.raises(DataError) as caught:
        _fit_questions(splits, encoder, PREFIXES, "error", News(quiet=True))
    said = str(caught.value)
    assert "3 questions have choices that the student cannot tell apart" in said
    assert (
        "  - train: question 'cities': choices 0 ('北京') and 1 ('上海') are the same in the student's tokens" in said
    )
    assert "  - valid: question 'silent': nothing is left of choice 1 ('\\u200b')" in said
    assert "data.on_invalid: drop" in said
    fitted = _fit_questions(splits, encoder, PREFIXES, "drop", News(quiet=True))
    assert (tuple(fitted.train), tuple(fitted.valid), tuple(fitted.test)) == (fine, (), (*fine, begins))
    assert [d.where for d in fitted.dropped] == ["question 'cities'", "question 'silent'", "question 'cities'"]
    with pytest.raises(DataError, match=r"question 'long'.*begin with the same 255 tokens, and the rest is cut"):
        _fit_questions(Splits((*fine, begins)), encoder, PREFIXES, "error", News(quiet=True))


def test_both_kinds_of_problem_are_told_at_once():
    encoder = Encoder(unigram(), is_encoder_decoder=True, max_input_tokens=100)
    odd = Question("cities", "Which?", ("北京", "上海"), 0)
    with pytest.raises(DataError) as caught:
        _fit_questions(Splits((*made(2, (1,)), odd)), encoder, PREFIXES, "error", News(quiet=True))
    assert "1 questions are longer than the longest input" in str(caught.value)
    assert "1 questions have choices that the student cannot tell apart" in str(caught.value)


def test_contexts_that_are_cut_are_counted_and_told(capsys):
    some = [replace(q, context="so it is " * 30 * (i % 2)) for i, q in enumerate(made(7, ()))]
    splits = Splits(tuple(some), (), tuple(some[:2]), warnings={"odd": 1})
    fitted = _fit_questions(splits, ENCODER, PREFIXES, "error", News())
    text = "question whose context is cut to train.max_input_tokens (100)"
    assert fitted.warnings == {"odd": 1, f"train {text}": 3, f"test {text}": 1}
    said = capsys.readouterr().err
    assert f"note: 3 × train {text}" in said
    assert f"note: 1 × test {text}" in said


def test_targets_that_are_cut_are_counted():
    encoder = Encoder(tiny_tokenizer(), is_encoder_decoder=False, max_target_tokens=20)
    lengths = {"answer": [5, 18, 19, 40], "ada": [18], "bob": [200]}
    targets = [Target("q", task, "p", "x" * n, 1.0) for task, of in lengths.items() for n in of]
    assert cut_targets(encoder, targets) == [
        "2 × target of answer cut to train.max_target_tokens (20)",
        "1 × target of bob cut to train.max_target_tokens (20)",
    ]


def test_a_forecast_counts_the_questions_that_are_learnt_of_data_more():
    """One without an answer is learnt from opinions only."""
    blank = tuple(replace(q, id=f"m/{q.id}", answer=None) for q in made(30, ()))
    splits = Splits(made(4, ()), warnings={"no answer": 30}, more=(*blank, *made(2, ())))

    def passed(**train):
        train = {"method": "fine-tuning", "batch_size": 4, "epochs": 3, **train}
        tree = {"data": {"train": "q.csv"}, "teachers": [{"name": "ada", "kind": "given"}], "train": train}
        tree["opinions"] = {"teachers": ["ada"]}
        return _questions_passed(build_config(tree, source="test"), splits)

    assert passed() == 3 * (4 + 2)
    assert passed(soft={}) == 3 * (4 + 2 + 30)
    assert passed(soft={}, max_steps=5) == 5 * 4


def test_test_questions_that_are_nearly_training_questions_are_counted_and_named(tmp_path, capsys):
    capital = "What is the capital city of the Republic of France"
    others = [f"Which animal lives in room {number} of house {number * 7}?" for number in range(30)]
    for split, texts in (("train", [f"{capital}?", *others]), ("test", ["Why?", f"{capital} today?", "Where?"])):
        rows = [{"id": f"{split}{i}", "question": t, "choices": ["Paris", "Lyon"]} for i, t in enumerate(texts)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row | {"answer": 0}) for row in rows))
    data = {"folder": str(tmp_path), "cut": {"valid": 0}}
    plain = {"student": {"model": "tiny-untrained"}, "train": {"method": "fine-tuning"}}
    config = build_config({"name": "near", "data": data, **plain})
    splits, _ = checked_questions(config, News())
    text = "test question that is nearly, or exactly, a training question ('test1' and 'train0'): leave out one of each"
    assert f"note: 1 × {text}" in capsys.readouterr().err
    assert splits.warnings == {text: 1}, "the report says it, too"
    splits, _ = checked_questions(config, News(), test=False)
    assert not splits.warnings
