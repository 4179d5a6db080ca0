"""Takes the picture of an experiment's page that stands in README.md: `python docs/picture.py results/smollm2`.

Needs Chromium and its driver (`apt-get install chromium chromium-driver`), and selenium, which the extra `dev` has.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from selenium import webdriver

from tinyllm.report import write_experiment

PICTURE = Path(__file__).parent / "images" / "experiment.png"
_WIDTH, _HEIGHT = 1100, 1250


def main(folder: Path) -> None:
    """Write the page anew and photograph its beginning."""
    page = write_experiment(folder)
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking",
                     "disable-dev-shm-usage", f"user-data-dir={profile}", f"window-size={_WIDTH},{_HEIGHT}"):  # fmt: skip
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            browser.get(page.resolve().as_uri())
            browser.save_screenshot(str(PICTURE))
        finally:
            browser.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
