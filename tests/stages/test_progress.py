"""Asking teachers keeps the garbage collector from old objects, and leaves it as it was."""

from __future__ import annotations

import gc

import pytest

from tinyllm.rationales.generate import Ended
from tinyllm.stages._progress import run_asking
from tinyllm.system.news import News


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_caller_has_frozen_stays_frozen(frozen):
    seen = []

    async def asking(stop):
        seen.append(gc.get_freeze_count())
        return Ended(None, ())

    try:
        gc.unfreeze()
        if frozen:
            gc.freeze()
        usual = gc.get_threshold()
        run_asking(asking, News(quiet=True))
        assert seen[0] > 0
        assert (gc.get_freeze_count() > 0) == frozen
        assert gc.get_threshold() == usual
    finally:
        gc.freeze()  # as tests/conftest.py has it
