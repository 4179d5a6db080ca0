"""Whatever a person hands to the command line: one message and exit code 2, never a traceback."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from tinyllm.config import build_config, load_config
from tinyllm.config.yaml_file import NotYamlError, parse_yaml
from tinyllm.errors import ConfigError

# --- configurations -----------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
CONFIGS = {
    "folder": (None, "is a folder"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "utf-16": ("name: x".encode("utf-16"), "not UTF-8"),
    "zero byte": (b"name: a\0b\n", "not YAML"),
    "tabs": (b"data:\n\ttrain: x\n", "line 2: not YAML"),
    "empty": (b"", "is not a mapping"),
    "list": (b"- a\n", "is not a mapping"),
    "deep list": (b"a: " + b"[" * 3000 + b"]" * 3000, "nested deeper than 50 levels"),
    "deep mapping": (b"{a: " * 3000 + b"1" + b"}" * 3000, "nested deeper than 50 levels"),
    "alias of itself": (b"a: &a [*a]\n", "an alias contains itself"),
    "aliases of aliases": (LAUGHS.encode(), "more than 100,000 values"),
    "a date that is none": (b"name: 2026-02-30\n", "a value in it cannot be read: day"),
    "too many digits": (b"name: " + b"9" * 5000, "cannot be read"),
    "a tag": (b"a: !!python/object/apply:os.system ['echo']\n", "could not determine a constructor"),
    "an empty int": (b"a: !!int ''\n", "cannot be read"),
    "a bool that is none": (b"a: !!bool maybe\n", "cannot be read"),
    "a timestamp that is none": (b"a: !!timestamp x\n", "cannot be read"),
    "a list as key": (b"? [a]\n: 1\n", "unhashable"),
    "a zero byte in a name": (b'data: {train: "a\\0b.jsonl"}\n', "data.train: contains a zero byte"),
    "half a pair": (b'data: {train: "\\ud800.jsonl"}\n', "data.train: contains a zero byte or half a surrogate"),
    "escape": (b'name: "\\e[31mx"\n', "name"),
}


@pytest.mark.parametrize("case", CONFIGS)
@pytest.mark.parametrize("command", ["check", "experiment"])
def test_a_configuration_of_any_kind(cli, tmp_path, case, command):
    content, words = CONFIGS[case]
    file = tmp_path / "c.yaml"
    if content is None:
        file.mkdir()
        (file / ("experiment.yaml" if command == "experiment" else "config.yaml")).mkdir()
    else:
        file.write_bytes(content)
    said = cli(command, file)
    refused(said, *([words] if command == "check" else []))
    assert "\x1b" not in said.err


def test_a_configuration_with_a_byte_order_mark(project, cli):
    project.config.write_bytes(b"\xef\xbb\xbf" + project.config.read_bytes())
    assert cli("check", project.config).code == 0


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(list("[]{}:,-?!&*|>'\"#%@` \n\tax01.e~<")), max_size=40).map("".join))
)
def test_any_text_is_yaml_or_is_told_to_be_none(text):
    try:
        value, _ = parse_yaml(text)
    except NotYamlError:
        return
    if isinstance(value, dict):
        with pytest.raises(ConfigError):
            build_config(value)


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"0[": None}, "0[: unknown key"),
        ({"train": {"dict[str]": 1}}, "train.dict[str]: unknown key"),
        ({"train": {"alpha": {"float": "x"}}}, "train.alpha.float: a number"),
    ],
)
def test_keys_that_look_like_types(tree, place):
    with pytest.raises(ConfigError, match=re.escape(place)):
        build_config(tree)


@pytest.mark.parametrize(
    "override",
    ["", "=", "a", "data..=1", ".=1", "x=[", "rationales.seed=" + "9" * 5000, "a." * 500 + "a=1", "train=" + "[" * 3000, "name=\0"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_any_override(project, override):
    with pytest.raises(ConfigError) as error:
        load_config(project.config, [override])
    assert len(str(error.value)) < 2000


def test_links_that_lead_nowhere(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nowhere.yaml").symlink_to("gone.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    refused(cli("check", "nowhere.yaml"), "nowhere.yaml is a symbolic link to gone.yaml, which does not exist")
    refused(cli("check", "loop.yaml"), "Too many levels of symbolic links")


# --- names --------------------------------------------------------------------------------------------------------

COMMANDS = ["check", "generate", "train", "evaluate", "report", "run"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_folder_that_is_a_file_or_a_link_to_nowhere(project, cli, command):
    Path("file").write_text("x")
    Path("link").symlink_to("gone")
    for place in ("file", "file/below", "link", "link/below"):
        if command == "check" and place.endswith("below"):
            continue
        refused(cli(command, project.config, "--run-dir", place), place.partition("/")[0])
    assert Path("file").read_text() == "x"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "", "x" * 5000], ids=["latin-1", "empty", "long"])
def test_a_name_that_no_file_can_have(project, cli, command, name):
    before = sorted(os.listdir())
    refused(cli(command, project.config, "--run-dir", name))
    refused(cli(command, name))
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("command", ["check", "generate"])
def test_a_store_that_cannot_be(project, cli, command):
    Path("folder").mkdir()
    Path("file").write_text("a text of a person")
    Path("loop").symlink_to("loop")
    for store, words in {
        "folder": "is a folder",
        "file/below": "is no folder",
        "loop": "no usable path",
        "file": "no database",
        "x" * 300: "File name too long",
    }.items():
        refused(cli(command, project.config, "--set", f"rationales.store={store}"), words)
    assert Path("file").read_text() == "a text of a person"


def test_other_commands(project, cli):
    Path("file").write_text("x")
    Path("folder").mkdir()
    for arguments in [
        ("ask", "file", "q", "-c", "a", "-c", "b"), ("ask", "gone", "q", "-c", "a", "-c", "b"),
        ("ask", "", "q", "-c", "a", "-c", "b"), ("store", "ls", "file"), ("store", "ls", ""), ("store", "ls", "folder"),
        ("store", "import", "folder", "x.sqlite"), ("store", "salvage", "folder", "--out", "n"),
        ("store", "export", "gone", "--out", "o.jsonl"), ("report", "file"), ("report", "folder"),
        ("init", "file/x.yaml"), ("init", "folder"), ("init", "x.yaml", "--data", "folder"), ("init", ""),
        ("experiment", "file"), ("experiment", "gone.yaml"), ("import-release", "file"), ("evaluate", "folder"),
    ]:  # fmt: skip
        refused(cli(*arguments))
    assert Path("file").read_text() == "x"


# --- addresses ----------------------------------------------------------------------------------------------------


def addressed(url: str, kind: str) -> None:
    teacher = {"name": "t", "kind": kind, "model": "m", "base_url": url}
    build_config({"data": {"dataset": "starter"}, "teachers": [teacher]})


@pytest.mark.parametrize("kind", ["openai", "openai-batch"])
@pytest.mark.parametrize(
    "host",
    [
        "no such host", "a" * 64 + ".de", "a..b", "...", "[::1", "[::1]:99999", "x:99999", "x:65536", "x:-1", "x:abc", "x:0",
        "", ":80", "%zz", "a%00b", "*", "\\x", "[zz]", "\u202e.example", "x" * 300,
    ],
)  # fmt: skip
def test_an_address_that_nothing_can_be_sent_to(host, kind):
    with pytest.raises(ConfigError, match="base_url") as error:
        addressed(f"http://{host}/v1", kind)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:1", "[::1]:8000", "localhost", "my_host:80", "münchen.example", "xn--mnchen-3ya.example", "a.", "a-b.c:65535"],
)  # fmt: skip
def test_an_address_that_may_be(host):
    for kind in ("openai", "openai-batch"):
        addressed(f"https://{host}/v1", kind)


# --- questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "generate", "train", "run"])
def test_no_training_question_is_left(project, cli, command):
    project.write_questions(
        [{"id": str(n), "question": f"word {n} " * 3000, "choices": ["a", "b"], "answer": 0} for n in range(20)]
    )
    project.change("data.on_invalid", "drop")
    refused(cli(command, project.config), "No training question is left: of 12, all are longer")


def test_a_message_ends_with_the_page_that_helps_if_there_is_one(cli, project):
    project.change("teachers", [{"name": "ada", "kind": "openai", "model": "m", "api_key_env": "NO_SUCH_KEY"}])
    assert cli("run", project.config).err.endswith("\nSee docs/teachers.md#keys\n")
    assert cli("check", project.config, "--set", "train.epoch=1").err.endswith("\nSee docs/configuration.md#train\n")
    both = ("--set", "train.epoch=1", "--set", "data.x=1")
    assert cli("check", project.config, *both).err.endswith("\nSee docs/configuration.md\n")
    assert "See docs" not in cli("check", "runs/none").err


def test_a_missing_key_is_told_beside_a_student_that_cannot_be_loaded(cli, project):
    project.change("teachers", [{"name": "ada", "kind": "openai", "model": "m", "api_key_env": "NO_SUCH_KEY"}])
    said = cli("check", project.config, "--set", "student.model=./no-such-folder")
    assert said.code == 2
    assert "no-such-folder" in said.err
    assert "NO_SUCH_KEY" in said.err
    assert cli("check", project.config, "--pilot", "2").err.count("(export NO_SUCH_KEY=") == 1


def test_without_arguments_the_help_is_shown(cli):
    said = cli()
    assert "Usage" in said.out + said.err
    assert "Traceback" not in said.err
