"""Takes pictures of the screens: all of them, to be looked at, and those that the documents show.

    make docs                                                  makes the site
    tinyllm demo                                               makes the run runs/demo
    tinyllm run configs/rationales.yaml --run-dir runs/explains      makes a student that explains
    python docs/picture.py all runs/demo runs/explains         each screen, at 1280 and 390 pixels, light and dark
    python docs/picture.py kept runs/demo runs/explains        the pictures in docs/images

The screens are the reports of both runs, the page of an experiment, the page of `tinyllm serve`, the end of `tinyllm demo` in
a terminal, and the first page of the site. `all` writes to build/screens, and prints which parts are too wide.

Needs Chromium and its driver (`apt-get install chromium chromium-driver`), and selenium, which the extra `dev` has.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tinyllm.report import write_experiment, write_report

_ROOT = Path(__file__).parents[1]
_SCREENS = ("report", "explains", "experiment", "serve", "demo", "site")
_KEPT = {"experiment": (1100, 1250), "serve": (900, None), "site": (1280, 800)}  # width, height; None: the whole page
_WIDTHS = {1280: 900, 390: 844}  # width to height of the window, in CSS pixels
_COLUMNS = {1280: 100, 390: 48}  # of a terminal in such a window
_PIECE = 1800  # a long page becomes several pictures of this height
_ANSWER_S = 120

# Elements that reach beyond the text's edge, but not those in a box that scrolls or cuts them.
_TOO_WIDE = """
const boxed = (e) => e && (getComputedStyle(e).overflowX !== "visible" || boxed(e.parentElement));
const edge = document.body.getBoundingClientRect().right - parseFloat(getComputedStyle(document.body).paddingRight) + 1;
const wide = (e) => e.getBoundingClientRect().right > edge;
return [...document.body.querySelectorAll("*")].filter((e) => wide(e) && !boxed(e.parentElement)).slice(0, 5)
  .map((e) => `${e.tagName} ${e.id || e.getAttribute("class") || ""}: ${e.textContent.trim().slice(0, 40)}`);
"""


@dataclass(frozen=True)
class Screen:
    """A page to photograph. `address` takes the width and the colour scheme; `prepare` is done to the page first."""

    name: str
    address: Callable[[int, str], str]
    prepare: Callable[[Any], None]


@contextlib.contextmanager
def opened(screen: Screen, width: int, height: int, scheme: str) -> Iterator[Any]:
    """Open a screen in a browser of this size that prefers this colour scheme."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-background-networking",
                     "disable-dev-shm-usage", "force-prefers-reduced-motion", f"user-data-dir={profile}"):  # fmt: skip
            options.add_argument(f"--{flag}")
        browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # a window is 500 wide or more
            preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
            browser.get(screen.address(width, scheme))
            screen.prepare(browser)
            yield browser
        finally:
            browser.quit()


def photograph(browser: Any, picture: Path, width: int, height: int, top: int = 0) -> None:
    """Photograph a part of the page: `height` pixels from `top` on."""
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    picture.write_bytes(base64.b64decode(taken["data"]))


def page_height(browser: Any) -> int:
    """Return the height of the page in CSS pixels."""
    return int(browser.execute_script("return document.documentElement.scrollHeight"))


def take_all(screen: Screen, folder: Path) -> None:
    """Photograph a page from top to bottom in each width and colour scheme."""
    for width, height in _WIDTHS.items():
        for scheme in ("light", "dark"):
            with opened(screen, width, height, scheme) as browser:
                browser.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true })")
                for part in browser.execute_script(_TOO_WIDE):
                    sys.stdout.write(f"{screen.name}, {width} pixels, too wide: {part}\n")
                whole = page_height(browser)
                for number, top in enumerate(range(0, whole, _PIECE)):
                    picture = folder / f"{screen.name}-{width}-{scheme}-{number}.png"
                    photograph(browser, picture, width, min(_PIECE, whole - top), top)


def take_kept(screen: Screen, folder: Path) -> None:
    """Take the picture of a page that the documents show."""
    width, height = _KEPT[screen.name]
    with opened(screen, width, height or 600, "light") as browser:
        photograph(browser, folder / f"{screen.name}.png", width, height or page_height(browser))


@contextlib.contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve the student of a run, and yield the address of the page."""
    command = [sys.executable, "-m", "tinyllm", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            lines = iter(process.stderr or ())
            yield next(found[1] for line in lines if (found := re.search(r"Serving on (http://\S+)", line)))
        finally:
            process.terminate()


def ask(browser: Any) -> None:
    """Ask the student a question on its page, and wait for the answer. The student must be one that explains."""
    asked = {
        "question": "What does a thermometer measure?",
        "choices": "how heavy something is\nhow warm something is\nhow long something takes",
    }
    for field, text in asked.items():
        browser.find_element(By.ID, field).send_keys(text)
    explain = browser.find_element(By.ID, "explain")
    WebDriverWait(browser, _ANSWER_S).until(lambda _: explain.is_displayed())
    explain.click()
    browser.find_element(By.ID, "ask").click()
    WebDriverWait(browser, _ANSWER_S).until(lambda _: browser.find_element(By.ID, "answer").is_displayed())


def end_of_demo(run: Path) -> str:
    """Return what a finished demo prints at its end. The folder is called as in the README."""
    command = [sys.executable, "-m", "tinyllm", "demo", "--run-dir", str(run)]
    environment = os.environ | {"COLUMNS": "100"}
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout  # noqa: S603
    said = said.replace(f"{run.resolve()}/report.html", "/home/ada/runs/demo/report.html")
    return said.replace(str(run), "runs/demo").rstrip()


def terminal(text: str, columns: int, scheme: str) -> str:
    """Draw a terminal with the end of the demo, as SVG that loads nothing."""
    theme = DEFAULT_TERMINAL_THEME if scheme == "light" else SVG_EXPORT_THEME
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere)
        console.print(Text(f"$ tinyllm demo\n…\n{text}", overflow="fold"))
        drawn = console.export_svg(title="tinyllm demo", theme=theme, unique_id="demo")
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return drawn.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")


@contextlib.contextmanager
def shown(name: str, chosen: argparse.Namespace, scratch: Path) -> Iterator[Screen]:
    """Make a screen. A server runs until the block ends."""
    if name == "serve":
        with served(chosen.explains) as url:
            yield Screen(name, lambda *_: url, ask)
        return
    if name == "demo":
        text = end_of_demo(chosen.demo)

        def address(width: int, scheme: str) -> str:
            page = scratch / "demo.html"
            page.write_text(f"<body style='margin: 0'>{terminal(text, _COLUMNS[width], scheme)}", "utf-8")
            return page.as_uri()

    else:
        page = {
            "report": lambda: write_report(chosen.demo),
            "explains": lambda: write_report(chosen.explains),
            "experiment": lambda: write_experiment(chosen.experiment),
            "site": lambda: chosen.site / "docs" / "index.html",
        }[name]()

        def address(width: int, scheme: str) -> str:  # noqa: ARG001
            return page.resolve().as_uri()

    yield Screen(name, address, lambda browser: None)  # noqa: ARG005


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("all", "kept"))
    parser.add_argument("demo", type=Path, help="the run of `tinyllm demo`")
    parser.add_argument("explains", type=Path, help="a run whose student explains")
    parser.add_argument("--experiment", type=Path, default=_ROOT / "results" / "few-labels")
    parser.add_argument("--site", type=Path, default=_ROOT / "build" / "site")
    parser.add_argument("--out", type=Path, help="default: build/screens for all, docs/images for kept")
    parser.add_argument("--only", choices=_SCREENS, nargs="+", default=_SCREENS)
    chosen = parser.parse_args()
    out = chosen.out or _ROOT / ("build/screens" if chosen.which == "all" else "docs/images")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen.only:
            if chosen.which == "kept" and name == "demo":
                (out / "demo.svg").write_text(terminal(end_of_demo(chosen.demo), _COLUMNS[1280], "dark"), "utf-8")
            elif chosen.which == "all" or name in _KEPT:
                with shown(name, chosen, Path(scratch)) as screen:
                    (take_all if chosen.which == "all" else take_kept)(screen, out)


if __name__ == "__main__":
    main()
