"""The site as its readers meet it, in a real headless Chromium; skipped where none is installed, or it does not start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_material import grid, many, write_grid

from results.report import Site, StoreShown, read_grids, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        try:
            # Without a sandbox: tests may run as root, and the pages are our own.
            found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:  # half installed, or a stand-in that asks for another package system
            pytest.skip(f"{CHROMIUM} does not start: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture
def opened(browser) -> Iterator[Any]:
    """Opens pages; afterwards none of them may have complained, or asked for anything but files beside it."""
    heard: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1300, scheme: str = "light", hash_: str = "") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(f"failed {request.url}"))
        page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else heard.append(request.url))
        page.goto(path.as_uri() + hash_)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    four = {"store": "stores/a", "methods": ["Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"]}
    crossed = [{"name": "CDFv2", "store": "stores/b", "role": "cross-dataset"}]
    write_grid(runs, grid(), leave_out=1)
    write_grid(runs, grid(name="whole", train=four, tests=crossed, seeds=[0], protocol={"epochs": 3, "batch_size": 24}))
    long = StoreShown("stores/a", {"a" * 64: 3}, fingerprint="a" * 64, settings=f"frames 8, detector.predictor_sha256 {'f' * 64}")
    return write_report(read_grids(runs), runs / "site", stores=[long]).index


def rows(page: Any, column: int, body: str = "measured") -> list[str]:
    return page.locator(f"#{body} tr:not(.head) > :nth-child({column})").all_inner_texts()


def numbers(page: Any, column: int) -> list[float]:
    return [float(text.split("±")[0]) for text in rows(page, column)]


def test_sorting_with_the_keyboard_says_so_and_keeps_the_focus(opened, site):
    page = opened(site, hash_="#rows=seed&unrun=0")
    button = page.get_by_role("button", name="NeuralTextures held-out")
    button.focus()
    page.keyboard.press("Enter")
    falling = numbers(page, 4)
    assert len(falling) == 3
    assert falling == sorted(falling, reverse=True)
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")  # the focus is still on it
    assert numbers(page, 4) == falling[::-1]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    page.select_option("#metric", "log_loss")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_filters_choose_rows_and_columns_and_stand_in_the_address(opened, site):
    page = opened(site)
    assert page.locator("#grid").input_value() == "0"
    assert rows(page, 2) == ["sgd", '<b>RoGA</b> & "co"']
    assert "±" in rows(page, 4)[0]
    assert page.locator("#measured b").count() == 0  # a label is text
    assert page.locator("#warnings").inner_text() == "3 of 4 cells: <i>mind</i> the gap."
    assert "over 1 of 2 seeds: not run yet" in page.locator("#notes").inner_text()
    page.select_option("#optimizer", "sgd")
    assert rows(page, 2) == ["sgd"]
    page.select_option("#store", "stores/b")
    assert page.locator("#board thead th").all_inner_texts()[3].startswith("CDFv2")
    assert "optimizer=sgd" in page.url
    page.reload()
    assert page.locator("#optimizer").input_value() == "sgd"
    assert rows(page, 2) == ["sgd"]
    page.click("#reset")
    page.select_option("#grid", "")
    assert page.locator("#mixed").is_visible()  # two protocols in one table
    page.select_option("#protocol", "1")
    assert page.locator("#mixed").is_hidden()
    assert {p for p in rows(page, 5) if p} <= {"whole"}


def test_an_oracle_and_a_reported_number_are_marked(opened, site):
    page = opened(site, hash_="#grid=1&level=frame")
    assert "not measured here" in page.locator("#reported .head").inner_text()
    assert "60.91" in rows(page, 4, "reported")
    assert page.locator("#papernote").is_visible()
    assert page.locator("#oracle").is_hidden()
    page.select_option("#selection", "top3_per_test")
    assert "too high by construction" in page.locator("#oracle").inner_text()
    page.uncheck("#beside")
    assert rows(page, 4, "reported") == []
    assert page.locator("#papernote").is_hidden()


def test_a_cell_opens_and_leads_back(opened, site):
    page = opened(site)
    page.locator("#measured a").first.click()
    page.wait_for_url("**/cells/**")
    assert "meso4 under sgd, seed 0" in page.locator("h1").inner_text()
    assert page.locator("svg.chart").count() == 5
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("link", name="Audit").click()
    page.wait_for_url("**/audit.html")
    assert page.locator("section.claim").count() == 20 + 2 * 4  # of the papers; of two grids
    page.get_by_role("link", name="Leaderboard").click()
    page.wait_for_url("**/index.html")
    assert len(rows(page, 1)) == 2


def test_both_themes_and_the_button(opened, site):
    paper = "getComputedStyle(document.body).backgroundColor"
    page = opened(site, scheme="dark")
    dark = page.evaluate(paper)
    assert opened(site).evaluate(paper) != dark
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Theme: light"
    assert page.evaluate(paper) != dark
    page.locator("#measured a").first.click()
    page.wait_for_url("**/cells/**")
    assert page.evaluate(paper) != dark  # kept on the next page
    page.click("#theme")
    assert page.evaluate(paper) == dark


def test_figures_are_there_in_both_themes_and_lead_to_their_files(opened, site):
    paper = "getComputedStyle(document.querySelector('.pictures img')).backgroundColor"
    for scheme in ("light", "dark"):
        page = opened(site, scheme=scheme)
        page.get_by_role("link", name="Figures").click()
        page.wait_for_url("**/figures.html")
        page.get_by_role("link", name="small", exact=True).click()
        page.wait_for_url("**/figures/small-*.html")
        pictures = page.locator(".pictures img")
        assert pictures.count() >= 10
        for at in range(pictures.count()):
            pictures.nth(at).scroll_into_view_if_needed()
            page.wait_for_function("(image) => image.complete && image.naturalWidth > 300", arg=pictures.nth(at).element_handle())
        assert page.evaluate(paper) == "rgb(255, 255, 255)"  # what their colours are chosen for
        assert all("seed" in text for text in page.locator(".pictures figcaption").all_inner_texts())
        page.get_by_role("link", name="Leaderboard").click()
        page.wait_for_url("**/index.html")


def test_nothing_but_tables_scrolls_sideways_on_a_phone(opened, site):
    page = opened(site, width=360)
    (figures,) = site.parent.glob("figures/small-figures-*.html")
    for place in ("index.html", "figures.html", f"figures/{figures.name}", "audit.html", "data.html", island_page(page)):
        page.goto((site.parent / place).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
    assert page.locator(".scroll").first.get_attribute("tabindex") == "0"


def island_page(page: Any) -> str:
    return str(page.locator("#measured a").first.get_attribute("href"))


def test_a_thousand_cells_are_there_in_two_seconds(opened, tmp_path):
    folder = tmp_path / "site"
    write_report(read_grids(write_grid(tmp_path / "runs", grid(seeds=[0]))), folder, figures=False)
    Site(folder, None, "").leaderboard([many(1000)])
    ready, drawn = [], []
    for _ in range(5):  # whatever else the machine does only makes it slower
        page = opened(folder / "index.html", hash_="#rows=seed")
        assert page.locator("#measured tr").count() == 1000
        ready.append(page.evaluate("Number(document.documentElement.dataset.ready)"))
        page.select_option("#metric", "ap")
        drawn.append(page.evaluate("Number(document.documentElement.dataset.drawn)"))
    assert min(ready) < 2000
    assert min(drawn) < 2000
