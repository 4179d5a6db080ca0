"""Results: what the tables' figures are made of."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evidence.made_up import METHODS, made_up_experiment
from tinyllm.errors import RunFolderError
from tinyllm.evidence.outline import AVERAGE, read_outline, write_outline
from tinyllm.evidence.records import RUN_FILE, cells, read_records
from tinyllm.evidence.results import Place, read_results


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
    figures = results(tmp_path).figures("likelihood")
    assert figures[Place("tiny", "arc", "fine-tuning")].gain is None
    assert figures[Place("tiny", "arc", "tinyllm")].holm < 0.02
    assert figures[Place("tiny", "arc", "tinyllm")].gain.value > 0.1
    assert figures[Place("tiny", "arc", "shuffled")].gain.value < -0.1
    assert figures[Place("tiny", "arc", "one-random")].holm > 0.05
    assert figures[Place("tiny", "arc", "inference")].holm is None  # no hypothesis of anyone's
    for figure in figures.values():
        assert figure.holm is None or figure.holm >= figure.gain.p


def test_views_clean_questions_calibration_and_costs(tmp_path):
    found = results(tmp_path)
    place = Place("tiny", "arc", "tinyllm")
    only = found.views(place, "choices-only")
    assert only.viewed.value == pytest.approx(0.25, abs=0.1)
    assert only.asked == found.of(place)[0].answers.scored("likelihood").right.mean()
    assert 0 < only.same < 1
    assert found.clean(place, "likelihood").questions == 197
    assert found.calibration(place).error > 0
    assert found.seconds(place) == (12.5, 3.0)
    assert found.scorers == ("likelihood", "likelihood_normalised", "generation")
    assert found.figures("generation")[place].unparsed == 0
    assert found.compare(place, "shuffled", "likelihood").value > 0.2


def test_times_are_compared_on_one_machine(tmp_path):
    made_up_experiment(tmp_path)
    for file in cells(tmp_path).glob(f"*--tinyllm--0/{RUN_FILE}"):
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
    file = next(cells(tmp_path).glob(f"*tinyllm*/{RUN_FILE}"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"questions": "others"}))
    with pytest.raises(RunFolderError, match="different questions"):
        read_results(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    made_up_experiment(tmp_path)
    file = next(cells(tmp_path).glob(f"*tinyllm*/{RUN_FILE}"))
    file.write_text('{"key": "x"}')
    with pytest.raises(RunFolderError, match=r"run\.json is damaged"):
        read_records(tmp_path)


def test_one_seed_of_each_is_no_test_of_methods(tmp_path):
    one = results(tmp_path / "one", seeds=(0,)).figures("likelihood")
    for method in ("tinyllm", "shuffled"):
        figure = one[Place("tiny", "arc", method)]
        assert (figure.holm, figure.accuracy.knows_seeds, figure.gain.knows_seeds) == (None, False, False)
        assert one[Place("tiny", AVERAGE, method)].holm is None
    assert one[Place("tiny", "arc", "inference")].accuracy.knows_seeds  # it has none
    made_up_experiment(tmp_path / "two", seeds=(0, 1))
    for file in cells(tmp_path / "two").glob("*--1/run.json"):
        if "fine-tuning" not in file.parent.name:
            file.unlink()
    two = read_results(tmp_path / "two").figures("likelihood")
    assert two[Place("tiny", "arc", "tinyllm")].holm is not None  # the noise of seeds is taken from fine-tuning's


def test_holm_corrects_for_what_is_planned_and_not_for_what_happens_to_be_there(tmp_path):
    found = results(tmp_path / "a")
    assert (found.planned(), found.planned(are_averages=True)) == (6, 3)
    whole = found.figures("likelihood")[Place("tiny", "arc", "tinyllm")]
    made_up_experiment(tmp_path / "b")
    for method in ("one-random", "shuffled"):
        for file in cells(tmp_path / "b").glob(f"*--{method}--*/run.json"):
            file.unlink()
    part = read_results(tmp_path / "b").figures("likelihood")[Place("tiny", "arc", "tinyllm")]
    assert whole.holm <= 6 * whole.gain.p
    assert part.holm == pytest.approx(6 * part.gain.p)


def test_runs_of_seeds_that_are_asked_no_more_are_left_out(tmp_path):
    outline = made_up_experiment(tmp_path, seeds=(0, 1, 2))
    fewer = tuple(replace(m, sweep=replace(m.sweep, seeds=m.sweep.seeds[:2])) for m in outline.methods)
    write_outline(tmp_path, replace(outline, methods=fewer, seeds=(0, 1)))
    found = read_results(tmp_path)
    assert [r.seed for r in found.of(Place("tiny", "arc", "tinyllm"))] == [0, 1]
    assert found.figures("likelihood")[Place("tiny", "arc", "tinyllm")].accuracy.seeds == 2


def test_records_of_methods_that_are_asked_no_more_are_left_out(tmp_path):
    outline = made_up_experiment(tmp_path)
    fewer = read_outline(tmp_path)
    assert fewer == outline
    kept = tuple(m for m in fewer.methods if m.id != "shuffled")
    write_outline(tmp_path, replace(fewer, methods=kept))
    assert {p.method for p in read_results(tmp_path).figures("likelihood")} == {m.id for m in kept}
