"""Results: the figures of the tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from comparison.made_up import METHODS, made_up_experiment
from tinyllm.comparison.outline import AVERAGE, Outline
from tinyllm.comparison.records import cells, read_records
from tinyllm.comparison.results import Place, read_results
from tinyllm.errors import RunFolderError


def results(folder, **kwargs):
    made_up_experiment(folder, **kwargs)
    return read_results(folder)


def test_each_figure_is_of_the_methods_own_answers(tmp_path):
    found = results(tmp_path)
    figures = found.figures("likelihood")
    for method, (_, accuracy) in METHODS.items():
        figure = figures[Place("tiny", "arc", method)].accuracy
        rows = np.stack([r.answers.scored("likelihood").right for r in found.of(Place("tiny", "arc", method))])
        assert figure.value == rows.mean()
        assert figure.value == pytest.approx(accuracy, abs=0.1)
        assert figure.seeds == (1 if method == "inference" else 2)
    assert figures[Place("tiny", AVERAGE, "tinyllm")].accuracy.value == pytest.approx(
        np.mean([figures[Place("tiny", d, "tinyllm")].accuracy.value for d in ("arc", "<b>obqa")])
    )


def test_what_helps_is_told_from_noise(tmp_path):
    figures = results(tmp_path, seeds=range(5)).figures("likelihood")
    assert figures[Place("tiny", "arc", "fine-tuning")].gain is None
    assert figures[Place("tiny", "arc", "tinyllm")].holm < 0.02
    assert figures[Place("tiny", "arc", "tinyllm")].gain.value > 0.1
    assert figures[Place("tiny", "arc", "shuffled")].gain.value < -0.1
    assert figures[Place("tiny", "arc", "one-random")].holm > 0.05
    assert figures[Place("tiny", "arc", "inference")].holm is None  # untrained methods are not tested
    for figure in figures.values():
        assert figure.holm is None or figure.holm >= figure.gain.p


def test_only_the_experiments_own_scorer_is_tested(tmp_path):
    """The correction counts comparisons by one scorer. Marks for three scorers would need three times as many."""
    found = results(tmp_path, seeds=range(3))
    for scorer in ("likelihood_normalised", "generation"):
        assert all(f.holm is None for f in found.figures(scorer).values())
    assert any(f.holm is not None for f in found.figures("likelihood").values())


def test_views_clean_questions_calibration_and_costs(tmp_path):
    found = results(tmp_path)
    place = Place("tiny", "arc", "tinyllm")
    only = found.views(place, "choices-only")
    assert only.viewed.value == pytest.approx(0.25, abs=0.1)
    assert only.asked == found.of(place)[0].answers.scored("likelihood").right.mean()
    assert 0 < only.same < 1
    assert found.clean(place, "likelihood").questions == 196  # three are met in training, one in validation
    assert found.calibration(place).error > 0
    assert found.seconds(place) == (12.5, 3.0)
    assert found.scorers == ("likelihood", "likelihood_normalised", "generation")
    assert found.figures("generation")[place].unparsed == 0
    assert found.compare(place, "shuffled", "likelihood").value > 0.2


def test_times_are_compared_on_one_machine(tmp_path):
    made_up_experiment(tmp_path)
    for file in cells(tmp_path).glob("*--tinyllm--0/run.json"):
        record = json.loads(file.read_text())
        record["figures"] |= {"evaluate_seconds": 1000.0, "environment": {"processor": "P", "cores": 4, "gpu": "G"}}
        file.write_text(json.dumps(record))
    found = read_results(tmp_path)
    assert found.seconds(Place("tiny", "arc", "tinyllm")) == (12.5, 3.0)
    assert len(found.of(Place("tiny", "arc", "tinyllm"))) == 2
    assert found.machines()["G (P, 4 cores)"] == 2
    assert found.machines("tiny", "arc")["G (P, 4 cores)"] == 1


def test_the_alpha_of_the_table_is_the_best_on_the_validation_questions(tmp_path):
    found = results(tmp_path, alphas=(0.1, 1.0, 3.0), datasets=("arc",))
    place = Place("tiny", "arc", "tinyllm")
    curve = dict(found.alpha_curve(place, "likelihood"))
    assert sorted(curve) == [0.1, 1.0, 3.0]
    valid = {
        a: np.mean([r.accuracy("valid", "likelihood") for r in found.all_of(place) if r.settings["alpha"] == a])
        for a in curve
    }
    assert found.settings[place] == {"alpha": max(valid, key=valid.get)}
    assert all(r.settings == found.settings[place] for r in found.of(place))


def test_runs_that_were_asked_other_questions_are_not_compared(tmp_path):
    made_up_experiment(tmp_path)
    file = next(cells(tmp_path).glob("*tinyllm*/run.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"questions": "others"}))
    with pytest.raises(RunFolderError, match="different questions"):
        read_results(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    made_up_experiment(tmp_path)
    file = next(cells(tmp_path).glob("*tinyllm*/run.json"))
    file.write_text('{"key": "x"}')
    with pytest.raises(RunFolderError, match=r"run\.json is damaged"):
        read_records(tmp_path)


def drop(folder, pattern):
    for file in cells(folder).glob(f"{pattern}/run.json"):
        file.unlink()


def test_one_seed_is_no_test_of_methods_whatever_others_have(tmp_path):
    one = results(tmp_path / "one", seeds=(0,)).figures("likelihood")
    for method in ("tinyllm", "shuffled"):
        figure = one[Place("tiny", "arc", method)]
        assert (figure.holm, figure.accuracy.knows_seeds, figure.gain.knows_seeds) == (None, False, False)
        assert one[Place("tiny", AVERAGE, method)].holm is None
    assert one[Place("tiny", "arc", "inference")].accuracy.knows_seeds  # it has none
    made_up_experiment(tmp_path / "three", seeds=(0, 1, 2))
    for method in ("tinyllm", "shuffled"):
        drop(tmp_path / "three", f"*--{method}--[12]")
    three = read_results(tmp_path / "three").figures("likelihood")
    assert three[Place("tiny", "arc", "tinyllm")].holm is None  # the seeds of fine-tuning do not give its variance
    assert not three[Place("tiny", "arc", "tinyllm")].accuracy.knows_seeds
    assert three[Place("tiny", "arc", "one-random")].holm is not None


def test_a_mean_over_three_seeds_is_never_compared_with_one_seed_of_another(tmp_path):
    made_up_experiment(tmp_path, seeds=(0, 1, 2))
    drop(tmp_path, "*--tinyllm--[01]")
    drop(tmp_path, "*--one-random--*")
    drop(tmp_path, "*--shuffled--[12]")
    drop(tmp_path, "*--fine-tuning--0")
    found = read_results(tmp_path)
    figures, place = found.figures("likelihood"), Place("tiny", "arc", "tinyllm")
    ours, theirs = (
        next(r for r in found.of(replace(place, method=m)) if r.seed == 2).answers.scored("likelihood").right.mean()
        for m in ("tinyllm", "fine-tuning")
    )
    assert figures[place].gain.value == pytest.approx(ours - theirs)
    assert figures[place].gain.seeds == 1
    assert figures[replace(place, method="shuffled")].gain is None  # seed 0 against seeds 1 and 2
    assert Place("tiny", "arc", "one-random") not in figures


def test_holm_corrects_for_the_whole_family_and_not_for_what_happens_to_be_there(tmp_path):
    found = results(tmp_path / "a", seeds=range(4))
    # three methods on two datasets and their average, and the control against its twin on both
    assert found.planned() == 3 * (2 + 1) + 2
    whole = found.figures("likelihood")[Place("tiny", "arc", "tinyllm")]
    made_up_experiment(tmp_path / "b", seeds=range(4))
    for method in ("one-random", "shuffled"):
        drop(tmp_path / "b", f"*--{method}--*")
    part = read_results(tmp_path / "b").figures("likelihood")[Place("tiny", "arc", "tinyllm")]
    assert part.gain.p <= whole.holm <= 11 * whole.gain.p
    assert part.gain.p < part.holm <= 11 * part.gain.p
    drop(tmp_path / "b", "*obqa*")
    alone = read_results(tmp_path / "b").figures("likelihood")[Place("tiny", "arc", "tinyllm")]
    assert alone.holm == pytest.approx(11 * alone.gain.p), "the only one that is there, of eleven"
    control = found.outline.method("shuffled")
    tested = found.against_twin(control, found.outline.method("tinyllm"), "tiny", "arc")
    assert tested.gain.value < -0.2
    assert tested.holm >= tested.gain.p  # corrected as all others are


def test_a_control_is_compared_with_the_method_that_differs_in_the_mixture_only(tmp_path):
    outline = made_up_experiment(tmp_path)
    methods = {m.id: m for m in outline.methods}
    longer = replace(methods["tinyllm"], id="tinyllm-3", settings={"train": {"epochs": 3}})
    plain = replace(methods["tinyllm"], settings={})
    of_longer = replace(methods["shuffled"], id="shuffled-3", settings={"train": {"epochs": 3}})
    of_plain = replace(methods["shuffled"], settings={})
    whole = replace(outline, methods=(longer, plain, of_plain, of_longer, methods["fine-tuning"]))
    assert [whole.twin(m).id for m in (of_plain, of_longer)] == ["tinyllm", "tinyllm-3"]
    assert whole.twin(replace(of_plain, settings={"train": {"epochs": 7}})) is None
    searched = replace(plain, id="searched", sweep=replace(plain.sweep, tuned=({"a": 1}, {"a": 2})))
    assert replace(whole, methods=(searched, plain, of_plain)).twin(of_plain) == plain
    whole.write(tmp_path)
    assert Outline.read(tmp_path) == whole


def test_an_old_outline_compares_a_control_only_where_it_is_clear_with_what(tmp_path):
    outline = made_up_experiment(tmp_path)
    assert outline.twin(outline.method("shuffled")).id == "tinyllm"
    two = replace(outline, methods=(*outline.methods, replace(outline.method("tinyllm"), id="tinyllm-3")))
    assert two.twin(two.method("shuffled")) is None


def test_the_majority_answer_is_beaten_in_pairs_on_the_same_questions(tmp_path):
    outline = made_up_experiment(tmp_path, datasets=("arc",), seeds=range(3), count=400)
    found = read_results(tmp_path)
    place = Place("tiny", "arc", "tinyllm")
    ids = found.of(place)[0].answers.scored("likelihood").ids
    right = np.stack([r.answers.scored("likelihood").right for r in found.of(place)]).min(axis=0)
    known = tuple(ids[right > 0][:-20].tolist())
    facts = replace(outline.datasets["arc"], majority=len(known) / 400, majority_right=known)
    replace(outline, datasets={"arc": facts}).write(tmp_path)
    tested = read_results(tmp_path).against_majority
    assert set(tested) == {Place("tiny", "arc", m) for m in METHODS}
    gain = tested[place].gain
    assert gain.value == pytest.approx(found.runs(place, "likelihood").right.mean() - len(known) / 400)
    assert tested[place].holm >= gain.p
    assert tested[Place("tiny", "arc", "inference")].gain.value < 0
    elsewhere = tuple(ids[: len(known)].tolist())  # as many, whatever the student gets right
    replace(outline, datasets={"arc": replace(facts, majority_right=elsewhere)}).write(tmp_path)
    unlike = read_results(tmp_path).against_majority[place].gain
    assert gain.spread.of_questions < 0.8 * unlike.spread.of_questions  # what is hard for both cancels out
    for method in set(METHODS) - {"tinyllm"}:
        drop(tmp_path, f"*--{method}--*")
    (alone,) = read_results(tmp_path).against_majority.values()
    assert 0 < alone.holm < 1
    assert alone.holm == pytest.approx(5 * alone.gain.p), "the only one that is there, of five"
    replace(outline, datasets={"arc": replace(facts, majority_right=None)}).write(tmp_path)
    assert read_results(tmp_path).against_majority == {}


def test_the_winner_has_a_second_validation_accuracy_from_the_seeds_that_did_not_choose(tmp_path):
    found = results(tmp_path, seeds=range(3))
    place = Place("tiny", "arc", "tinyllm")
    others = [r.accuracy("valid", "likelihood") for r in found.of(place) if r.seed != 0]
    assert found.again(place) == pytest.approx(np.mean(others))
    for r in (r for r in found.of(place) if r.seed == 1):
        r.figures["accuracy"]["valid"]["likelihood"] = 0.0
    assert found.again(place) == pytest.approx(others[1] / 2), "a seed that got nothing right counts"
    swept = results(tmp_path / "swept", seeds=range(3), alphas=(0.1, 1.0))
    assert swept.again(place) is None  # all seeds chose


def test_runs_that_learnt_from_other_questions_are_not_averaged(tmp_path):
    made_up_experiment(tmp_path)
    files = sorted(cells(tmp_path).glob("*arc*tinyllm*/run.json"))
    for file, learnt in zip(files, ("one", "another"), strict=True):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"learnt": learnt}))
    with pytest.raises(RunFolderError, match="learnt from different questions"):
        read_results(tmp_path)
    files[0].write_text(json.dumps(json.loads(files[0].read_text()) | {"learnt": ""}))
    read_results(tmp_path)  # of an old record it is not known


def test_runs_of_seeds_that_are_no_longer_in_the_grid_are_ignored(tmp_path):
    outline = made_up_experiment(tmp_path, seeds=(0, 1, 2))
    fewer = tuple(replace(m, sweep=replace(m.sweep, seeds=m.sweep.seeds[:2])) for m in outline.methods)
    replace(outline, methods=fewer, seeds=(0, 1)).write(tmp_path)
    found = read_results(tmp_path)
    assert [r.seed for r in found.of(Place("tiny", "arc", "tinyllm"))] == [0, 1]
    assert found.figures("likelihood")[Place("tiny", "arc", "tinyllm")].accuracy.seeds == 2


def test_records_of_methods_that_are_no_longer_in_the_grid_are_ignored(tmp_path):
    outline = made_up_experiment(tmp_path)
    fewer = Outline.read(tmp_path)
    assert fewer == outline
    kept = tuple(m for m in fewer.methods if m.id != "shuffled")
    replace(fewer, methods=kept).write(tmp_path)
    assert {p.method for p in read_results(tmp_path).figures("likelihood")} == {m.id for m in kept}


def test_the_twin_of_shuffled_opinions_is_the_method_with_the_opinions_as_they_are(tmp_path):
    outline = made_up_experiment(tmp_path)
    plain = outline.method("fine-tuning")

    def taught(name, **soft):
        return replace(plain, id=name, settings={"train": {"answer": "choices", "soft": soft}})

    opinions, other = taught("opinions", weight=0.5), taught("other", weight=1)
    shuffled = replace(taught("shuffled-opinions", weight=0.5, shuffle=True), kind="control")
    assert replace(outline, methods=(plain, other, opinions, shuffled)).twin(shuffled) == opinions
    assert replace(outline, methods=(plain, other, shuffled)).twin(shuffled) is None
