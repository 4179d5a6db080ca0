"""The runs of an experiment file, their configurations, and messages about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.grids import grid_tree, write_grid
from support import repository
from tinyllm.comparison.selection import ALPHA
from tinyllm.config import dump_config
from tinyllm.errors import ConfigError
from tinyllm.experiments._grid import load_experiment
from tinyllm.experiments._methods import METHODS

ASKED = [{"name": n, "kind": "openai", "model": "m"} for n in ("ada", "bob")]
TEACHERS = [{"name": "ada", "kind": "given"}, {"name": "bob", "kind": "given"}]


@pytest.fixture
def load(tmp_path, tiny_t5):
    """Load a small grid with changes."""

    def loaded(**changes):
        return load_experiment(write_grid(tmp_path, grid_tree(tmp_path, tiny_t5, **changes)))

    return loaded


def config(experiment, method, dataset="one", settings=None, seed=0):
    group = next(g for g in experiment.groups if g.spec.id == method and g.dataset == dataset)
    return experiment.config(group.cell(settings or {}, seed))


def test_every_known_method_is_one_function_away():
    specs = [s for expand in METHODS.values() for s in expand(TEACHERS)]
    assert [s.id for s in specs] == [
        "inference", "lora", "fine-tuning", "step-by-step:ada", "step-by-step:bob", "tinyllm",
        "tinyllm-without-examples", "tinyllm-without:ada", "tinyllm-without:bob",
        "one-random", "shortest", "similarity", "student-likelihood", "auto", "shuffled", "keywords",
    ]  # fmt: skip
    assert [s.trains for s in specs].count(False) == 1


def test_teachers_that_can_be_loaded_are_asked_themselves():
    local = [
        {"name": "gemma", "kind": "llamacpp", "model": "gemma3-270m"},
        {"name": "gpt", "kind": "openai", "model": "g"},
    ]
    gemma, gpt = METHODS["teachers"](local)
    assert (gemma.id, gemma.trains, gemma.patch["student"]["model"]) == ("teachers:gemma", False, "gemma3-270m")
    assert (gpt.id, gpt.trains, gpt.asks) == ("teachers:gpt", False, "gpt")


def test_a_run_gets_base_dataset_student_method_settings_and_seed(load):
    experiment = load(
        base={"teachers": ASKED},
        methods=["fine-tuning", "lora", "step-by-step", "tinyllm", "tinyllm-without", "tinyllm-without-examples"],
        alpha=[0.1, 0.5],
    )
    assert config(experiment, "fine-tuning", seed=1).train.seed == 1
    assert config(experiment, "lora").student.adapter == "lora"
    assert config(experiment, "fine-tuning", "two").data.folder.name == "two"
    assert config(experiment, "step-by-step:bob", settings={ALPHA: 0.5}).train.alpha == {"ada": 0.0, "bob": 0.5}
    assert config(experiment, "tinyllm", settings={ALPHA: 0.1}).train.alpha == {"ada": 0.1, "bob": 0.1}
    assert config(experiment, "tinyllm-without:ada", settings={ALPHA: 0.1}).train.alpha == {"ada": 0.0, "bob": 0.1}
    assert config(experiment, "tinyllm-without-examples", settings={ALPHA: 0.1}).rationales.examples.strategy == "none"
    assert [g.sweep.alphas for g in experiment.groups if g.spec.id == "fine-tuning"] == [(), ()]


def test_a_method_may_have_settings_and_candidates_of_its_own(load):
    experiment = load(
        methods=[
            "fine-tuning",
            {"name": "lora", "tune": {"student.lora.rank": [4, 8]}},
            {"name": "long", "like": "tinyllm", "label": "TinyLLM, long", "set": {"train": {"epochs": 3}}},
        ],
        tune={"train.learning_rate": [1e-3, 1e-2]},
    )
    sweeps = {g.spec.id: g.sweep for g in experiment.groups}
    assert sweeps["lora"].tuned == ({"student.lora.rank": 4}, {"student.lora.rank": 8})
    assert sweeps["fine-tuning"].tuned == ({"train.learning_rate": 1e-3}, {"train.learning_rate": 1e-2})
    assert config(experiment, "lora", settings={"student.lora.rank": 8}).student.lora.rank == 8
    assert config(experiment, "long").train.epochs == 3
    assert [g.spec.label for g in experiment.groups[:3]] == ["Fine-tuning", "LoRA", "TinyLLM, long"]


def test_own_settings_of_a_method_have_priority_over_settings_for_all(load):
    own = {"learning_rate": 5e-3, "alpha": 0.25}
    experiment = load(
        methods=[
            "fine-tuning",
            "tinyllm",
            {"name": "own", "like": "tinyllm", "set": {"train": own}},
            {"name": "weights", "like": "tinyllm", "set": {"train": {"alpha": {"ada": 0.0}}}},
        ],
        tune={"train.learning_rate": [1e-3, 1e-2], "train.warmup_steps": [0, 1]},
        alpha=[0.1, 1.0],
    )
    sweeps = {g.spec.id: g.sweep for g in experiment.groups}
    assert sweeps["own"].tuned == ({"train.warmup_steps": 0}, {"train.warmup_steps": 1})
    assert (sweeps["own"].alphas, sweeps["weights"].alphas) == ((), ())
    assert (len(sweeps["tinyllm"].tuned), sweeps["tinyllm"].alphas) == (4, (0.1, 1.0))
    for settings in sweeps["own"].tuned:
        found = config(experiment, "own", settings=settings).train
        assert (found.learning_rate, found.alpha) == (5e-3, {"ada": 0.25, "bob": 0.25})
    assert config(experiment, "weights", settings=sweeps["weights"].tuned[0]).train.alpha == {"ada": 0.0, "bob": 1.0}


@pytest.mark.parametrize(
    ("own", "for_all"),
    [
        ({"student": {"lora": {"rank": 4}}}, {"student.lora.rank": [8, 16]}),
        ({"student": {"lora": {"rank": 4}}}, {"student.lora": [{"rank": 8}, {"rank": 16}]}),
        ({"train": {"alpha_schedule": {"ada": "linear"}}}, {"train.alpha_schedule": ["constant", "linear"]}),
    ],
)
def test_a_part_of_a_setting_is_its_own_too(load, own, for_all):
    experiment = load(methods=["fine-tuning", {"name": "own", "like": "tinyllm", "set": own}], tune=for_all)
    assert [g.sweep.tuned for g in experiment.groups if g.spec.id == "own"] == [({},), ({},)]


def test_what_is_set_for_a_method_and_among_its_own_candidates_is_refused(load):
    both = {"name": "both", "like": "tinyllm", "set": {"train": {"epochs": 3}}, "tune": {"train.epochs": [1, 2]}}
    with pytest.raises(ConfigError, match=r"methods\.both: train\.epochs: in `set` and in `tune` of this method"):
        load(methods=["fine-tuning", both])


def test_keys_are_names_of_folders_and_no_two_are_the_same(load):
    methods = [n for n in METHODS if n != "teachers"]
    experiment = load(base={"teachers": ASKED}, methods=methods, alpha=[0.1, 1.0], tune={"train.epochs": [1, 2]})
    keys = [
        g.cell(s, seed).key
        for g in experiment.groups for of in g.sweep.by_alpha() for s in of for seed in g.sweep.seeds
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert all(Path(k).name == k and ":" not in k for k in keys)


def test_runs_of_one_name_are_refused(load):
    with pytest.raises(
        ConfigError, match=r"two runs would be called 'one--tiny--fine-tuning--learning_rate=0\.0001--seed0'"
    ):
        load(tune={"train.learning_rate": [1e-4, 0.0001]})
    with pytest.raises(ConfigError, match="two runs would be called 'one--tiny--step-by-step_ada--seed0'"):
        load(methods=["fine-tuning", "step-by-step", {"name": "step-by-step:ada", "like": "fine-tuning"}])


def test_a_dataset_is_not_called_as_the_column_of_averages(load, tmp_path):
    with pytest.raises(ConfigError, match=r"datasets\.Average: the tables have a column with this name"):
        load(datasets={"Average": {"data": {"folder": str(tmp_path / "one")}}})


def test_a_number_as_people_write_it_is_a_number(load):
    experiment = load(tune={"train.learning_rate": ["3e-5"]})  # YAML takes 3e-5 for text
    group = next(g for g in experiment.groups if g.spec.id == "tinyllm")
    assert group.sweep.tuned == ({"train.learning_rate": 3e-5},)
    assert group.cell(group.sweep.tuned[0], 0).key == "one--tiny--tinyllm--learning_rate=3e-05--seed0"


def test_what_is_dumped_loads_to_the_same(load, tmp_path):
    experiment = load(alpha=[0.5], tune={"train.epochs": [1, 2]}, quoted={"GPT": {"one": 70.0}})
    file = tmp_path / "again.yaml"
    file.write_text(dump_config(experiment.grid), encoding="utf-8")
    again = load_experiment(file)
    assert again.grid == experiment.grid
    assert again.groups == experiment.groups


def test_all_mistakes_stand_in_one_message(load):
    with pytest.raises(ConfigError) as caught:
        load(
            methods=["fine-tuning", "tinylm", "fine-tuning"],
            base={"train": {"learning_rate": -1}, "teachers": TEACHERS},
            baseline="lora",
            seeds=[0, 0],
            quoted={"GPT": {"three": 1.0}},
        )
    message = str(caught.value)
    for part in (
        "unknown method 'tinylm'. Did you mean 'tinyllm'?",
        "train.learning_rate: Input should be greater than 0",
        "baseline: no method 'lora' here",
        "seeds: a value is there twice",
        "'fine-tuning' is there twice",
        "quoted.GPT: no dataset 'three'",
    ):
        assert part in message
    assert message.count("greater than 0") == 1  # once, however many runs it concerns


def test_a_misspelt_method_is_not_also_a_missing_baseline(load):
    with pytest.raises(ConfigError) as caught:
        load(methods=["inference", "fine-tunning"])
    assert "1 problem\n" in str(caught.value)
    assert "Did you mean 'fine-tuning'?" in str(caught.value)


def test_methods_that_would_do_nothing_are_told(load):
    with pytest.raises(ConfigError) as caught:
        load(
            methods=["fine-tuning", "tinyllm-without-examples", "tinyllm-without", "teachers"],
            base={"teachers": [{"name": "ada", "kind": "given"}]},
            tune={"alpha": [0.1], "data.limit": [1, 2]},
            views=["rotated"],
            scorer="generation",
        )
    message = str(caught.value)
    for part in (
        "the rationales of one come with the data, so in-context examples do not change them",
        "methods.tinyllm-without: no dataset has the teachers that it needs",
        "methods.teachers: no dataset has the teachers that it needs",
        "tune.alpha: to sweep α, write `alpha: [0.1, 1.0]`",
        "data.limit: all methods of a dataset must have the same questions",
        "views: must include `asked`",
    ):
        assert part in message
    with pytest.raises(ConfigError, match=r"scorer: 'generation' is not in evaluate\.scorers"):
        load(base={"teachers": TEACHERS, "evaluate": {"scorers": ["likelihood"]}}, scorer="generation")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"set": {"train": {"seed": 5}}}, r"methods\.own: train\.seed: every method gets the same seeds"),
        ({"tune": {"train.seed": [1, 2]}}, r"methods\.own: train\.seed: every method gets the same seeds"),
        ({"set": {"train": {"method": "shuffled"}}}, r"methods\.own: train\.method: `like` decides it"),
    ],
)
def test_settings_that_the_grid_decides_are_refused_in_a_method(load, changes, said):
    with pytest.raises(ConfigError, match=said):
        load(methods=["fine-tuning", {"name": "own", "like": "tinyllm", **changes}])


def test_weights_are_not_swept_in_two_ways(load):
    with pytest.raises(ConfigError, match="tune: `alpha` sweeps the weights of teachers, too"):
        load(alpha=[0.1, 1.0], tune={"train.alpha": [0.5, 2.0]})
    with pytest.raises(ConfigError, match=r"tune\.train\.seed: every method gets the same seeds"):
        load(tune={"train.seed": [1, 2]})
    own = {"name": "own", "like": "tinyllm", "tune": {"train.alpha.ada": [0.5, 2.0]}}
    experiment = load(methods=["fine-tuning", "tinyllm", own], alpha=[0.1, 1.0])
    sweep = next(g.sweep for g in experiment.groups if g.spec.id == "own")
    assert (sweep.alphas, len(sweep.tuned)) == ((), 2)
    assert config(experiment, "own", settings=sweep.tuned[1]).train.alpha == {"ada": 2.0, "bob": 1.0}


def test_a_sweep_leaves_those_out_who_have_no_weight(load):
    base = {"teachers": TEACHERS, "train": {"alpha": {"ada": 1.0, "bob": 0.0}}}
    experiment = load(base=base, methods=["fine-tuning", "tinyllm"], alpha=[0.1, 0.5])
    assert config(experiment, "tinyllm", settings={ALPHA: 0.5}).train.alpha == {"ada": 0.5, "bob": 0.0}


def test_an_unknown_key_is_named_with_its_line(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("name: x\nmethod: [tinyllm]\ndatasets: {}\nstudents: {}\nmethods: []\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"line 2: method: unknown key\. Did you mean 'methods'\?"):
        load_experiment(file)


def test_an_override_of_a_setting_of_runs_belongs_into_base(tmp_path, tiny_t5):
    file = write_grid(tmp_path, grid_tree(tmp_path, tiny_t5))
    with pytest.raises(ConfigError, match=r"1 problem\n  - --set train.epochs=2: .* --set base.train.epochs=2"):
        load_experiment(file, ["train.epochs=2"])
    experiment = load_experiment(file, ["base.train.epochs=2"])
    assert config(experiment, experiment.groups[0].spec.id).train.epochs == 2


def test_an_override_takes_methods_of_the_file_by_their_names(tmp_path, tiny_t5):
    own = {"name": "choosing", "like": "fine-tuning", "set": {"train": {"answer": "choices"}}}
    tree = grid_tree(tmp_path, tiny_t5, methods=["fine-tuning", own, "lora"])
    experiment = load_experiment(write_grid(tmp_path, tree), ["methods=[choosing, fine-tuning]"])
    assert [g.spec.id for g in experiment.groups if g.dataset == "one"] == ["choosing", "fine-tuning"]
    assert config(experiment, "choosing").train.answer == "choices"
    with pytest.raises(ConfigError, match="chosing"):
        load_experiment(write_grid(tmp_path, tree), ["methods=[chosing, fine-tuning]"])


@pytest.mark.parametrize(
    "file", sorted((repository() / "configs" / "experiments").glob("*.yaml")), ids=lambda f: f.name
)
def test_every_shipped_experiment_loads(file):
    assert load_experiment(file).groups
