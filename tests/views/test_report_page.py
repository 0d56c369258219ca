"""The report's page in a real browser: it renders, goes into directories, searches."""

import shutil
import time

import pytest

from builders import layers, member
from kinds import docker, history, run

pytestmark = pytest.mark.engines

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "window-size=1200,1000",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(DRIVER)
    with selenium.Chrome(options, service) as opened:
        yield opened


@pytest.fixture
def page(browser, tmp_path):
    """Return a browser that shows the report of an image."""
    big, small = (
        member("usr/lib/big.so", bytes(90_000)),
        member("usr/bin/tool", bytes(9_000)),
    )
    image = docker(
        tmp_path,
        layers(["usr/", "usr/lib/", "usr/bin/", big, small], [member("etc/conf", bytes(30_000))]),
        history=history("ADD base", "COPY conf"),
    )  # fmt: skip
    assert run("report", image, "-o", tmp_path / "report.html").returncode == 0
    browser.get((tmp_path / "report.html").as_uri())
    wait(lambda: browser.execute_script("return document.body.dataset.ready") == "yes")
    yield browser
    assert [
        line for line in browser.get_log("browser") if line["level"] == "SEVERE"
    ] == []


def wait(condition):
    for _ in range(100):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("the page did not get there")


def text(page, selector):
    return page.execute_script(
        "return document.querySelector(arguments[0]).innerText", selector
    )


def pixel(page, x, y):
    return page.execute_script(
        "const c = document.querySelector('canvas');"
        "return [...c.getContext('2d').getImageData(arguments[0] * c.width,"
        " arguments[1] * c.height, 1, 1).data]", x, y,
    )  # fmt: skip


def click(page, x, y):
    page.execute_script(
        "const c = document.querySelector('canvas'), b = c.getBoundingClientRect();"
        "c.dispatchEvent(new MouseEvent('click', {bubbles: true,"
        " clientX: b.left + arguments[0] * b.width, clientY: b.top + arguments[1] * b.height}))",
        x, y,
    )  # fmt: skip


def test_it_renders(page):
    assert "126 KiB" in text(page, "#figures")
    assert "ADD base" in text(page, "#steps")
    assert int(page.execute_script("return document.body.dataset.cells")) >= 6
    assert pixel(page, 0.3, 0.6) != pixel(page, 0.95, 0.9)


def test_it_goes_into_directories_and_back(page):
    assert text(page, "#crumbs").split() == ["/", "126", "KiB", "in", "3", "files"]
    click(page, 0.3, 0.5)
    assert text(page, "#crumbs").split()[:2] == ["/usr", "96.7"]
    click(page, 0.3, 0.5)
    assert "lib" in text(page, "#crumbs")
    page.execute_script("document.querySelector('#crumbs button').click()")
    assert "126 KiB" in text(page, "#crumbs")


def search(page, words):
    page.execute_script(
        "const s = document.querySelector('#search'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))", words,
    )  # fmt: skip


def test_it_searches(page):
    search(page, "CONF")
    wait(lambda: "1 paths" in text(page, "#found"))
    assert "/etc/conf" in text(page, "#results")
    search(page, "/^/usr/.*(so|tool)$")
    wait(lambda: "2 paths" in text(page, "#found"))
    page.execute_script("document.querySelector('#results li').click()")
    assert "lib" in text(page, "#crumbs")
    search(page, "/(")
    wait(
        lambda: page.execute_script(
            "return document.querySelector('input.wrong') !== null"
        )
    )


def test_a_layer_can_be_chosen(page):
    before = pixel(page, 0.3, 0.6)
    page.execute_script("document.querySelectorAll('#timeline button')[1].click()")
    assert pixel(page, 0.3, 0.6) != before


def test_light_and_dark(page):
    back = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(back)
    page.execute_script("document.querySelector('#theme').click()")
    assert page.execute_script(back) != before


@pytest.mark.parametrize("tab", range(5))
def test_lists(page, tab):
    page.execute_script(f"document.querySelectorAll('#tabs button')[{tab}].click()")

    assert text(page, "#explain")
    assert (
        page.execute_script("return document.querySelectorAll('#list th').length") >= 3
    )
