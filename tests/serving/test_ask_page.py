"""The page in a real browser: it works with the keyboard and a screen reader, and loads nothing from elsewhere."""

from __future__ import annotations

import json

import httpx
import pytest
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from serving.servers import serving
from support import saved_student

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(saved_student(tmp_path_factory.mktemp("saved") / "student")) as served:
        yield served.url


def test_the_page_works_with_the_keyboard_and_a_screen_reader(browser, url):
    browser.get(url)
    WebDriverWait(browser, 20).until(lambda _: browser.find_element(By.ID, "explain").is_displayed())
    keys = webdriver.ActionChains(browser)
    keys.send_keys(Keys.TAB, "Which is cold?", Keys.TAB, "ice", Keys.ENTER, "<b>fire</b>", Keys.TAB, Keys.TAB)
    keys.send_keys(Keys.SPACE, Keys.TAB, Keys.ENTER).perform()
    answer = browser.find_element(By.ID, "answer")
    WebDriverWait(browser, 20).until(lambda _: answer.is_displayed())
    assert browser.switch_to.active_element == answer
    rows = browser.find_elements(By.CSS_SELECTOR, "#bars tr")
    assert [r.find_element(By.TAG_NAME, "th").text for r in rows] == ["ice", "<b>fire</b>"]
    shares = [float(r.find_element(By.CLASS_NAME, "number").text.removesuffix(" %")) for r in rows]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert [h.text for h in browser.find_elements(By.CSS_SELECTOR, "#rationales h3")] == ["As ada", "As bob"]
    assert answer.accessible_name.startswith("Answer: ")
    for field in browser.find_elements(By.CSS_SELECTOR, "textarea, input:not([type=password]), button"):
        assert field.accessible_name, field.get_attribute("id")
    assert Axe().run(browser)["violations"] == []
    assert not browser.get_log("browser")
    asked = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert all(u.startswith((url, "data:", "chrome")) for u in urls), urls


def test_an_error_on_the_page_has_the_role_alert(browser, url):
    browser.get(url)
    browser.find_element(By.ID, "ask").click()
    error = browser.find_element(By.ID, "error")
    WebDriverWait(browser, 20).until(lambda _: error.text)
    assert (error.aria_role, "The question is empty" in error.text) == ("alert", True)


_ANSWERED = "return performance.getEntriesByName(new URL('healthz', location).href).some((e) => e.responseEnd > 0)"


def test_a_student_without_rationales_is_not_asked_for_one(browser, tmp_path):
    with serving(saved_student(tmp_path / "student", prefixes={"answer": "answer: "})) as served:
        asked = {"question": "Which?", "choices": ["ice", "fire"], "explain": True}
        assert httpx.post(f"{served.url}/predict", json=asked).status_code == 400
        browser.get(served.url)
        assert httpx.get(f"{served.url}/healthz").json()["explains"] is False
        WebDriverWait(browser, 20).until(lambda _: browser.execute_script(_ANSWERED))
        assert not browser.find_element(By.ID, "explain").is_displayed()
