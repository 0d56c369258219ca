"""The report's page in a real browser: it renders, opens directories, searches."""

import itertools
import re
import shutil
import time

import pytest

from builders import layers, member
from kinds import docker, history, run

pytestmark = pytest.mark.engines

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

FLAGS = (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
    "disable-background-networking", "disable-component-update", "disable-sync",
    "disable-dev-shm-usage", "window-size=1200,1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium.webdriver")
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(DRIVER)
    with selenium.Chrome(options, service) as opened:
        yield opened


def write_report(folder, tars, **document):
    image = docker(folder, tars, **document)
    assert run("report", image, "-o", folder / "report.html").returncode == 0
    return (folder / "report.html").as_uri()


def show(browser, address, *, width=1200, scheme="light"):
    """Open a report in a window of that width."""
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")  # so that another address of one page is loaded too
    browser.get(address)
    wait(lambda: browser.execute_script("return document.body.dataset.ready") == "yes")


TARS = layers(
    ["usr/", "usr/lib/", "usr/bin/", member("usr/lib/big.so", bytes(90_000)),
     member("usr/bin/tool", bytes(9_000))],
    [member("etc/conf", bytes(30_000))],
    ["run/"],
    [member("opt/only/child/c++/x.h", bytes(2_000)), member("srv/a[1].txt", bytes(100))],
)  # fmt: skip
STEPS = history("ADD base", "COPY conf", "RUN mkdir", "COPY opt")


@pytest.fixture
def address(tmp_path):
    """Return the address of the report of an image."""
    return write_report(tmp_path, TARS, history=STEPS)


@pytest.fixture
def page(browser, address):
    """Return a browser that shows the report of an image."""
    show(browser, address)
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


def press(page, selector, key):
    page.execute_script(
        "document.querySelector(arguments[0]).focus(); document.activeElement"
        ".dispatchEvent(new KeyboardEvent('keydown', {key: arguments[1], bubbles: true}))",
        selector, key,
    )  # fmt: skip


def test_the_page_renders(page):
    assert "128 KiB" in text(page, "#figures")
    assert "ADD base" in text(page, "#steps")
    assert int(page.execute_script("return document.body.dataset.cells")) >= 6
    assert pixel(page, 0.3, 0.6) != pixel(page, 0.95, 0.9)


# --- the treemap


def test_a_click_opens_a_directory(page):
    assert text(page, "#crumbs").split() == ["/", "128", "KiB", "in", "5", "files"]
    click(page, 0.3, 0.5)
    assert text(page, "#crumbs").split()[:2] == ["/usr", "96.7"]
    click(page, 0.3, 0.5)
    assert "lib" in text(page, "#crumbs")
    page.execute_script("document.querySelector('#crumbs button').click()")
    assert "128 KiB" in text(page, "#crumbs")


def test_back_and_forward_follow_the_directories(page):
    click(page, 0.3, 0.5)
    assert page.current_url.endswith("#/usr")
    page.back()
    wait(lambda: "128 KiB" in text(page, "#crumbs"))
    page.forward()
    wait(lambda: "96.7 KiB" in text(page, "#crumbs"))


@pytest.mark.parametrize(
    ("part", "shown", "marks"),
    [
        ("#/usr/lib", "/usr/lib", "0"),
        ("#/opt/only/child/c%2B%2B/x.h", "/opt/only/child/c++", "1"),
        ("#/usr/no/such", "/usr", "0"),
        ("#/%ff", "/", "0"),
    ],
)
def test_an_address_has_the_path(browser, address, part, shown, marks):
    show(browser, address + part)

    assert text(browser, "#crumbs").startswith(shown)
    assert browser.execute_script("return document.body.dataset.marks") == marks


def test_a_title_opens_a_directory_several_levels_below(browser, tmp_path):
    big = member("a/b/c/big", bytes(10_000))
    tars = layers([big, member("a/b/other", bytes(9_000)), member("a/z", bytes(9_000))])
    show(browser, write_report(tmp_path, tars))

    click(browser, 0.05, 10 / 540)  # the title of a/

    assert text(browser, "#crumbs").startswith("/a ")
    browser.execute_script("history.back()")
    wait(lambda: text(browser, "#crumbs").startswith("/ "))
    click(browser, 0.05, 28 / 540)  # that of a/b/
    assert "b" in text(browser, "#crumbs")


def test_a_directory_that_is_drawn_with_its_only_child_can_be_marked(page):
    search(page, "/opt/only")
    wait(lambda: "/opt/only/child" in text(page, "#results"))

    for row in page.execute_script(
        "return [...document.querySelectorAll('#results code')].map(e => e.innerText)"
    ):
        page.execute_script(
            "[...document.querySelectorAll('#results li')].find("
            "e => e.innerText.endsWith(arguments[0])).click()", row,
        )  # fmt: skip
        assert page.execute_script("return document.body.dataset.marks") == "1", row


def test_the_treemap_by_keyboard(page):
    press(page, "#canvas", "ArrowRight")
    assert text(page, "#found").startswith("/usr ")
    press(page, "#canvas", "Enter")
    assert text(page, "#crumbs").startswith("/usr")
    press(page, "#canvas", "ArrowRight")
    press(page, "#canvas", "ArrowRight")
    assert text(page, "#found").startswith("/usr/bin")
    press(page, "#canvas", "Escape")
    assert text(page, "#crumbs").startswith("/ ")


# --- the search


def search(page, words):
    page.execute_script(
        "const s = document.querySelector('#search'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))", words,
    )  # fmt: skip


def results(page, words):
    """Search, and return the paths that are listed, sorted."""
    page.execute_script("document.querySelector('#found').textContent = '...'")
    search(page, words)
    wait(lambda: text(page, "#found") != "...")
    return sorted(
        page.execute_script(
            "return [...document.querySelectorAll('#results code')].map(e => e.innerText)"
        )
    )


SEARCHES = {
    "text in any case": ("CONF", ["/etc/conf"]),
    "a pasted path": ("/opt/only/child/c++", ["/opt/only/child/c++/", "/opt/only/child/c++/x.h"]),
    "a pasted directory": ("/usr/bin/", ["/usr/bin/", "/usr/bin/tool"]),
    "a pasted path with brackets": ("/srv/a[1].txt", ["/srv/a[1].txt"]),
    "a glob of a name": ("*.so", ["/usr/lib/big.so"]),
    "a glob of a path": ("/usr/*/t?ol", ["/usr/bin/tool"]),
    "a glob with all below": ("/us*", ["/usr/", "/usr/bin/", "/usr/bin/tool", "/usr/lib/", "/usr/lib/big.so"]),
    "two stars": ("opt/**/x.h", ["/opt/only/child/c++/x.h"]),
    "a set": ("[!a-s]ool", ["/usr/bin/tool"]),
    "directories only": ("l*b/", ["/usr/lib/", "/usr/lib/big.so"]),
    "a star stops at a slash": ("/u*big.so", []),
    "a regular expression": ("/^.usr.*(so|tool)$/", ["/usr/bin/tool", "/usr/lib/big.so"]),
    "no regular expression": ("/^/usr/.*(so|tool)$", []),
}  # fmt: skip


@pytest.mark.parametrize(("words", "want"), SEARCHES.values(), ids=SEARCHES)
def test_search(page, words, want):
    assert results(page, words) == want


@pytest.mark.parametrize(
    "pattern", ["*.so", "/usr/*/t?ol", "/us*", "opt/**/x.h", "l*b/"]
)
def test_a_glob_finds_what_ls_lists(page, tmp_path, pattern):
    listed = run("ls", tmp_path / "docker.tar", pattern).stdout.splitlines()

    assert results(page, pattern) == sorted(f"/{line.split()[6]}" for line in listed)


def test_a_search_without_a_result_says_so(page):
    assert results(page, "conf")
    assert results(page, "no such name") == []
    assert text(page, "#found") == "no path matches"


def test_an_invalid_expression_leaves_no_old_result(page):
    assert results(page, "conf")
    assert results(page, "/(/") == []
    assert text(page, "#found").startswith("not a valid pattern: ")
    assert page.execute_script("return document.querySelector('input.wrong') !== null")


def test_results_by_keyboard(page):
    results(page, "usr")
    press(page, "#search", "ArrowDown")
    press(page, "#results :focus", "ArrowDown")

    page.execute_script("document.activeElement.click()")

    assert page.execute_script("return document.body.dataset.marks") == "1"
    assert text(page, "#crumbs").startswith("/usr")


# --- layers and colours


def test_a_layer_can_be_chosen(page):
    before = pixel(page, 0.3, 0.6)
    page.execute_script("document.querySelectorAll('#timeline button')[1].click()")
    assert pixel(page, 0.3, 0.6) != before
    page.execute_script("document.querySelectorAll('#timeline button')[1].click()")
    assert pixel(page, 0.3, 0.6) == before


def test_a_layer_can_be_chosen_by_its_row(page):
    before = pixel(page, 0.3, 0.6)
    page.execute_script("document.querySelectorAll('#steps button')[1].click()")

    assert pixel(page, 0.3, 0.6) != before
    assert page.execute_script(
        "return document.querySelectorAll('#timeline button[aria-pressed=true]').length"
    ) == 1  # fmt: skip


def test_layers_without_content_are_not_drawn(page):
    drawn = page.execute_script(
        "return [...document.querySelectorAll('#timeline button')].map(e => e.dataset.layer)"
    )

    assert drawn == ["1", "2", "4"]
    assert text(page, "#empty") == "Without file content: layer 3."
    assert "RUN mkdir" in text(page, "#steps")


def test_numbers_of_layers_are_where_they_fit(browser, tmp_path):
    tars = layers(
        *([member(f"f{n}", bytes(size))] for n, size in enumerate((90_000, 10, 90_000)))
    )
    show(browser, write_report(tmp_path, tars))

    shown = browser.execute_script(
        "return [...document.querySelectorAll('#timeline button')].map(e => e.innerText)"
    )

    assert shown == ["1", "", "3"]


@pytest.mark.parametrize("mode", ["layer", "type", "size", "waste"])
def test_colours(page, mode):
    before = pixel(page, 0.3, 0.6)
    page.execute_script(
        "const c = document.querySelector('#colour'); c.value = arguments[0];"
        "c.dispatchEvent(new Event('change'))", mode,
    )  # fmt: skip

    assert (pixel(page, 0.3, 0.6) == before) == (mode == "layer")
    categories = page.execute_script(
        "return document.querySelectorAll('#legend button').length"
    )
    assert categories == {"layer": 0, "type": 9, "size": 5, "waste": 3}[mode]


def luminance(colour):
    values = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    """Return the contrast ratio of WCAG 2.1."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_on_colours_can_be_read(browser, tmp_path, scheme):
    tars = layers(*([member(f"f{n}", bytes(1000))] for n in range(60)))
    show(browser, write_report(tmp_path, tars), scheme=scheme)
    pairs = []
    for mode, chosen in itertools.product(
        ("layer", "type", "size", "waste"), ("timeline", "legend")
    ):
        pairs += browser.execute_script(
            "const c = document.querySelector('#colour'); c.value = arguments[0];"
            "c.dispatchEvent(new Event('change'));"
            "return [...document.querySelectorAll(`#${arguments[1]} button`)].map(e => {"
            " const s = getComputedStyle(e); return [s.color, s.backgroundColor]; })",
            mode, chosen,
        )  # fmt: skip

    assert len({tuple(pair) for pair in pairs}) >= 60
    assert min(contrast(*pair) for pair in pairs) >= 4.5


WORDS = [
    "#about", "h2 small", "#steps th", "#steps td.wide", "#crumbs button", "#crumbs span",
    ".bar label", "#colour", ".figure b", ".figure span", ".note", "#tabs button",
    "#tabs button[aria-selected=true]", "#results span", "#results code", "#theme",
]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(browser, address, scheme):
    show(browser, address, scheme=scheme)
    results(browser, "usr")
    for selector in WORDS:
        pairs = browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(e => {"
            " let b = e; const colour = n => getComputedStyle(n).backgroundColor;"
            " while (colour(b) === 'rgba(0, 0, 0, 0)') b = b.parentElement;"
            " return [getComputedStyle(e).color, colour(b)]; })", selector,
        )  # fmt: skip
        assert pairs, selector
        assert min(contrast(*pair) for pair in pairs) >= 4.5, selector


def test_light_and_dark(page):
    back = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(back)
    page.execute_script("document.querySelector('#theme').click()")
    assert page.execute_script(back) != before


# --- lists, and narrow windows


@pytest.mark.parametrize("tab", range(5))
def test_lists(page, tab):
    page.execute_script(f"document.querySelectorAll('#tabs button')[{tab}].click()")

    assert text(page, "#explain")
    assert (
        page.execute_script("return document.querySelectorAll('#list th').length") >= 3
    )


def test_a_long_list_is_shown_whole_at_a_click(browser, tmp_path):
    tars = layers([member(f"f{n:03}", bytes(100 + n)) for n in range(60)])
    show(browser, write_report(tmp_path, tars))
    browser.execute_script("document.querySelectorAll('#tabs button')[1].click()")
    rows = "return document.querySelectorAll('#list tbody tr').length"

    assert browser.execute_script(rows) == 25
    assert text(browser, "#more-list") == "Show all 60"
    browser.execute_script("document.querySelector('#more-list').click()")
    assert browser.execute_script(rows) == 60
    assert browser.execute_script("return document.querySelector('#more-list').hidden")


def test_nothing_scrolls_within_the_page(browser, tmp_path):
    tars = layers(*([member(f"f{n:03}", bytes(100 + n))] for n in range(60)))
    show(browser, write_report(tmp_path, tars, history=history(*["RUN x"] * 60)))
    results(browser, "f")

    hidden = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e =>"
        " ['auto', 'scroll'].includes(getComputedStyle(e).overflowY)).map(e => e.id)"
    )

    assert hidden == []


def test_a_telephone(browser, tmp_path):
    command = "RUN apt-get install --no-install-recommends " + "a-long-name " * 20
    tars = layers([member("a" * 90 + "/" + "b" * 90, bytes(1000))], ["x"])
    address = write_report(tmp_path, tars, history=history(command, "COPY x"))
    show(browser, address, width=390)

    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    command, date = browser.execute_script(
        "const row = document.querySelector('#steps tbody tr').children;"
        "const box = e => e.getBoundingClientRect().toJSON();"
        "return [box(row[5]), box(row[4])]"
    )
    assert command["width"] > 300
    assert date["right"] <= 390
    assert "2024-01-01" in text(browser, "#steps")
