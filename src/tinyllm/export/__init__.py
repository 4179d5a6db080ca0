"""Export: writes a student in the format of another program, and compares the answers of both.

Add a format: a writer and a `Runtime` (`scoring/runtime.py`) in a new file, its name and precisions in `_kinds`, and
its file and its cases in `_formats` (`_FILES`, `_write_model`, `open_export`). How much answers may differ: `_parity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllm.export._kinds import FORMATS
from tinyllm.system.lazy import lazily

if TYPE_CHECKING:
    from tinyllm.export._formats import open_export, write_export
    from tinyllm.export._parity import Parity, compare

__all__ = ["FORMATS", "Parity", "compare", "open_export", "write_export"]

__getattr__ = lazily(__name__, _formats=("open_export", "write_export"), _parity=("Parity", "compare"))
