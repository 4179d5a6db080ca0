"""The page in a real browser, if one is installed: the script runs without console messages."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up import EVIL_TEACHER, SCRIPT

from tinyllm.opinions.files import writing_opinions
from tinyllm.opinions.types import Opinion
from tinyllm.report import write_report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_script_draws_the_first_questions_without_console_messages(made_up_run: Path, tmp_path: Path) -> None:
    with writing_opinions(made_up_run) as add:
        add("test", {EVIL_TEACHER: Opinion("test-0", EVIL_TEACHER, (0.7, 0.1, 0.1, 0.1), "letters", 2)})
        add("test", {"qwen": Opinion("test-1", "qwen", (0.61, 0.19, 0.1, 0.1), "letters", 2)})
    page = write_report(made_up_run).resolve()
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    profile, log = f"--user-data-dir={tmp_path / 'profile'}", ["--enable-logging=stderr", "--v=0"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, profile, *log, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    drawn = re.sub(r'<script type="application/json".*?</script>', "", done.stdout, flags=re.DOTALL)
    assert drawn.count('<article class="item">') == 10
    assert "130 of 130 questions, 10 shown" in drawn
    assert "✓ right answer" in drawn
    assert SCRIPT not in drawn
    told = [re.sub("<[^>]*>", "", line) for line in re.findall(r'<p class="said">.*?</p>', drawn)]
    assert "Opinion of evil&lt;script&gt;alert(1)&lt;/script&gt;: A it takes up water (70 %, right)" in told
    assert "Opinion of qwen: A it takes up water (61 %, wrong)" in told
