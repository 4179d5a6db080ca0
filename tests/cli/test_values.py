"""A value that an option does not take: the message says what it got and what is allowed."""

from __future__ import annotations

import enum
import shlex

import pytest
import typer

from cli.refusals import refused
from tinyllm.cli.app import app


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict run q.csv --min-confidence 60", "'--min-confidence': got '60'. Allowed: a number from 0 to 1."),
        ("predict run q.csv --min-confidence=half", "got 'half'. Allowed: a number from 0 to 1."),
        ("predict run q.csv --answers-from 2", "'--answers-from': got '2'. Allowed: a whole number from 0 to 1."),
        ("predict run q.csv --answers-as x", "'--answers-as': got 'x'. Allowed: letter, number, text."),
        ("serve run --port abc", "'--port': got 'abc'. Allowed: a whole number from 0 to 65535."),
        ("serve run --port 99999", "'--port': got '99999'. Allowed: a whole number from 0 to 65535."),
        ("serve run --queue 0", "'--queue': got '0'. Allowed: a whole number from 1 on."),
        ("serve run --timeout 1,5", "'--timeout': got '1,5'. Allowed: a number from 0.1 on."),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(cli, command, message):
    refused(cli(*shlex.split(command)), message)


def test_every_option_with_a_number_or_a_list_of_words_says_what_it_takes(cli):
    commands = dict(typer.main.get_command(app).commands)
    for group in ("store", "models"):
        commands |= {f"{group} {name}": command for name, command in commands.pop(group).commands.items()}
    tried = 0
    for name, command in commands.items():
        for option in command.params:
            kind = option.type_descriptor.annotation
            if kind in (int, float) or (isinstance(kind, type) and issubclass(kind, enum.Enum)):
                refused(cli(*name.split(), option.opts[0], "wrong"), f"'{option.opts[0]}'", "got 'wrong'. Allowed: ")
                tried += 1
    assert tried > 10
