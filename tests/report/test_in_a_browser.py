"""The pages in a headless browser: no console errors, no requests, working filters, 20,000 questions."""

from __future__ import annotations

import json
import time

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from comparison.made_up import made_up_experiment
from tinyllm.report import write_experiment, write_report

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def opened(browser, page):
    """Open a page from disk and return its address."""
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(page.resolve().as_uri())
    return page.resolve().as_uri()


def requests(browser, own):
    found = []
    for line in browser.get_log("performance"):
        message = json.loads(line["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if url.partition("#")[0] != own and not url.startswith("data:")]


def status(browser):
    return browser.find_element(By.ID, "status").text


def until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def page(tmp_path):
    made_up_experiment(tmp_path, alphas=(0.1, 1.0))
    return write_experiment(tmp_path)


def test_it_opens_without_errors_and_asks_the_network_for_nothing(browser, page):
    own = opened(browser, page)
    until(lambda: "220 questions" in status(browser))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert requests(browser, own) == []
    assert browser.find_element(By.TAG_NAME, "h1").text == "made <i>up"


def test_filters_find_what_they_say(browser, page):
    opened(browser, page)
    outcome = Select(browser.find_element(By.NAME, "outcome"))
    counts = {o.get_attribute("value"): int(o.text.rpartition("(")[2].rstrip(")")) for o in outcome.options[1:]}
    assert sum(counts.values()) == 200
    outcome.select_by_value("fixed")
    until(lambda: status(browser).startswith(f"{counts['fixed']} of"))
    items = browser.find_elements(By.CSS_SELECTOR, "#list .item")
    assert len(items) == min(10, counts["fixed"])
    assert all("fixed by the method" in i.text for i in items)
    if counts["fixed"] > 10:
        browser.find_element(By.ID, "more").click()
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#list .item")) > 10)
    outcome.select_by_value("")
    search = browser.find_element(By.NAME, "text")
    search.send_keys("number 150?")
    until(lambda: status(browser).startswith("1 of"))
    item = browser.find_element(By.CSS_SELECTOR, "#list .item")
    assert "<script>alert(1)</script>" in item.text
    assert "<img src=x onerror=alert(1)>" in item.text  # as text
    search.send_keys(Keys.BACKSPACE * 20)
    Select(browser.find_element(By.NAME, "island")).select_by_index(1)
    Select(browser.find_element(By.NAME, "split")).select_by_value("train")
    until(lambda: status(browser).startswith("20 of"))
    assert "kept" in browser.find_element(By.CSS_SELECTOR, "#list .voice").text
    Select(browser.find_element(By.NAME, "split")).select_by_value("test")
    Select(browser.find_element(By.NAME, "teacher")).select_by_visible_text("<b>bob")
    until(lambda: status(browser).startswith("200 of"))
    assert [e for e in browser.get_log("browser") if e["level"] == "SEVERE"] == []


def test_it_can_be_used_by_keyboard_and_on_a_phone(browser, page):
    browser.set_window_size(390, 800)
    try:
        opened(browser, page)
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0
        browser.execute_script("document.body.focus()")
        browser.switch_to.active_element.send_keys(Keys.TAB)
        assert browser.switch_to.active_element.text == "Skip to the result"
        unlabelled = browser.execute_script(
            "return [...document.querySelectorAll('input,select')].filter(e => !e.labels.length).length"
        )
        assert unlabelled == 0
    finally:
        browser.set_window_size(1280, 900)


_TOO_WIDE = """
const edge = document.body.getBoundingClientRect().right - parseFloat(getComputedStyle(document.body).paddingRight) + 1;
const boxed = (e) => e && (getComputedStyle(e).overflowX !== "visible" || boxed(e.parentElement));
return [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > edge && !boxed(e.parentElement))
  .map((e) => `${e.tagName}: ${e.textContent.slice(0, 60)}`);
"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["experiment", "run"])
def test_nothing_reaches_beyond_the_edge_of_the_text(browser, page, made_up_run, kind, width):
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)  # a window is 500 wide or more
    try:
        opened(browser, page if kind == "experiment" else write_report(made_up_run))
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.execute_script(_TOO_WIDE) == []
        names = browser.find_elements(By.CSS_SELECTOR, "table.stack tbody th")
        assert all(n.rect["width"] >= 60 for n in names if n.is_displayed()), "a name is broken into letters"
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_durations_and_sizes_are_sorted_by_what_they_mean(browser, page):
    opened(browser, page)
    table = browser.find_element(By.CSS_SELECTOR, "#cost table")
    said = ["1\u00a0h 2\u00a0min", "3\u00a0min 32\u00a0s", "50\u00a0s", "900\u00a0MiB"]
    fill = "[...arguments[0].tBodies[0].rows].forEach((r, i) => { r.cells[2].textContent = arguments[1][i] ?? '–' })"
    browser.execute_script(fill, table, said)
    table.find_elements(By.CLASS_NAME, "sort")[2].click()
    read = "return [...arguments[0].tBodies[0].rows].map((r) => r.cells[2].textContent)"
    assert browser.execute_script(read, table)[:3] == said[2::-1]


def test_a_click_on_a_head_sorts_a_table_and_another_scorer_is_a_click_away(browser, page):
    opened(browser, page)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    table = next(
        t for t in browser.find_elements(By.CSS_SELECTOR, "table.stack") if t.find_elements(By.CLASS_NAME, "sort")
    )
    head = table.find_element(By.CLASS_NAME, "sort")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", head)

    def column():
        return browser.execute_script(
            "return [...arguments[0].tBodies[0].rows].map(r => r.cells[0].textContent)", table
        )

    before = column()
    head.click()
    assert column() == sorted(before, key=str.lower)
    head.click()
    assert [c.lower() for c in column()] == sorted(map(str.lower, before), reverse=True)
    shown = [b.is_displayed() for b in browser.find_elements(By.CLASS_NAME, "by-scorer")]
    assert shown[0]
    assert not any(shown[1:])
    browser.find_elements(By.CSS_SELECTOR, "#scorers input")[1].click()
    assert [b.is_displayed() for b in browser.find_elements(By.CLASS_NAME, "by-scorer")][:2] == [False, True]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["experiment", "run"])
def test_nothing_on_the_pages_shuts_people_out(browser, page, made_up_run, kind, scheme):
    """By axe-core's rules: contrast, names, roles, order of headings, regions that the keyboard reaches."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    try:
        opened(browser, page if kind == "experiment" else write_report(made_up_run))
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = Axe().run(browser)["violations"]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in found] == []


def test_twenty_thousand_questions_open_quickly(browser, tmp_path):
    made_up_experiment(tmp_path, datasets=("arc",), seeds=(0,), count=20_000)
    page = write_experiment(tmp_path)
    opened(browser, page)
    until(lambda: "20,000 questions" in status(browser))
    timing = browser.execute_script(
        "const n = performance.getEntriesByType('navigation')[0]; return [n.loadEventEnd, performance.now()]"
    )
    assert timing[0] > 0
    assert len(browser.find_elements(By.CSS_SELECTOR, "#list .item")) == 10  # and no more are drawn


def test_the_page_of_a_run_opens_without_errors(browser, made_up_run):
    own = opened(browser, write_report(made_up_run))
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert requests(browser, own) == []
