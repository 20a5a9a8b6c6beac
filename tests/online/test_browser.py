"""The page in a real browser: live, safe, and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpucal.online.queue.pipe import Pipe
from gpucal.online.site.config import OnlineConfig
from gpucal.online.site.results import Results
from gpucal.online.workers.control import pending_requests

pytest.importorskip("uvicorn")
from builders import page_data as data

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
TOKEN = "night-and-day"
PATIENCE_S = 60.0


def start_browser(folder: Path, size: tuple[int, int]) -> Any:
    """Headless Chromium with an empty profile; ``size`` is that of the page, px."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM or ""
    flags = (
        "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-sync "
        "disable-background-networking disable-component-update disable-dev-shm-usage"
    )
    for flag in (*flags.split(), f"user-data-dir={folder}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    return browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        if os.environ.get("GPUCAL_REQUIRE_BROWSER"):
            pytest.fail("GPUCAL_REQUIRE_BROWSER is set, but there is no chromium or chromedriver")
        pytest.skip("chromium and chromedriver are not installed")
    pytest.importorskip("selenium")
    started = start_browser(tmp_path_factory.mktemp("profile"), (1400, 900))
    yield started
    started.quit()


@pytest.fixture
def config(tmp_path: Path) -> OnlineConfig:
    return data.make_config(tmp_path)


@pytest.fixture
def results(config: OnlineConfig) -> Iterator[Results]:
    opened = Results(config.database_url)
    data.add_workers(config)
    yield opened
    opened.close()


@pytest.fixture
def port(config: OnlineConfig, results: Results) -> Iterator[int]:
    with data.served(config, TOKEN) as number:
        yield number


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    again = [StaleElementReferenceException]  # a table was drawn anew meanwhile
    return WebDriverWait(browser, PATIENCE_S, 0.1, again).until(condition)


def has_shapes(browser: Any, *, shapes: str, count: int) -> bool:
    return len(browser.find_elements("css selector", shapes)) == count


def text_of(browser: Any, name: str) -> str:
    return str(
        browser.execute_script("return document.getElementById(arguments[0]).innerText", name)
    )


def open_page(browser: Any, port: int) -> None:
    browser.get_log("browser")  # what earlier pages had to say
    browser.get(f"http://127.0.0.1:{port}/")
    wait(browser, lambda b: text_of(b, "connection") == "live")


def complaints(browser: Any) -> list[str]:
    """What the console says is wrong; among it every breach of the content security policy."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def click(browser: Any, selector: str) -> None:
    """Click on what may not be there yet, or be drawn anew at this moment."""

    def clicked(b: Any) -> bool:
        found = b.find_elements("css selector", selector)
        if found:
            found[0].click()
        return bool(found)

    wait(browser, clicked)


def click_restart(browser: Any, task: str) -> None:
    click(browser, f"button[data-task={task}]")


def test_a_result_and_a_picture_arrive_by_themselves(
    browser: Any, port: int, config: OnlineConfig, results: Results
) -> None:
    open_page(browser, port)
    browser.execute_script("window.stays = 1")
    wait(browser, lambda b: "No results yet" in text_of(b, "tables"))
    data.add_scan(results, 4, "Uranus")
    data.add_pointing(results, 4, data.START, 2.4)
    wait(browser, lambda b: "2.40 ± 0.21" in text_of(b, "tables"))
    assert "Uranus" in text_of(browser, "tables")
    data.add_plot(config, results, 4, "pointing.png", kind="pointing", title="scan 4 pointing")
    wait(browser, lambda b: "scan 4 pointing" in text_of(b, "latest-pictures"))
    results.message("the wind is strong", level="warning")
    wait(browser, lambda b: "the wind is strong" in text_of(b, "messages"))
    data.add_pointing(results, 4, data.START, 2.9, "the source is weak")
    wait(browser, lambda b: "not valid: the source is weak" in text_of(b, "tables"))
    assert "2.90 ± 0.21" in text_of(browser, "tables")
    assert browser.execute_script("return window.stays") == 1
    assert complaints(browser) == []


def test_array_and_pwv_are_drawn(browser: Any, port: int, config: OnlineConfig) -> None:
    open_page(browser, port)
    data.fill_night(config)
    wait(browser, lambda b: len(b.find_elements("css selector", ".footprint")) == 3)
    first = ".footprint:first-child"  # the night is written while the page draws
    for shapes, count in (
        (f"{first} circle", data.PIXELS),
        (f"{first} .pixel-dead", 1),
        ("#trends .trend", 3),  # PWV, T_rec, T_sys
        ("#trends .trend:first-child circle", 2 * 9),  # of two receivers
    ):
        wait(browser, partial(has_shapes, shapes=shapes, count=count))
    wait(browser, lambda b: "Places from the look at scan 91" in text_of(b, "footprint-note"))
    wait(browser, lambda b: "1 job was given up" in text_of(b, "problems"))
    assert "gpucal online retry plot --all" in text_of(browser, "problems")
    assert "T_rec, T_sys of scan 81" in text_of(browser, "footprint-note")
    assert "Raw FITS, spectra" in text_of(browser, "tasks")
    assert "obs_procedure" not in text_of(browser, "tasks")
    assert complaints(browser) == []


def test_pictures_are_browsed(
    browser: Any, port: int, config: OnlineConfig, results: Results
) -> None:
    from selenium.webdriver.support.ui import Select

    for scan in (3, 5):
        for kind in ("look", "map"):
            data.add_plot(
                config, results, scan, f"{kind}.png", kind=kind, title=f"{kind} of {scan}"
            )
    open_page(browser, port)
    wait(browser, lambda b: len(b.find_elements("css selector", "#plots figure")) == 4)
    Select(browser.find_element("id", "scan")).select_by_value("5")
    wait(browser, lambda b: len(b.find_elements("css selector", "#plots figure")) == 2)
    Select(browser.find_element("id", "kind")).select_by_value("map")
    wait(browser, lambda b: len(b.find_elements("css selector", "#plots figure")) == 1)
    wait(browser, lambda b: text_of(b, "plots") == "map of 5 · 2026-11-20 22:33:36 UT")
    click(browser, "#plots figure a")
    wait(browser, lambda b: b.find_element("id", "viewer").get_attribute("open"))
    shown = "const i = document.getElementById('large'); return i.complete && i.naturalWidth"
    assert wait(browser, lambda b: b.execute_script(shown)) == 1
    click(browser, "#close")
    assert complaints(browser) == []


def test_a_restart_needs_the_token(browser: Any, port: int, config: OnlineConfig) -> None:
    open_page(browser, port)
    click_restart(browser, "plot")
    wait(browser, lambda b: "token is missing or wrong" in text_of(b, "answer"))
    assert pending_requests(config.pipe) == []
    browser.find_element("id", "token").send_keys(TOKEN)
    click(browser, "#operator button")
    click_restart(browser, "plot")
    wait(browser, lambda b: "Pictures will be restarted" in text_of(b, "answer"))
    assert [(r.action, r.task) for r in pending_requests(config.pipe)] == [("restart", "plot")]
    wait(browser, lambda b: "asked for by the operator" in text_of(b, "messages"))


def test_a_failed_job_is_tried_again(browser: Any, port: int, config: OnlineConfig) -> None:
    job = data.add_failed(config)
    open_page(browser, port)
    browser.execute_script("sessionStorage.setItem('gpucal-token', arguments[0])", TOKEN)
    wait(browser, lambda b: job.name in text_of(b, "failed-jobs"))
    click(browser, "#failed-jobs button")
    wait(browser, lambda b: not b.find_element("id", "failed").is_displayed())
    assert Pipe(config.pipe).task("plot").names() == [job.name]


def test_names_with_scripts_are_only_text(
    browser: Any, port: int, config: OnlineConfig, results: Results
) -> None:
    bad = data.SCRIPT
    data.add_scan(results, 4, bad, state=bad[:20])
    data.add_pointing(results, 4, data.START, 2.4, bad)
    data.add_calibration(results, 5, data.START, 0.9)
    results.save("calibrations", [
        {"project": bad, "scan": 5, "band": bad, "receiver": 0, "pixel": 0, "t_rec": 50.0,
         "pwv": 1.0, "mjd": data.START + 1, "valid": False, "reason": bad},
    ])  # fmt: skip
    data.add_plot(config, results, 4, "<img src=x onerror=alert(1)>.png", kind=bad[:40], title=bad)
    results.message(bad, level="error", task=bad[:40], project=bad)
    data.add_failed(config, bad)
    open_page(browser, port)
    wait(browser, lambda b: bad in text_of(b, "messages"))
    wait(browser, lambda b: bad in text_of(b, "tables"))
    wait(browser, lambda b: bad in text_of(b, "latest-pictures"))
    wait(browser, lambda b: bad in text_of(b, "failed-jobs"))
    wait(browser, lambda b: bad in text_of(b, "footprint-note"))
    click(browser, "#plots figure a")
    wait(browser, lambda b: bad in text_of(b, "caption"))
    assert browser.execute_script("return typeof window.__x") == "undefined"
    assert browser.find_elements("css selector", "img[src=x]") == []
    assert len(browser.find_elements("css selector", "script")) == 2
    assert complaints(browser) == []


def test_a_phone_needs_no_scrolling_aside(
    browser: Any, port: int, config: OnlineConfig, results: Results
) -> None:
    data.fill_night(config)
    data.add_plot(config, results, 4, "long.png", title="a_title_without_spaces_" * 12)
    results.message("a_word_without_end_" * 30, level="error", task="plot")
    metrics = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        open_page(browser, port)
        wait(browser, lambda b: len(b.find_elements("css selector", ".footprint")) == 3)
        wait(browser, lambda b: "a_word_without_end_" in text_of(b, "messages"))
        wait(browser, lambda b: "a_title_without" in text_of(b, "plots"))
        assert browser.execute_script("return innerWidth") == 360
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    finally:
        metrics = {"width": 1400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_dark_is_remembered(browser: Any, port: int) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    open_page(browser, port)
    assert browser.execute_script(ground) == "rgb(243, 245, 247)"
    click(browser, "#theme")
    assert browser.execute_script(ground) == "rgb(14, 18, 21)"
    browser.refresh()
    assert browser.execute_script(ground) == "rgb(14, 18, 21)"
    click(browser, "#theme")


def test_the_page_comes_back_after_the_server(
    browser: Any, config: OnlineConfig, results: Results
) -> None:
    with data.served(config) as first:
        open_page(browser, first)
    wait(browser, lambda b: "no connection" in text_of(b, "connection"))
    results.message("said meanwhile")
    with data.served(config, port=first) as again:
        assert again == first
        wait(browser, lambda b: "said meanwhile" in text_of(b, "messages"))
        assert text_of(browser, "connection") == "live"
