"""The mutations of mutations.py still fit the package: each replaces a text that stands exactly once."""

from __future__ import annotations

import pytest

from mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_the_line_that_a_mutation_breaks_stands_once(mutation: Mutation):
    assert (ROOT / "src" / "tinyllm" / mutation.file).read_text("utf-8").count(mutation.old) == 1
    assert all((ROOT / test).exists() for test in mutation.tests)
