"""Metrics from predictions, and the fingerprint of an evaluation."""

from dataclasses import replace

from support import some_questions
from tinyllm.comparison import metrics as scored_run
from tinyllm.comparison.metrics import evaluation_fingerprint, metrics
from tinyllm.config import Config
from tinyllm.experiments import _shared as scored_experiment
from tinyllm.experiments._shared import questions_fingerprint
from tinyllm.questions import Splits
from tinyllm.questions._spool import gather
from tinyllm.scoring.predictions import OptionScores, Prediction


def config_with(**evaluate):
    return Config.model_validate({"name": "mine", "data": {"dataset": "starter"}, "evaluate": evaluate})


def test_the_fingerprint_depends_on_the_questions_and_not_on_where_they_are_kept():
    config = config_with(train_questions=2)
    made = some_questions(6)
    here = Splits(tuple(made), (), tuple(made))
    there = Splits(gather(made, in_memory=0), (), gather(made, in_memory=0))
    known = evaluation_fingerprint(config, here)
    assert evaluation_fingerprint(config, there) == known
    other = (*made[:5], replace(made[5], answer=made[5].answer ^ 1))
    for changed in (other, gather(other, in_memory=0)):
        assert evaluation_fingerprint(config, Splits(here.train, (), changed)) != known
        assert evaluation_fingerprint(config, Splits(changed, (), here.test)) == known, "not among the two asked"


def test_other_rules_of_scoring_change_the_fingerprints(monkeypatch):
    config, made = config_with(), tuple(some_questions(3))
    splits = Splits(made, (), made)
    known = evaluation_fingerprint(config, splits), questions_fingerprint(splits)
    for module in (scored_run, scored_experiment):
        monkeypatch.setattr(module, "CONVENTION", "another way")
    now = evaluation_fingerprint(config, splits), questions_fingerprint(splits)
    assert all(one != other for one, other in zip(known, now, strict=True))


def test_another_majority_answer_changes_the_fingerprint():
    config = config_with(train_questions=0)
    made = some_questions(6)
    one, other = (tuple(replace(q, answer=answer) for q in made) for answer in (0, 1))
    assert evaluation_fingerprint(config, Splits(one, (), made)) != evaluation_fingerprint(
        config, Splits(other, (), made)
    )


def test_a_tie_is_scored_by_its_share_counted_and_kept():
    config = config_with(before=False)
    questions = [replace(q, choices=q.choices[:3], answer=1) for q in some_questions(3)]
    totals = [(-1.0, -1.0, -2.0), (-1.0, -2.0, -3.0), (-2.0, -1.0, -3.0)]
    means = [(-1.0, -1.0, -1.0), (-1.0, -2.0, -3.0), (-2.0, -1.0, -3.0)]
    made = [
        Prediction("after", "test", q, OptionScores(t, m, t, (1, 2, 3)))
        for q, t, m in zip(questions, totals, means, strict=True)
    ]
    figures = metrics(config, Splits((), (), tuple(questions)), made, {}, {})
    found = figures["accuracy"]
    assert (found["likelihood"]["value"], found["likelihood"]["ties"]) == ((1 / 2 + 0 + 1) / 3, 1)
    assert found["likelihood_normalised"]["value"] == (1 / 3 + 0 + 1) / 3
    assert figures["lm_eval"]["after"]["acc"]["value"] == 1 / 3, "as the harness counts: of equals the first"
    lines = [p.as_json()["likelihood"] for p in made]
    assert [line.get("tied") for line in lines] == [[0, 1], None, None]
    assert lines[0]["tied_normalised"] == [0, 1, 2]
    assert lines[0]["unended"] == list(totals[0])


def test_a_run_is_compared_with_the_majority_answer_in_pairs():
    config = config_with(before=False)
    asked = [replace(q, answer=place % 2) for place, q in enumerate(some_questions(4))]
    train = [replace(q, answer=0) for q in some_questions(3)]
    right = [OptionScores((0.0, -1.0)[:: 1 - 2 * q.answer], (0.0, -1.0), (0.0, -1.0), (1, 1)) for q in asked]
    made = [Prediction("after", "test", q, s) for q, s in zip(asked, right, strict=True)]
    figures = metrics(config, Splits(tuple(train), (), tuple(asked)), made, {}, {})
    found = figures["over_majority"]["likelihood"]
    assert (figures["majority"], figures["accuracy"]["likelihood"]["value"]) == (0.5, 1.0)
    assert (found["fixed"], found["broken"], found["p"]) == (2, 0, 0.5), "of four questions two are right either way"
