"""Reports, sites and the pages of results in a browser: opened from the disk, with clicks and
keys. No page may show an error or ask for anything but its own files."""

from dataclasses import replace

import pytest
import torch
from browsers import MARKS, check_colours, started_browser, watched_pages
from matplotlib.figure import Figure
from reports import small_comparison
from scanned import made_up
from shown import HOSTILE, percent
from sites import write_sweep
from surveyed import finding

from captum_classpattern.comparison import report as report_module
from captum_classpattern.comparison.records import strongest_names
from captum_classpattern.comparison.report import draw
from captum_classpattern.surveys import Survey, Sweep

pytestmark = MARKS
LONG = "a_name_without_a_single_space_" * 4
EVIL = (
    "</script><script>document.title='taken'</script>\"'&<img src=x onerror=\"document.title=1\">"
)
NARROW = {"width": 390, "height": 844}
PHONE = {"viewport": NARROW, "has_touch": True, "is_mobile": True}
WIDE = draw("A wide figure", lambda **_: (Figure(figsize=(12, 3)), None), "canvas")


@pytest.fixture(scope="module")
def browser():
    with started_browser() as started:
        yield started


@pytest.fixture
def opened(browser):
    with watched_pages(browser) as open_page:
        yield open_page


def open_all(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")


def width_of(page):
    return page.evaluate("document.documentElement.scrollWidth")


def texts(page, selector):
    return page.locator(selector).all_text_contents()


def check_scheme(page, *selectors):
    """Texts can be read in both colour schemes."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for selector in selectors:
            check_colours(page, selector, dark=scheme == "dark")


def pictures_are_shown(page):
    return page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def check_paper(page):
    """What is folded opens on paper, and nothing else."""
    hidden = (
        "() => [...document.querySelectorAll('img, table, dl')].filter(e =>"
        " !e.checkVisibility({contentVisibilityAuto: true}) && !e.closest('#slider')).length"
    )
    assert page.evaluate(hidden) > 0
    page.set_viewport_size({"width": 794, "height": 1123})  # A4
    page.emulate_media(media="print")
    page.wait_for_function(f"({hidden})() === 0", timeout=10_000)  # a busy browser lays out later
    assert width_of(page) <= 794
    page.emulate_media(media="screen")
    assert page.evaluate(hidden) > 0


# ---- results


def test_pages_of_results_fit_follow_the_colour_scheme_and_open_on_paper(opened, tmp_path):
    one = replace(finding(1, "white", 90), class_name=HOSTILE)
    survey = Survey([one, finding(2, "positive", 50)])
    for number, result in enumerate((one, made_up(names=(HOSTILE, *"bcd")), survey)):
        page = opened(result.to_html(tmp_path / f"{number}.html"), viewport=NARROW)
        assert pictures_are_shown(page)
        assert width_of(page) <= 390
        check_scheme(page, "h1", "li" if number == 1 else "figcaption")  # a scan is one figure
    check_paper(page)


# ---- the report


def written(comparison, path):
    """A report with one wide figure in place of each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "draw", lambda *_: WIDE)
        return comparison.to_html(path)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return written(small_comparison(channels=3), path)


def drawn(page, name):
    """Red, green, blue, alpha of each pixel of a canvas."""
    return page.evaluate(
        "id => { const c = document.getElementById(id);"
        " const copy = new OffscreenCanvas(c.width, c.height).getContext('2d');"
        " copy.drawImage(c, 0, 0);"
        " return [...copy.getImageData(0, 0, c.width, c.height).data]; }",
        name,
    )


def test_a_report_begins_with_the_slider_and_folds_the_rest(opened, report):
    page = opened(report)
    bottom = page.eval_on_selector("#slider-pattern", "e => e.getBoundingClientRect().bottom")
    assert bottom <= 900  # on the first screen
    assert pictures_are_shown(page)
    assert not page.locator("details[open]").count()
    check_paper(page)
    open_all(page)
    check_scheme(page, "body", "tbody th", "select", "#slider-all button")
    check_scheme(page, "summary", ".facts dt")


def test_the_slider_of_a_report_moves_power_and_pixels(opened, report):
    comparison, page = small_comparison(channels=3), opened(report)
    page.select_option("#slider-canvas", index=0)
    levels = torch.tensor(drawn(page, "slider-original")).view(8, 8, 4)[..., :3]
    assert (levels / 255 - comparison.canvases[0].permute(1, 2, 0)).abs().max() < 0.003
    white = comparison.select(method="ClassPattern", kind="white")
    record = max(white, key=lambda r: len({power.value for power in r.powers.values()}))
    page.locator("#slider-models button").nth([*comparison.models].index(record.model)).click()
    canvas = f"{comparison.class_name(record.target)}, white canvas"
    page.select_option("#slider-canvas", label=canvas)
    others = {r.name: r for r in comparison.select(model=record.model, canvas=record.canvas)}
    names = strongest_names([r for r in comparison.records if r.powers], comparison.area)
    page.focus("#slider-area")
    page.keyboard.press("Home")
    seen = []
    for area, power in record.powers.items():
        of = {name: percent(r.powers[area].value) for name, r in others.items() if r.powers}
        simple = [n for n in names if n in ("RandomPixels", "BestRandomMask")]
        controls = ", ".join(f"{n}\xa0{of[n]}" for n in simple)
        for selector, expected in {
            "#slider-power": [percent(power.value)],
            "#slider-without": [percent(power.without)],
            "#slider-controls dd": [controls],
            "#slider-all .value": [of[name] for name in names],
        }.items():
            assert texts(page, selector) == expected
        shown = drawn(page, "slider-pattern")
        kept = [shown[i] == 255 for i in range(0, len(shown), 4)]  # of a white canvas
        assert kept == record.masks[area].flatten().tolist()
        assert f"{sum(kept)} of 64" in page.get_attribute("#slider-area", "aria-valuetext")
        width = page.eval_on_selector(".reading .fill", "e => parseFloat(e.style.width)")
        assert width == pytest.approx(100 * power.value, abs=0.01)
        seen.append(shown)
        page.keyboard.press("ArrowRight")
    assert seen[0] != seen[1] != seen[2]
    assert len({power.value for power in record.powers.values()}) > 1
    assert page.locator("#slider-all .control .name").count() == 2
    page.locator("#slider-all button").nth(names.index("RandomPixels")).focus()
    page.keyboard.press("Enter")
    assert drawn(page, "slider-pattern") != seen[-1]
    for selector, expected in {
        "#slider-name": f"RandomPixels on {record.model}",
        "#slider-how": "One map, cut to each area.",
        "#slider-all [aria-pressed=true] .name": "Random\u200bPixels",
        "#slider-power": percent(others["RandomPixels"].powers[area].value),
    }.items():
        assert texts(page, selector) == [expected]


def check_on_a_phone(page):
    """Boxes scroll and say so, and not the page; what is touched is large enough."""
    open_all(page)
    assert width_of(page) <= 390
    boxes = page.eval_on_selector_all(
        ".scroll",
        "all => all.map(e => [e.scrollWidth > e.clientWidth + 1,"
        " e.previousElementSibling.textContent === 'Scroll →'"
        " && e.previousElementSibling.checkVisibility()])",
    )
    assert all(wide == hint for wide, hint in boxes)
    assert boxes.count([True, True]) > 5
    small = page.eval_on_selector_all(
        "select, summary, button, input",
        "all => all.filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 43.9)"
        ".map(e => e.outerHTML.slice(0, 60))",
    )
    assert not small


def test_a_report_on_a_phone(opened, report):
    check_on_a_phone(opened(report, **PHONE))


def test_long_and_hostile_names_in_a_report(opened, tmp_path):
    name = f"{LONG}{EVIL}"
    comparison = small_comparison(
        models=(f"a{name}", f"b{name}"), method=name, class_names=(f"{name}0", f"{name}1", name)
    )
    page = opened(written(comparison, tmp_path / "evil.html"), **PHONE)
    page.focus("#slider-area")
    page.keyboard.press("End")
    page.locator("#slider-all button", has_text="taken").click()
    page.locator("#slider-models button").first.click()
    assert page.title() == "Class patterns and other methods"
    assert texts(page, "#slider-name") == [f"{name} on a{name}"]
    assert texts(page, "#slider-class")[0].startswith(name)
    check_on_a_phone(page)


def test_a_report_without_scripts_has_all_rows_and_numbers(opened, report):
    page = opened(report, java_script_enabled=False)
    assert page.get_by_text("The slider needs scripts").is_visible()
    for summary in page.locator("main > details > summary").all():
        summary.click()
    assert page.locator("#slider").is_hidden()
    assert page.locator("details tbody tr:visible").count() > 2 * 2 * 4 * 3


# ---- the site of a sweep


def test_the_site_of_a_sweep_with_long_and_hostile_names(opened, tmp_path):
    models, classes = (f"{LONG}{EVIL}", f"{LONG}2"), (EVIL, f"{LONG}0", LONG)
    made = Sweep.load(write_sweep(tmp_path / "s", models, classes)).to_html(tmp_path / "site")
    page = opened(made, **PHONE)
    assert pictures_are_shown(page)
    assert width_of(page) <= 390
    page.get_by_text(EVIL, exact=True).first.click()
    assert page.locator("h1").inner_text() == EVIL
    assert pictures_are_shown(page)
    open_all(page)
    assert width_of(page) <= 390
