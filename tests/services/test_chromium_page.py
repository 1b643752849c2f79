"""The page of a report in a real browser: what is drawn, what a user does, and that nothing is asked for."""

import itertools
import json
import re
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

import daskumap
from daskumap.page import write_page

pytestmark = pytest.mark.services
webdriver = pytest.importorskip("selenium.webdriver")
Select = pytest.importorskip("selenium.webdriver.support.ui").Select
Keys, ActionChains = webdriver.Keys, webdriver.ActionChains

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


def press(browser, *keys):
    browser.find_element("id", "map").send_keys(*keys)


def said(browser):
    return browser.find_element("id", "said").text


def is_quiet(browser):
    """Whether the page asked for nothing and its console is empty."""
    asked = [url for url in requests_of(browser) if not url.startswith(("data:", "file://", "chrome"))]
    log = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    # What `inked` does is slow, says the browser.
    log = [entry for entry in log if "willReadFrequently" not in entry["message"]]
    return (asked, log) == ([], [])


def fits(browser):
    """Whether nothing is wider than the window."""
    return browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def inked(browser):
    """Return how many pixels of the map differ from its ground, and their mean colour."""
    return browser.execute_script(
        """
        const map = document.getElementById("map"), pen = map.getContext("2d"), sum = [0, 0, 0];
        const all = pen.getImageData(0, 0, map.width, map.height).data;
        let n = 0;
        for (let i = 0; i < all.length; i += 4)
            if (all[i + 3] > 128) { n++; for (const j of [0, 1, 2]) sum[j] += all[i + j]; }
        return [n, sum.map((one) => one / n)];
        """
    )


def test_a_page_of_one_run(browser, runs, classes, tmp_path):
    page = write_page(runs[:1], tmp_path / "page.html", classes)
    assert page.stat().st_size < 3e6
    open_page(browser, page)
    assert "The map is" in browser.find_element("css selector", ".verdict").text
    assert "600 rows x 64 columns" in browser.find_element("css selector", ".verdict").text
    assert fits(browser)
    # From afar the picture of all rows, and near by the rows themselves.
    assert browser.execute_script("return [daskumapPage.density, daskumapPage.drawn]") == [1, 0]
    assert inked(browser)[0] > 1000
    press(browser, "+++++")
    assert browser.execute_script("return daskumapPage.density") < 0.5
    assert 0 < drawn(browser) < ROWS
    press(browser, "0")
    assert browser.execute_script("return [daskumapPage.density, daskumapPage.drawn]") == [1, 0]
    browser.find_elements("css selector", ".legend button")[0].click()  # hides "eight"
    assert drawn(browser) == ROWS - (classes == "eight").sum()
    assert "the sampled rows are drawn alone" in said(browser)
    assert is_quiet(browser)


def test_the_map_is_coloured_by_a_column_or_by_density(browser, runs, classes, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    assert browser.execute_script("return daskumapPage.names") > 3
    by_class = inked(browser)[1]
    Select(browser.find_element("id", "colour")).select_by_visible_text("density")
    assert browser.execute_script("return daskumapPage.names") == 0
    assert browser.find_elements("css selector", ".legend button") == []
    assert np.abs(np.subtract(inked(browser)[1], by_class)).max() > 5
    values = np.linspace(0, 1, ROWS)
    open_page(browser, write_page(runs[:1], tmp_path / "values.html", values))
    assert "colour: 0.002 or less" in browser.find_element("id", "legend").text
    browser.find_element("id", "search").send_keys("300", Keys.ENTER)
    assert said(browser) == f"row 300, colour: {values[300]:.6g}"
    assert is_quiet(browser)


def test_the_page_is_dark_where_its_reader_is(browser, runs, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html"))
    dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    colours = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    ground, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours)
    assert (ground < 60 and ink > 200) if dark else (ground > 240 and ink < 60)


def test_a_row_tells_what_it_is(browser, runs, classes, tmp_path):
    """Under a pointer, and under a finger, that does not hover."""
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    browser.find_element("id", "search").send_keys("123", Keys.ENTER)  # which goes to the middle
    canvas = browser.find_element("id", "map")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(browser).move_to_element(canvas).perform()
    told = browser.find_element("id", "tip")
    assert told.is_displayed()
    row = int(re.fullmatch(r"row (\d+)\ncolour: (.*)", told.text)[1])
    assert told.text.endswith(f"colour: {classes[row]}")
    ActionChains(browser).move_by_offset(0, 40).click().perform()
    assert is_quiet(browser)


def test_rows_are_found_and_selected(browser, runs, classes, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    field = browser.find_element("id", "search")
    field.send_keys("123")
    browser.find_element("id", "find").click()
    assert browser.find_element("id", "said").text == f"row 123, colour: {classes[123]}"
    field.clear()
    field.send_keys("99999")
    browser.find_element("id", "find").click()
    assert "99999 is none of the 600 sampled rows" in said(browser)
    field.clear()
    field.send_keys("Eight", Keys.ENTER)
    assert said(browser) == f"{(classes == 'eight').sum()} of 600 sampled rows have colour eight."
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
    assert chosen == "600 of 600 sampled rows are selected."
    browser.find_element("id", "copy").click()
    copied = browser.execute_script("return daskumapPage.copied").split("\n")
    assert sorted(map(int, copied)) == list(range(ROWS))


def test_a_page_of_three_runs(browser, runs, tmp_path):
    page = write_page(runs, tmp_path / "page.html")
    assert page.stat().st_size < 5e6
    open_page(browser, page)
    assert browser.execute_script("return daskumapPage.runs") == 3
    captions = [one.text for one in browser.find_elements("css selector", "figcaption")]
    for caption, min_dist in zip(captions, ("0.1", "0.4", "0.9"), strict=True):
        assert f"min_dist {min_dist}" in caption
    shown = [one for one in browser.find_elements("css selector", "figure img") if one.is_displayed()]
    assert len(shown) == 3
    assert all(browser.execute_script("return arguments[0].naturalWidth > 0", one) for one in shown)
    table = browser.find_element("css selector", ".compared table")
    assert [one.text for one in table.find_elements("css selector", "thead th")] == [
        "measure",
        "near.zarr",
        "mid.zarr",
        "far.zarr",
    ]
    assert "trustworthiness" in table.text
    assert fits(browser)
    Select(browser.find_element("id", "run")).select_by_visible_text("far.zarr")
    press(browser, "+++++")
    assert drawn(browser) > 0
    assert is_quiet(browser)


def test_all_is_reached_by_keys(browser, runs, classes, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    reached = []
    for _ in range(22):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(browser.switch_to.active_element)
    ids = [one.get_attribute("id") for one in reached]
    assert {"colour", "search", "find", "lasso", "names", "whole", "map"} <= set(ids)
    assert {one.text.split(" (")[0] for one in reached} >= set(CLASSES.tolist())
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    press(browser, "++++", Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert 0 < drawn(browser) < ROWS
    press(browser, "0v")
    assert said(browser) == "600 of 600 sampled rows are selected."
    press(browser, Keys.ENTER)
    assert said(browser).startswith("row ") or said(browser) == "No sampled row is in view."
    assert is_quiet(browser)


def test_the_page_is_for_readers_of_screens(browser, runs, classes, tmp_path):
    open_page(browser, write_page(runs[:1], tmp_path / "page.html", classes))
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    heard = [
        (one["role"]["value"], one.get("name", {}).get("value", "")) for one in nodes if not one["ignored"]
    ]
    acting = {"button", "combobox", "searchbox", "application", "DisclosureTriangle"}
    assert {role for role, _ in heard} >= acting
    assert all(name.strip() for role, name in heard if role in acting | {"image"})
    # Where lines of a table are blocks, on a phone, it is a table still.
    assert sum(role == "row" for role, _ in heard) > 20
    assert ("columnheader", "grade") in heard
    assert any(role == "rowheader" and name.startswith("trustworthiness") for role, name in heard)
    levels = [int(one.tag_name[1]) for one in browser.find_elements("css selector", "h1, h2, h3")]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert browser.find_element("css selector", "html").get_attribute("lang") == "en"
