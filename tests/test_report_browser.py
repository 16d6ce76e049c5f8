"""report.html in headless Chromium: errors, requests, the curves, the switches, a phone, accessibility."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import axe_violations
from report_runs import HOSTILE, add_landscape, evaluation, figures, make_run, record, small_config, with_epochs

from jaxfood.report.html import write_report, write_training_report
from jaxfood.report.html.words import WORDS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EPOCHS = 12
WIDTHS = (380, 1280)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that has every part."""
    folder = tmp_path_factory.mktemp("report")
    records = [record(epoch) for epoch in range(1, EPOCHS + 1)]
    records[5]["train_loss"] = None
    run = make_run(folder / "run", with_epochs(small_config(), EPOCHS), records)
    add_landscape(run)
    write_report(folder / "report.html", [run], evaluation(), figures())
    return folder / "report.html"


class Shown:
    """A page that is open, by its script."""

    def __init__(self, browser: Any, file: Path, width: int = 1280) -> None:
        self.browser = browser
        emulated = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulated)
        browser.get(file.as_uri())
        browser.execute_script("localStorage.clear(); sessionStorage.clear()")
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(file.as_uri())
        self.wait("document.querySelector('#plot-loss path')")

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition: str, seconds: float = 20) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds).until(lambda _: self.js(f"return Boolean({condition})"))

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def press(self, selector: str, *keys: str) -> None:
        self.js("document.querySelector(arguments[0]).focus()", selector)
        self.one(selector).send_keys(*keys)

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def click(self, selector: str) -> None:
        self.js("document.querySelector(arguments[0]).click()", selector)

    def move(self, selector: str, x: float, *, drag_to: float | None = None) -> None:
        """The pointer over an element, at a share of its width from the left; dragged from there to another."""
        from selenium.webdriver import ActionChains

        element = self.one(selector)
        self.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        width = element.size["width"]
        moves = ActionChains(self.browser, duration=50).move_to_element_with_offset(
            element, round((x - 0.5) * width), 0
        )
        if drag_to is not None:
            moves = moves.click_and_hold().move_by_offset(round((drag_to - x) * width), 0).release()
        moves.perform()


@pytest.fixture
def page(browser: Any, file: Path) -> Shown:
    return Shown(browser, file)


def test_no_error_no_missing_picture_and_no_request_leaves_the_file(page: Shown, file: Path) -> None:
    page.click("button.enlarge")
    assert page.js("return document.querySelector('#viewer').open")
    page.click("#close")
    page.move("#plot-loss", 0.3, drag_to=0.6)
    page.move("table.confusion", 0.6)
    assert page.browser.get_log("browser") == []
    missing = "return [...document.images].filter((image) => !(image.complete && image.naturalWidth)).map((i) => i.alt)"
    assert page.js(missing) == []
    events = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert file.as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}


def test_no_name_became_markup(page: Shown) -> None:
    assert page.js("return document.querySelectorAll('script').length") == 4
    for name in HOSTILE[:2]:
        assert page.js("return [...document.querySelectorAll('th')].some((e) => e.textContent === arguments[0])", name)


def test_pointing_at_a_curve_shows_its_values(page: Shown) -> None:
    assert page.js("return document.querySelector('#plot-loss .tip').hidden")
    page.move("#plot-loss", 0.98)
    assert page.text("#plot-loss .tip strong") == f"epoch {EPOCHS}"
    told = page.text("#plot-loss .tip")
    assert "training0.1667" in told  # 2 / 12
    assert "validation1.521" in told
    page.move("#plot-accuracy_curve", 0.5)
    assert "50 %" in page.text("#plot-accuracy_curve .tip")
    assert page.js("return document.querySelector('#plot-loss .tip').hidden")


def test_dragging_enlarges_and_show_all_resets(page: Shown) -> None:
    whole = page.js("return document.querySelector('#plot-loss path').getAttribute('d')")
    page.move("#plot-loss", 0.55, drag_to=0.95)
    place = "document.querySelector('#plot-loss')"
    low, high = (int(page.js(f"return {place}.getAttribute('aria-value{end}')")) for end in ("min", "max"))
    assert 4 < low < 8
    assert high in (11, 12)
    assert page.js("return document.querySelector('#plot-loss path').getAttribute('d')") != whole
    reset = "document.querySelector('[data-chart=loss] .tools button:last-child')"
    assert page.js(f"return {reset}.disabled") is False
    page.js(f"{reset}.click()")
    assert page.js("return document.querySelector('#plot-loss path').getAttribute('d')") == whole


def test_the_log_axis(page: Shown) -> None:
    ticks = "return [...document.querySelectorAll('#plot-loss text[text-anchor=end]')].map((t) => t.textContent)"
    before = page.js(ticks)
    page.click("[data-chart=loss] .tools button")
    assert page.js("return document.querySelector('[data-chart=loss] .tools button').ariaPressed") == "true"
    assert page.js(ticks) != before
    assert "0.2" in page.js(ticks)


def test_the_keyboard_reads_and_enlarges_a_curve(page: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    now = "return document.querySelector('#plot-loss').getAttribute('aria-valuetext')"
    page.press("#plot-loss", Keys.HOME)
    assert page.js(now) == "epoch 1; training 2; validation 1.75"
    page.press("#plot-loss", Keys.ARROW_RIGHT)
    assert page.js(now).startswith("epoch 2; training 1;")
    page.press("#plot-loss", Keys.END, "+")
    assert int(page.js("return document.querySelector('#plot-loss').getAttribute('aria-valuemin')")) > 6
    page.press("#plot-loss", "0")
    assert page.js("return document.querySelector('#plot-loss').getAttribute('aria-valuemin')") == "1"


def test_a_curve_is_hidden_and_shown(page: Shown) -> None:
    count = "return document.querySelectorAll('#plot-loss path.curve').length"
    assert page.js(count) == 2
    page.click("[data-chart=loss] .legend button")
    assert page.js(count) == 1
    page.click("[data-chart=loss] .legend button")
    assert page.js(count) == 2


def test_the_language_switch(page: Shown) -> None:
    assert page.js("return document.documentElement.lang") == "en"
    page.click("#language")
    assert page.js("return document.documentElement.lang") == "zh-Hans"
    assert page.text("#summary-title") == "概要"
    assert page.browser.title == WORDS["report_of"][1].format("run")
    page.move("#plot-loss", 0.98)
    assert page.text("#plot-loss .tip strong") == f"第 {EPOCHS} 轮"
    english = (
        "return [...document.querySelectorAll('[data-word]')].filter((e) => /^[A-Za-z ,.]{12,}$/.test(e.textContent))"
    )
    assert page.js(english) == []
    page.browser.refresh()
    assert page.text("#summary-title") == "概要"  # remembered
    page.click("#language")
    assert page.text("#summary-title") == "Summary"


def test_the_theme_switch(page: Shown) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    light = page.js(colour)
    page.click("#theme")
    dark = page.js(colour)
    assert sum(map(int, re.findall(r"\d+", dark))) < 150 < 600 < sum(map(int, re.findall(r"\d+", light)))
    page.browser.refresh()
    assert page.js(colour) == dark
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    )
    try:
        page.js("delete document.documentElement.dataset.theme")
        assert page.js(colour) == dark
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_sorting_and_the_confusion_matrix(page: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    names = "return [...document.querySelectorAll('table.sortable tbody tr')].map((row) => row.cells[4].textContent)"
    page.click("table.sortable th:nth-child(5) button")
    supports = [int(text) for text in page.js(names)]
    assert supports == sorted(supports, reverse=True)
    page.click("table.sortable th:nth-child(5) button")
    assert [int(text) for text in page.js(names)] == supports[::-1]
    assert page.js("return document.querySelector('table.sortable th:nth-child(5)').ariaSort") == "ascending"

    page.js("document.querySelector('table.confusion').closest('.scroll').id = 'matrix'")
    page.press("#matrix", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    confusion = evaluation()["confusion"]
    told = re.sub("[\u2068\u2069]", "", page.text(".readout"))
    assert told.startswith(f"Truth {HOSTILE[0]}, answer {HOSTILE[1]}: {confusion[0][1]} pictures")
    page.click("button.per-cent")
    share = page.text("table.confusion tbody tr:first-child td:nth-child(2)")
    assert int(share) == round(100 * confusion[0][0] / sum(confusion[0]))


def test_every_value_as_a_table(page: Shown) -> None:
    page.click("#values-0 summary")
    page.wait("document.querySelectorAll('#values-0 tbody tr').length")
    assert page.js("return document.querySelectorAll('#values-0 tbody tr').length") == EPOCHS
    assert "–" in page.text("#values-0 tbody tr:nth-child(6)")  # noqa: RUF001 (the loss that is none)


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(browser: Any, file: Path, width: int) -> None:
    page = Shown(browser, file, width)
    for _ in ("English", "Chinese"):
        assert page.js("return document.documentElement.scrollWidth") <= width
        page.click("#language")
    too_wide = """return [...document.querySelectorAll('main *')]
        .filter((element) => !element.closest('.scroll, pre, svg'))
        .filter((element) => element.getBoundingClientRect().right > arguments[0] + 1)
        .map((element) => element.outerHTML.slice(0, 200))"""
    assert page.js(too_wide, width) == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, file: Path, width: int, theme: str) -> None:
    page = Shown(browser, file, width)
    if theme == "dark":
        page.click("#theme")
    page.js("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.wait("document.querySelectorAll('#values-0 tbody tr').length")
    assert axe_violations(browser) == []


# The landscape's surface.


def drawn(page: Shown) -> list[str]:
    return page.js("return [...document.querySelectorAll('#surface-0 .piece')].map((p) => p.getAttribute('points'))")


def turned(page: Shown) -> int:
    return int(page.js("return document.querySelector('#surface-0').getAttribute('aria-valuenow')"))


def test_the_surface_turns_by_pointer_and_buttons(page: Shown) -> None:
    before = drawn(page)
    assert len(before) == 99  # of 10 x 10; one corner has no loss
    assert "Of 121 places 1 have no finite loss" in page.text(".ramp")
    assert "Loss 1.5 " in page.text(".ramp")
    page.move("#surface-0", 0.3, drag_to=0.5)
    width = page.js("return document.querySelector('#surface-0').clientWidth")
    assert turned(page) == pytest.approx((35 - 0.2 * width / 2) % 360, abs=3)
    assert drawn(page) != before
    page.click("[data-surface=surface-0] .tools button:last-child")
    assert turned(page) == 35
    assert drawn(page) == before
    page.click("[data-surface=surface-0] .tools button:first-child")
    assert turned(page) == 20
    page.click("[data-surface=surface-0] .tools button:nth-child(5)")  # logarithmic
    assert page.js("return document.querySelector('[data-surface] .tools button:nth-child(5)').ariaPressed") == "true"


def test_the_surface_is_read_and_turned_by_the_keyboard(page: Shown) -> None:
    from selenium.webdriver.common.keys import Keys

    now = "return document.querySelector('#surface-0').getAttribute('aria-valuetext')"
    page.press("#surface-0", Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.js(now) == "turned by 40°, seen from 35° above"
    page.press("#surface-0", Keys.SHIFT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.js(now).startswith("λ max 0.2, λ min 0.2: loss 2.02; turned by 40°")
    assert page.text("#surface-0 .tip") == "λ max 0.2, λ min 0.2: loss 2.02"
    page.press("#surface-0", "0")
    assert page.js(now) == "turned by 35°, seen from 30° above"


def test_pointing_at_the_surface_shows_the_loss(page: Shown) -> None:
    """The run itself is in the middle of the grid; seen from above, in the middle of the picture."""
    from selenium.webdriver.common.keys import Keys

    page.press("#surface-0", *[Keys.ARROW_UP] * 12)
    page.move("#surface-0", 0.5)
    assert page.text("#surface-0 .tip") == "λ max 0, λ min 0: loss 2"
    page.click("#language")
    page.move("#surface-0", 0.5)
    assert page.text("#surface-0 .tip") == "λ max 0，λ min 0：损失 2"  # noqa: RUF001


def test_the_surface_turns_under_a_finger(browser: Any, file: Path) -> None:
    page = Shown(browser, file, 380)
    box = page.js(
        "const plot = document.querySelector('#surface-0');"
        "plot.scrollIntoView({block: 'center', behavior: 'instant'});"
        "return plot.getBoundingClientRect().toJSON()"
    )
    y = box["y"] + box["height"] / 2
    points = [[{"x": box["x"] + x, "y": y}] for x in (100, 110, 130, 160)]
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        for kind, touches in zip(("Start", "Move", "Move", "Move", "End"), [*points, []], strict=True):
            browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": touches})
    finally:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert turned(page) == pytest.approx(5, abs=8)


def test_the_surfaces_colours_are_the_themes(page: Shown) -> None:
    edge = "return getComputedStyle(document.querySelector('#surface-0 .piece')).stroke"
    light = page.js(edge)
    page.click("#theme")
    assert page.js(edge) != light


def test_a_page_of_a_training_refreshes_itself(browser: Any, tmp_path: Path) -> None:
    """What was written since shows up; what was opened and enlarged stays, and so does the place on the page."""
    run = make_run(tmp_path / "run", with_epochs(small_config(), 9))
    write_training_report(run, {"train": 1.0})
    page = Shown(browser, run / "report.html")
    page.click("#pause")
    assert page.text("#pause") == "Refresh again"
    page.click("[data-chart=loss] .tools button")
    page.js("document.querySelector('#log-0').open = true; scrollTo({top: 400, behavior: 'instant'})")
    with (run / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(record(5)) + "\n")
    write_training_report(run, {"train": 2.0})
    assert "epoch 4 of 9" in page.text(".state")
    page.click("#pause")
    page.wait("document.querySelector('.state').textContent.includes('epoch 5 of 9')")
    page.wait("document.querySelector('#plot-loss path')")
    assert page.js("return document.querySelector('[data-chart=loss] .tools button').ariaPressed") == "true"
    assert page.js("return document.querySelector('#log-0').open")
    assert page.js("return scrollY") == 400


def test_without_storage_the_page_works(browser: Any, file: Path) -> None:
    page = Shown(browser, file)
    forbid = """for (const name of ["localStorage", "sessionStorage"])
        Object.defineProperty(window, name, { get() { throw new Error("forbidden"); } });"""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": forbid})
    try:
        browser.refresh()
        page.wait("document.querySelector('#plot-loss path')")
        page.click("#theme")
        assert page.js("return document.documentElement.dataset.theme") == "dark"
        assert browser.get_log("browser") == []
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})
