"""A student for the tests that answer files."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import saved_student


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    return saved_student(tmp_path_factory.mktemp("saved") / "student")
