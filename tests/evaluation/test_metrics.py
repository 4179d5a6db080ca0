"""Metrics are made from kept predictions; an evaluation is known by what it asked."""

from dataclasses import replace

from support import some_questions
from tinyllm.config import Config
from tinyllm.evaluation.metrics import evaluation_fingerprint
from tinyllm.questions import Splits
from tinyllm.questions.spool import gather


def test_an_evaluation_is_known_by_its_questions_wherever_they_are_kept():
    config = Config.model_validate({"name": "mine", "data": {"dataset": "starter"}, "evaluate": {"train_questions": 2}})
    made = some_questions(6)
    here = Splits(tuple(made), (), tuple(made))
    there = Splits(gather(made, in_memory=0), (), gather(made, in_memory=0))
    known = evaluation_fingerprint(config, here)
    assert evaluation_fingerprint(config, there) == known
    other = (*made[:5], replace(made[5], answer=made[5].answer ^ 1))
    for changed in (other, gather(other, in_memory=0)):
        assert evaluation_fingerprint(config, Splits(here.train, (), changed)) != known
        assert evaluation_fingerprint(config, Splits(changed, (), here.test)) == known, "not among the two asked"
