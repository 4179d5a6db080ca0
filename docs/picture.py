"""Takes the pictures of the documents.

    python docs/picture.py results/smollm2      the page of an experiment, as in README.md
    python docs/picture.py serve runs/demo      the page of `tinyllm serve`, asked a question, as in docs/serving.md
    python docs/picture.py site build/site      the first page of the site that `make docs` makes, as in decision 28

Needs Chromium and its driver (`apt-get install chromium chromium-driver`), and selenium, which the extra `dev` has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tinyllm.report import write_experiment

_IMAGES = Path(__file__).parent / "images"
_WIDTH, _HEIGHT = 1100, 1250
_ANSWER_S = 120


def photograph(url: str, width: int, height: int, picture: Path, prepare: Callable[[Any], None] | None = None) -> None:
    """Photograph a page, after what is to be done to it; the picture is as high as the page then is, or `height`."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking",
                     "disable-dev-shm-usage", f"user-data-dir={profile}", f"window-size={width},{height}"):  # fmt: skip
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)  # a window is 500 wide or more
            browser.get(url)
            if prepare is not None:
                prepare(browser)
                whole = browser.execute_script("return document.documentElement.scrollHeight")
                browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen | {"height": whole})
            browser.save_screenshot(str(picture))
        finally:
            browser.quit()


def experiment(folder: Path) -> None:
    """Write the page of an experiment anew and photograph its beginning."""
    page = write_experiment(folder)
    photograph(page.resolve().as_uri(), _WIDTH, _HEIGHT, _IMAGES / "experiment.png")


def served(student: Path, width: int = 900, picture: Path = _IMAGES / "serve.png") -> None:
    """Serve a student, ask it a question on its page, and photograph the answer."""
    command = [sys.executable, "-m", "tinyllm", "serve", str(student), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            lines = iter(process.stderr or ())
            url = next(found[1] for line in lines if (found := re.search(r"Serving on (http://\S+)", line)))
            photograph(url, width, 600, picture, _ask)
        finally:
            process.terminate()


def site(folder: Path) -> None:
    """Photograph the beginning of the documents' site."""
    photograph((folder / "docs" / "index.html").resolve().as_uri(), 1280, 800, _IMAGES / "site.png")


def _ask(browser: Any) -> None:
    asked = {
        "question": "What does a thermometer measure?",
        "choices": "how heavy something is\nhow warm something is\nhow long something takes",
    }
    for field, text in asked.items():
        browser.find_element(By.ID, field).send_keys(text)
    browser.find_element(By.ID, "explain").click()
    browser.find_element(By.ID, "ask").click()
    WebDriverWait(browser, _ANSWER_S).until(lambda _: browser.find_element(By.ID, "answer").is_displayed())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        more = sys.argv[3:]
        served(Path(sys.argv[2]), *([int(more[0]), Path(more[1])] if more else []))
    elif sys.argv[1] == "site":
        site(Path(sys.argv[2]))
    else:
        experiment(Path(sys.argv[1]))
