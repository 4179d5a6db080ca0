"""Questions: what a question is, and how files, the hub and the authors' release become questions.

Add a file shape for `init`: a reader in `intake`, and its case in `questions/intake/_shapes.py`. A way to find the
choices: `questions/intake/_finding.py`. A named dataset: a row conversion in `_named` and a line in its table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyllm.questions._by_id import ById
from tinyllm.questions._known import answered, with_answers
from tinyllm.questions._overlap import HeldOut
from tinyllm.questions._spool import gather, leave_out
from tinyllm.questions.types import Dropped, Question, Splits
from tinyllm.system.lazy import lazily

if TYPE_CHECKING:
    from tinyllm.questions._load import load_splits
    from tinyllm.questions._named import SPLITS
    from tinyllm.questions._release import import_release

__all__ = [
    "SPLITS",
    "ById",
    "Dropped",
    "HeldOut",
    "Question",
    "Splits",
    "answered",
    "gather",
    "import_release",
    "leave_out",
    "load_splits",
    "with_answers",
]

# Most users of `Question` read no file.
__getattr__ = lazily(__name__, _load=("load_splits",), _named=("SPLITS",), _release=("import_release",))
