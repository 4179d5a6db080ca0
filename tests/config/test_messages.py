"""What a wrong configuration is told: the setting, what it got, what is allowed, what to do."""

from __future__ import annotations

import pytest

from tinyllm.config import build_config, describe_differences
from tinyllm.errors import ConfigError

STUDENT = {"name": "s", "kind": "student", "run": "runs/s"}
SCRIPTED = {"name": "a", "kind": "scripted"}


def told(**sections) -> str:
    """The message about a configuration with these sections."""
    with pytest.raises(ConfigError) as caught:
        build_config({"data": {"dataset": "starter"}, "train": {"method": "fine-tuning"}} | sections)
    return str(caught.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"data": {"train": "q.csv", "choices": ["yes"]}}, "data.choices: at least 2 are needed, got ['yes']"),
        ({"evaluate": {"scorers": []}}, "evaluate.scorers: it must not be empty, got []"),
        ({"teachers": [{"kind": "openai", "name": "a", "model": "m", "base_url": []}]}, "it must not be empty, got []"),
        ({"evaluate": 5}, "evaluate: a mapping is needed, got 5"),
        ({"evaluate": {"before": []}}, "evaluate.before: true or false is needed, got []"),
        ({"data": {"train": 5}}, "data.train: a path is needed, got 5"),
        ({"teachers": [{"kind": "openai", "name": "a"}]}, "teachers[0].model: missing; this setting has no default"),
        ({"data": {"train": "q.csv", "folder": "d"}}, "`train` cannot be combined with `dataset` or `folder`"),
        ({"data": {"cut": {"valid": 0.5, "test": 0.5}, "train": "q.csv"}}, "their sum must be below 1"),
        ({"data": {"train": "q", "choices": ["a", "a"]}}, "data.choices: 'a' is listed more than once"),
        (
            {"data": {"train": "q", "more": [{"dataset": "obqa", "train": "b"}]}},
            "data.more[0]: it names dataset and train; give a file, or exactly one of",
        ),
        (
            {"rationales": {"examples": {"ids": ["1"]}}},
            "rationales.examples.ids: `strategy: random` does not use them; set `strategy: fixed`, or remove `ids`",
        ),
        ({"max_steps": 6}, "max_steps: unknown key. Did you mean 'train.max_steps'?"),
        ({"train": {"alpha": "0,5"}}, "train.alpha: a number or a mapping is needed, got '0,5' (write a point, not a"),
        ({"rationales": {"budget": {"usd": 1}}}, "no teacher has a price, so what it costs does not count"),
        (
            {
                "rationales": {"budget": {"usd": 1}},
                "teachers": [
                    {"kind": "openai", "name": "a", "model": "m", "price": {"prompt": 1, "completion": 1}},
                    {"kind": "openai", "name": "b", "model": "m"},
                    {"kind": "openai", "name": "c", "model": "m", "api_key_env": None},
                ],
            },
            "budget.usd: 'b' has no price, so what it costs does not count",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting(sections, words):
    assert words in told(**sections)


def test_what_is_known_is_listed_once_for_several_unknown_keys():
    said = told(train={"method": "fine-tuning", "epoch": 2, "batch_sise": 4}, trian={})
    assert "  - train.batch_sise: unknown key. Did you mean 'batch_size'? Known: method" in said
    assert "  - train.epoch: unknown key. Did you mean 'epochs'?\n" in said
    assert "  - trian: unknown key. Did you mean 'train'? Known: name" in said


def test_a_list_with_a_wrong_item_is_not_said_to_be_empty_as_well():
    said = told(evaluate={"scorers": ["likelyhood"]})
    assert "evaluate.scorers[0]: Input should be 'likelihood' or 'generation', got 'likelyhood'." in said
    assert "1 problem" in said


@pytest.mark.parametrize("method", ["step-by-step", "tinyllm", "shortest"])
@pytest.mark.parametrize("teachers", [[], [STUDENT]])
def test_a_method_that_learns_from_rationales_needs_a_teacher_that_writes_them(method, teachers):
    said = told(teachers=teachers, train={"method": method, "alpha": 0})
    assert f"teachers: `method: {method}` needs a teacher that writes rationales (not of `kind: student`)" in said
    assert "1 problem" in said, "the weight of a teacher that is not there is no second problem"


def test_step_by_step_names_the_teachers_to_choose_from():
    said = told(teachers=[SCRIPTED, SCRIPTED | {"name": "b"}], train={"method": "step-by-step", "alpha": 0})
    assert "train.teacher: missing; `step-by-step` learns from one teacher; choose one of a, b" in said
    assert "learns from ''" not in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"temperature": 1}, "'temperature' is set by `rationales.temperature`; remove it here"),
        ({"n": 2}, "'n' is set to 1, and `rationales.samples` allows more requests; remove it here"),
    ],
)
def test_a_field_of_a_request_that_has_a_setting_of_its_own(body, words):
    assert words in told(teachers=[{"name": "a", "kind": "openai", "model": "m", "extra_body": body}])


LOCAL = {"name": "a", "kind": "llamacpp", "model": "gemma3-270m", "stop": ["\n\n", "\nQuestion:"]}
LONG = "so it is " * 20


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([LOCAL], [LOCAL], []),
        ([LOCAL], [LOCAL | {"model": "gema3-270m"}], ["teachers.a.model: 'gemma3-270m' → 'gema3-270m'"]),
        ([LOCAL], [LOCAL | {"stop": ["\n\n"]}], ["teachers.a.stop[1]: '\\nQuestion:' → absent"]),
        ([LOCAL, STUDENT], [STUDENT, LOCAL], ["teachers: ['a', 's'] → ['s', 'a']"]),
        (
            [STUDENT],
            [STUDENT, SCRIPTED],
            ["teachers.a: absent → {'name': 'a', 'kind': 'scripted', 'template': 'It is {answer…"],
        ),
        (
            [LOCAL | {"form": "chat"}],
            [{"name": "a", "kind": "openai", "model": "m", "form": "chat", "stop": LOCAL["stop"]}],
            ["teachers.a.kind: 'llamacpp' → 'openai'", "teachers.a.model: 'gemma3-270m' → 'm'"],
        ),
        (
            [SCRIPTED | {"template": f"{LONG}fire {LONG}"}],
            [SCRIPTED | {"template": f"{LONG}ice {LONG}"}],
            [
                (
                    "teachers.a.template: …s so it is so it is fire so it is so it is so it is so it is… → "
                    "…s so it is so it is ice so it is so it is so it is so it is …"
                )
            ],
        ),
    ],
)
def test_what_differs_names_the_setting_and_shows_the_part_that_differs(old, new, said):
    def made(teachers):
        train = {"method": "fine-tuning"}
        return build_config({"data": {"dataset": "starter"}, "train": train, "teachers": teachers})

    assert describe_differences(made(old), made(new)) == said


def test_null_differs_from_a_setting_that_is_absent():
    one, other = (
        build_config({"data": {"dataset": "starter"}, "train": {"method": "auto"}, "auto": {"candidates": [candidate]}})
        for candidate in ({"epochs": 2, "soft": None}, {"epochs": 2})
    )
    assert describe_differences(one, other) == ["auto.candidates[0].soft: null → absent"]


@pytest.mark.parametrize(
    "name", ["gsk_Abcdef1234567890abcdef", "sk-proj-abc", "AIzaSyD3xyz12345", "Qx7fBcD2mK9tLpW3vZ5yRn1G"]
)
def test_a_key_in_place_of_the_name_of_its_variable_is_not_repeated(name):
    teacher = {"name": "ada", "kind": "openai", "model": "m", "api_key_env": name}
    with pytest.raises(ConfigError, match="as in OPENAI_API_KEY, and not the key") as caught:
        build_config({"data": {"train": "q.csv"}, "teachers": [teacher]})
    assert name not in str(caught.value)
    build_config({"data": {"train": "q.csv"}, "teachers": [teacher | {"api_key_env": "my_openai_key_2"}]})


def test_a_wrong_way_a_number_for_a_price_and_a_number_for_a_share_are_one_problem_each():
    teacher = {"name": "ada", "kind": "openai", "model": "m", "price": 0.1}
    said = told(
        teachers=[teacher], opinions={"teachers": {"ada": "letter"}}, data={"train": "q.csv", "cut": {"test": 30}}
    )
    assert said.splitlines()[0].endswith("3 problems")
    assert "opinions.teachers.ada: Input should be 'letters', " in said
    assert "teachers[0].price: a mapping is needed (US dollars per million tokens, as in {prompt: 0.15, " in said
    assert "data.cut.test: Input should be less than 1, got 30. It is a share, as in 0.3" in said


def test_an_address_without_http_is_told_what_it_needs():
    teacher = {"name": "ada", "kind": "openai", "model": "m", "base_url": "127.0.0.1:8000/v1"}
    with pytest.raises(ConfigError, match="begins with http:// or https://"):
        build_config({"data": {"train": "q.csv"}, "teachers": [teacher]})


def test_of_a_section_that_only_one_configuration_has_the_unusual_settings_are_shown():
    tree = {
        "data": {"train": "q.csv"},
        "teachers": [{"name": "ada", "kind": "given"}],
        "opinions": {"teachers": ["ada"]},
    }
    plain, soft = (
        build_config(tree | {"train": {"method": "fine-tuning", **of}}) for of in ({}, {"soft": {"shuffle": True}})
    )
    assert describe_differences(plain, soft) == ["train.soft: null → {'shuffle': True}"]
    assert describe_differences(soft, plain) == ["train.soft: {'shuffle': True} → null"]
