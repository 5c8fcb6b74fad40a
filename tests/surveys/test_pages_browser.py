"""The pages of findings and surveys, as a browser shows them."""

from dataclasses import replace

import pytest
from browsers import MARKS, check_colours, started_browser, watched_pages
from shown import HOSTILE
from surveyed import finding

from captum_classpattern import Survey

pytestmark = MARKS


@pytest.fixture(scope="module")
def browser():
    with started_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser):
    with watched_pages(browser, lambda file: (file.as_uri(),)) as open_page:
        yield open_page


@pytest.mark.parametrize("width", [390, 1280])
def test_pictures_are_shown_and_nothing_is_cut_off(open_page, tmp_path, width):
    found = replace(finding(1, "white", 90), class_name=HOSTILE)
    for number, result in enumerate((found, Survey([found, finding(2, "positive", 50)]))):
        file = result.to_html(tmp_path / f"{number}.html")
        page = open_page(file, viewport={"width": width, "height": 800})
        sizes = page.eval_on_selector_all("img", "all => all.map(i => i.naturalWidth)")
        assert sizes
        assert min(sizes) > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("h1").inner_text().startswith("Class pattern")


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_pages_follow_the_colour_scheme(open_page, tmp_path, scheme, dark):
    page = open_page(
        finding(1, "white", 90).to_html(tmp_path / "finding.html"), color_scheme=scheme
    )
    for selector in ("h1", "td", "figcaption"):
        check_colours(page, selector, dark=dark)


def test_folded_scores_open_on_paper(open_page, tmp_path):
    page = open_page(Survey([finding(1, "white", 90)]).to_html(tmp_path / "survey.html"))
    shown = "e => e.checkVisibility({contentVisibilityAuto: true})"
    assert not page.eval_on_selector("td", shown)
    page.emulate_media(media="print")
    cell = page.query_selector("td")
    page.wait_for_function(shown, arg=cell, timeout=10_000)  # a busy browser lays out later
    assert page.eval_on_selector("td", "e => e.getBoundingClientRect().height") > 0
