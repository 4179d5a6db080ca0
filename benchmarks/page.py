"""How long an experiment's page of 20,000 questions takes to open in headless Chromium: `python -m benchmarks.page`.

Needs Chromium and its driver (`apt-get install chromium chromium-driver`) and selenium, which the extra `dev` has.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import ROOT, Reach, Result, row, say
from benchmarks.material import fresh_folder

_ABOUT = """\
The page of an experiment with {count:,} questions ({megabytes:.0f} MB, texts of {words} words each, five methods)
opened from disk in headless Chromium: from asking for it until it has loaded and the first questions are drawn."""


def page(count: int, rounds: int) -> Result:
    """Open a page again and again."""
    sys.path.insert(0, str(ROOT / "tests"))
    from comparison.made_up import made_up_experiment  # type: ignore[import-not-found]
    from tinyllm.report import write_experiment

    with fresh_folder() as folder:
        made_up_experiment(folder, datasets=("arc",), seeds=(0,), count=count)
        file = write_experiment(folder)
        seconds = [_opened(file) for _ in range(rounds)]
        megabytes = file.stat().st_size / 1e6
    say("page: " + ", ".join(f"{s:.2f} s" for s in seconds))
    return Result(
        name="page",
        title="Opening a page of 20,000 questions",
        about=_ABOUT.format(count=count, megabytes=megabytes, words=30),
        command="python -m benchmarks.page",
        rows=[row("open", seconds, unit="s", reach=Reach("ours", "at most", 3))],
        settings={"questions": count},
    )


def _opened(file: Path) -> float:
    """Return seconds until the page shows its first questions, in a browser of its own."""
    from selenium.webdriver.common.by import By

    with tempfile.TemporaryDirectory() as profile:
        driver = _browser(profile)
        try:
            began = time.perf_counter()
            driver.get(file.resolve().as_uri())
            while not driver.find_elements(By.CSS_SELECTOR, "#list .item"):
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            driver.quit()


def _browser(profile: str) -> Any:
    from selenium import webdriver

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        raise SystemExit("Chromium is not here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync", "disable-dev-shm-usage",
                 "disable-background-networking", "disable-component-update", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the results")
    parser.add_argument("--questions", type=int, default=20_000, help="questions on the page")
    parser.add_argument("--rounds", type=int, default=5, help="times it is opened")
    options = parser.parse_args(arguments)
    result = page(options.questions, options.rounds)
    say(f"wrote {common.write(result, options.out, None)}")


if __name__ == "__main__":
    main()
