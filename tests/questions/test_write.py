"""A questions file is written whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

from tinyllm.questions import Question
from tinyllm.questions._files import write_questions

ONE = Question("a", "What is wet?", ("water", "sand"), 0, "Drops.", {"t": "why"})
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from tinyllm.errors import DataError
from tinyllm.questions import Question
from tinyllm.questions._files import write_questions

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_questions(Path(sys.argv[1]), [Question("a", "q" * 9000, ("x", "y"), 0)])
except DataError as error:
    print(error)
"""


def test_what_is_absent_has_no_key(tmp_path: Path) -> None:
    write_questions(tmp_path / "new" / "t.jsonl", [ONE, Question("b", "ü?", ("x", "y"), 1)])
    assert (tmp_path / "new" / "t.jsonl").read_text(encoding="utf-8") == (
        '{"id": "a", "context": "Drops.", "question": "What is wet?", "choices": ["water", "sand"], "answer": 0, '
        '"rationales": {"t": "why"}}\n'
        '{"id": "b", "question": "ü?", "choices": ["x", "y"], "answer": 1}\n'
    )


def test_a_file_is_replaced_at_once_never_written_over(tmp_path: Path) -> None:
    path, reader = tmp_path / "t.jsonl", tmp_path / "as-a-reader-has-it-open"
    path.write_text("old")
    os.link(path, reader)
    write_questions(path, [ONE])
    assert reader.read_text() == "old"
    assert path.read_text() != "old"


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert f"{path} cannot be written: File too large; make room or give another folder" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["t.jsonl"]
    assert path.read_text() == "old"
