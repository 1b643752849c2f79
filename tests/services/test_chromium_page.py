"""The page of a report in a real browser: what is drawn, what a user does, and that nothing is asked for."""

import itertools
import json
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

import daskumap
from daskumap.page import write_page

pytestmark = pytest.mark.services
webdriver = pytest.importorskip("selenium.webdriver")

ROWS = 600
CLASSES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine </script>"])


@pytest.fixture(scope="module")
def classes():
    return CLASSES[load_digits().target[:ROWS]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    X = load_digits().data[:ROWS].astype(np.float32)
    quiet = {"client": "sequential", "progress": False, "random_state": 1, "n_epochs": 60}
    first = daskumap.fit(X, folder / "near.zarr", **quiet)
    others = [
        daskumap.fit(first, folder / f"{name}.zarr", min_dist=min_dist, client="sequential", progress=False)
        for name, min_dist in (("mid", 0.4), ("far", 0.9))
    ]
    return [first, *others]


@pytest.fixture(params=[("light", 1200), ("dark", 1200), ("light", 390), ("dark", 390)], ids=str)
def browser(request):
    theme, width = request.param
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    found = webdriver.Chrome(options=options, service=service)
    media = [{"name": "prefers-color-scheme", "value": theme}]
    found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    found.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    yield found
    found.quit()


def open_page(browser, page):
    browser.get(page.as_uri())
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def requests_of(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


def drawn(browser):
    return browser.execute_script("return daskumapPage.drawn")


def press(browser, key, times=1):
    for _ in range(times):
        browser.execute_script(
            "document.getElementById('map').dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))",
            key,
        )


def test_a_page_of_one_run(browser, runs, classes, tmp_path):
    page = write_page(runs[:1], tmp_path / "page.html", classes)
    open_page(browser, page)
    assert "The map is" in browser.find_element("css selector", ".verdict").text
    # Nothing is wider than the window.
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    # All rows are in view from afar by the picture, and by points near by.
    press(browser, "+", 5)
    assert 0 < drawn(browser) < ROWS
    press(browser, "0")
    browser.find_elements("css selector", ".legend button")[0].click()  # hides "eight"
    assert drawn(browser) == ROWS - (classes == "eight").sum()
    asked = [url for url in requests_of(browser) if not url.startswith(("data:", "file://", "chrome"))]
    assert asked == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []


def test_rows_are_found_and_selected(browser, runs, classes, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    field = browser.find_element("id", "search")
    field.send_keys("123")
    browser.find_element("id", "find").click()
    assert browser.find_element("id", "said").text == f"row 123, colour: {classes[123]}"
    field.clear()
    field.send_keys("99999")
    browser.find_element("id", "find").click()
    assert "99999 is not among the 600 sampled rows" in browser.find_element("id", "said").text
    browser.find_element("id", "whole").click()
    browser.find_element("id", "lasso").click()
    chosen = browser.execute_script(
        """
        const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect();
        const send = (kind, x, y) => canvas.dispatchEvent(new PointerEvent(kind, {
            pointerId: 1, clientX: box.left + x, clientY: box.top + y, bubbles: true}));
        canvas.setPointerCapture = () => {};
        send("pointerdown", 1, 1);
        for (const [x, y] of [[box.width - 1, 1], [box.width - 1, box.height - 1], [1, box.height - 1]])
            send("pointermove", x, y);
        send("pointerup", 1, box.height - 1);
        return document.getElementById("said").textContent;
        """
    )
    assert chosen == "600 of the sampled rows are selected."
    browser.find_element("id", "copy").click()
    copied = browser.execute_script("return daskumapPage.copied").split("\n")
    assert sorted(map(int, copied)) == list(range(ROWS))


def test_a_page_of_three_runs(browser, runs, tmp_path):
    open_page(browser, write_page(runs, tmp_path / "page.html"))
    assert browser.execute_script("return daskumapPage.runs") == 3
    captions = [one.text for one in browser.find_elements("css selector", "figcaption")]
    assert ["min_dist 0.1" in captions[0], "min_dist 0.4" in captions[1], "min_dist 0.9" in captions[2]] == [
        True
    ] * 3
    shown = [one for one in browser.find_elements("css selector", "figure img") if one.is_displayed()]
    assert len(shown) == 3
    assert all(browser.execute_script("return arguments[0].naturalWidth > 0", one) for one in shown)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_page_is_for_keyboards_and_readers(browser, runs, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html"))
    unnamed = browser.execute_script(
        """
        return [...document.querySelectorAll("button, select, input, canvas, img")].filter((one) =>
            !(one.textContent.trim() || one.getAttribute("aria-label") || one.alt ||
              one.closest("label"))).length
        """
    )
    assert unnamed == 0
    levels = [int(one.tag_name[1]) for one in browser.find_elements("css selector", "h1, h2, h3")]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert browser.find_element("css selector", "html").get_attribute("lang") == "en"
