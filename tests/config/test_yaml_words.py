"""Mistakes in YAML, in plain words."""

from __future__ import annotations

import pytest

from tinyllm.config import load_config
from tinyllm.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data:\n  train: q.csv\n\tcut: 1\n", "line 3: not YAML: a tab cannot indent; use spaces"),
        ("name: x\ndata: {train: q.csv\n", "the bracket { that is opened in line 2 is not closed"),
        ("name: x\nteachers: [{name: a}\ndata: 1\n", "the bracket [ that is opened in line 2 is not closed"),
        ("name: 'x\ndata: {}\n", "the quote that is opened in line 1 is not closed"),
        ("name: x: y\n", "line 1: not YAML: a second `: ` in this line"),
        ("data:\n  train: q.csv\n    cut: 1\n", "line 3: not YAML: the indentation of this line fits no line above"),
        ("data:\n  train: q.csv\n cut: 1\n", "line 3: not YAML: the indentation of this line fits no line above"),
        ("teachers:\n  - name: a\n - name: b\n", "line 3: not YAML: the indentation of this line fits no line above"),
        ("name: 'x' y\n", "line 1: not YAML: a text follows a quoted text"),
    ],
)
def test_a_mistake_is_told_in_plain_words(tmp_path, text, said):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(file)
    assert said in str(refused.value)
