"""Lines of `predictions.jsonl`."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.questions import Question
from tinyllm.scoring._matching import Generated
from tinyllm.scoring.predictions import OptionScores, Prediction, leaders

SCORERS = ("likelihood", "likelihood_normalised", "generation")
NEAR = st.sampled_from([-1.0, -1.0000001, -1.000001, -1.00001, -2.0, -math.inf])  # some are equal after rounding


@given(st.lists(st.tuples(NEAR, NEAR), min_size=2, max_size=5), st.data())
def test_a_prediction_that_is_read_has_the_same_choices_and_marks(scores, data):
    count = len(scores)
    choices = tuple(f"c{i}" for i in range(count))
    answer = data.draw(st.integers(0, count - 1))
    total, mean = zip(*scores, strict=True)
    written = Prediction(
        "after",
        "test",
        Question("q", "Which?", choices, answer, "A text."),
        OptionScores(total, mean, total, (2,) * count),
        Generated("c0", 0),
        {"ada": "Because."},
    )
    read = Prediction.from_json(json.loads(json.dumps(written.as_json())))
    assert (read.question, read.generation, read.rationales) == (
        written.question,
        written.generation,
        {"ada": "Because."},
    )
    assert leaders(read.likelihood.total) == leaders(total)
    assert leaders(read.likelihood.mean) == leaders(mean)
    for scorer in SCORERS:
        assert (read.choice(scorer), read.mark(scorer)) == (written.choice(scorer), written.mark(scorer))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 2}, "choice 2 of 2"),
        ({"stage": "during"}, "stage must be one of before, after"),
        ({"likelihood": {"pred": 0, "total": [-1.0], "mean": [-1.0]}}, "1 log-likelihoods for 2 choices"),
        ({"generation": {"text": "x", "pred": 5}}, "choice 5 of 2"),
    ],
)
def test_a_damaged_line_is_refused(change, said):
    line = {"stage": "after", "split": "test", "id": "q", "question": "Which?", "choices": ["a", "b"], "answer": 0}
    assert Prediction.from_json(line).question.answer == 0
    with pytest.raises(ValueError, match=said):
        Prediction.from_json(line | change)
