"""The page in a browser: opened from the disk, with clicks and keys."""

import pytest
import torch
from browsers import MARKS, check_colours, started_browser, watched_pages
from reports import small_comparison

from captum_classpattern.pages import report
from captum_classpattern.pages.report import write_report

pytestmark = MARKS
EVIL = (
    "</script><script>document.title='taken'</script>\"'&<img src=x onerror=\"document.title=1\">"
)
LONG = "a_name_without_a_single_space_" * 4


@pytest.fixture(scope="module")
def browser():
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(
        small_comparison(),
        tmp_path_factory.mktemp("browser") / "report.html",
        title="Ants and bees",
        verdicts=[{"holds": False, "text": "No class reaches 90 %."}],
    )


@pytest.fixture
def opened(browser, path):
    """Opens the page; at the end there must be no error, no message and no network request."""
    with watched_pages(browser, lambda file: (file.as_uri(),)) as open_page:
        yield lambda file=path, **settings: open_page(file, **settings)


@pytest.fixture
def unillustrated(monkeypatch):
    """Without figures, which take long."""
    monkeypatch.setattr(report, "draw_figures", lambda comparison, figures: [])


@pytest.fixture
def own_verdicts(tmp_path, unillustrated):
    """The page with the verdicts of the comparison."""
    return write_report(small_comparison(), tmp_path / "verdicts.html")


def open_all(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")


def pixels(page, name):
    """Red, green, blue, alpha of each pixel of a canvas."""
    return page.evaluate(
        "id => { const c = document.getElementById(id);"
        " const copy = new OffscreenCanvas(c.width, c.height).getContext('2d');"
        " copy.drawImage(c, 0, 0);"
        " return [...copy.getImageData(0, 0, c.width, c.height).data]; }",
        name,
    )


def column(page, table, index):
    rows = page.locator(f"#table-{table} tbody tr:visible")
    return [row.locator("th, td").nth(index).inner_text() for row in rows.all()]


def test_it_opens_from_the_disk(opened):
    page = opened()
    assert page.title() == page.locator("h1").inner_text() == "Ants and bees"
    assert page.locator("#verdicts .fails").inner_text().split() == (
        ["✗", "Fails", "No", "class", "reaches", "90", "%."]
    )
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_the_slider_is_the_first_content_after_the_title(opened):
    page = opened()
    tops = page.eval_on_selector_all(
        "header, #slider, #slider-area, #slider-pattern, #slider-power, #verdicts, #numbers, #more",
        "all => all.map(e => [e.id, e.getBoundingClientRect().top])",
    )
    names = [name for name, _ in sorted(tops, key=lambda entry: entry[1])]
    assert names[:3] == ["", "slider", "slider-area"]
    assert names[-3:] == ["verdicts", "numbers", "more"]
    bottom = page.eval_on_selector("#slider-pattern", "e => e.getBoundingClientRect().bottom")
    assert bottom <= 900  # on the first screen
    assert page.locator("#slider-area").is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_each_power_of_the_slider_is_next_to_its_controls(opened, width):
    comparison = small_comparison()
    page = opened(viewport={"width": width, "height": 900})
    page.locator("#slider-models button").first.click()
    page.select_option("#slider-canvas", index=1)
    page.focus("#slider-area")
    page.keyboard.press("Home")
    of = {r.name: r for r in comparison.select(model="clean", canvas=1)}
    texts = {name: f"{100 * r.powers[0.05].value:.1f}\xa0%" for name, r in of.items()}
    controls = ", ".join(f"{name}\xa0{texts[name]}" for name in ("RandomPixels", "BestCrop"))
    [power] = page.locator("#slider-power").all_text_contents()
    assert power == texts["ClassPattern"]
    assert page.locator("#slider-controls dd").all_text_contents() == [controls]
    without = f"{100 * of['ClassPattern'].powers[0.05].without:.1f}\xa0%"
    assert page.locator("#slider-without").all_text_contents() == [without]
    own, *others = page.locator("#slider-all .value").all_text_contents()
    assert [own, *others] == [texts[m] for m in texts if m in data_names(page)]
    assert page.locator("#slider-all .control .name").count() == 2


def data_names(page):
    """The methods of the slider."""
    return page.evaluate("JSON.parse(document.getElementById('data').textContent).methods"
                         ".map(m => m.name)")  # fmt: skip


def test_each_verdict_has_its_number_and_control_and_opens(opened, own_verdicts):
    page = opened(own_verdicts)
    lines = page.locator(".verdicts li")
    compared = [v for v in small_comparison().verdicts() if "model" in v]
    assert len(compared) == lines.filter(has=page.locator(".model")).count() == 4
    for line in lines.filter(has=page.locator(".model")).all():
        for part in (".value", ".control"):
            [text] = line.locator(part).all_text_contents()
            assert any(letter.isdigit() for letter in text)
        assert line.locator("details > p").is_hidden()
        line.locator("summary").click()
        assert line.locator("details > p").is_visible()


def test_the_rest_is_folded_and_opens_on_paper(opened):
    page = opened(viewport={"width": 794, "height": 1123})  # A4
    folded = page.locator("#more > details")
    assert folded.count() == 7
    assert not page.locator("details[open]").count()
    inside = page.locator("#more > details > :not(summary):not(form):not(.hint)").all()
    assert not [part for part in inside if part.is_visible()]
    page.emulate_media(media="print")
    last = page.query_selector_all("#more table")[-1]
    opened_up = "e => e.checkVisibility({contentVisibilityAuto: true})"
    page.wait_for_function(opened_up, arg=last, timeout=10_000)  # a busy browser lays out later
    hidden = page.eval_on_selector_all(
        "#more img, #more table, #more dl",
        "all => all.filter(e => !e.checkVisibility({contentVisibilityAuto: true})"
        " || !e.getBoundingClientRect().height).map(e => e.outerHTML.slice(0, 80))",
    )
    assert not hidden
    assert page.locator("#more img").count() == 8
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert not page.locator(".choices").is_visible()
    page.emulate_media(media="screen")
    assert not [part for part in inside if part.is_visible()]


def test_touch_targets_are_large_enough(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    open_all(page)
    sizes = page.eval_on_selector_all(
        "select, summary, button, input, #filter label",
        "all => all.filter(e => e.checkVisibility() && !e.matches('[type=checkbox]'))"
        ".map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect().height])",
    )
    assert len(sizes) > 30
    assert not [entry for entry in sizes if entry[1] < 43.9]


def test_the_slider_moves_power_and_pixels(opened):
    comparison = small_comparison()
    page = opened()
    white = comparison.select(method="ClassPattern", kind="white")
    record = max(white, key=lambda r: len({power.value for power in r.powers.values()}))
    page.locator("#slider-models button").nth([*comparison.models].index(record.model)).click()
    page.select_option(
        "#slider-canvas", label=f"{comparison.class_name(record.target)}, white canvas"
    )
    seen = []
    page.focus("#slider-area")
    page.keyboard.press("Home")
    for area, power in record.powers.items():
        assert page.locator("#slider-power").inner_text() == f"{100 * power.value:.1f}\xa0%"
        shown = pixels(page, "slider-pattern")
        kept = [shown[i] == 255 for i in range(0, len(shown), 4)]  # of a white canvas
        assert kept == record.masks[area].flatten().tolist()
        assert f"{sum(kept)} of 64" in page.get_attribute("#slider-area", "aria-valuetext")
        width = page.eval_on_selector(".reading .fill", "e => parseFloat(e.style.width)")
        assert width == pytest.approx(100 * power.value, abs=0.01)
        seen.append(shown)
        page.keyboard.press("ArrowRight")
    assert seen[0] != seen[1] != seen[2]
    assert len({power.value for power in record.powers.values()}) > 1


def test_methods_can_be_chosen_by_keyboard(opened):
    page = opened()
    page.select_option("#slider-canvas", index=0)
    before = pixels(page, "slider-pattern")
    page.locator("#slider-all button").nth(2).focus()
    page.keyboard.press("Enter")
    assert pixels(page, "slider-pattern") != before
    assert page.locator("#slider-name").all_text_contents() == ["RandomPixels on bad"]
    assert page.locator("#slider-how").all_text_contents() == ["One map, cut to each area."]
    pressed = page.locator("#slider-all [aria-pressed=true] .name")
    assert pressed.all_text_contents() == ["Random\u200bPixels"]
    [record] = small_comparison().select(model="bad", method="RandomPixels", canvas=0)
    power = f"{100 * record.powers[0.1].value:.1f}\xa0%"
    assert page.locator("#slider-power").all_text_contents() == [power]


def test_a_click_on_a_heading_sorts_and_another_one_turns_it_round(opened):
    page = opened()
    open_all(page)
    head = page.locator("#table-main thead th").nth(3)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    powers = [float(text.split("\xa0")[0]) for text in column(page, "main", 3)]
    assert powers == sorted(powers, reverse=True)
    assert len(set(powers)) > 1
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(text.split("\xa0")[0]) for text in column(page, "main", 3)] == powers[::-1]
    page.locator("#table-main thead th").first.locator("button").click()
    assert head.get_attribute("aria-sort") is None
    names = column(page, "main", 0)
    assert names == sorted(names)


def test_cells_without_a_value_stay_last(opened):
    page = opened()
    open_all(page)
    button = page.locator("#table-metrics-2 thead th").last.locator("button")
    for _ in range(2):
        button.click()
        empty = [text == "\N{EN DASH}" for text in column(page, "metrics-2", 4)]
        assert empty == sorted(empty)
        assert len(set(empty)) == 2


def test_the_filter_shows_maps_of_images_first(opened):
    page = opened()
    open_all(page)
    names = column(page, "main", 0)
    assert "Saliency" in names
    assert not [name for name in names if "class mean" in name]
    page.get_by_role("checkbox", name="class mean").check()
    assert "Saliency, class mean" in column(page, "main", 0)
    page.get_by_role("checkbox", name="clean").uncheck()
    assert set(column(page, "main", 1)) == {"bad"}
    page.get_by_role("searchbox", name="Method").fill("salien")
    assert set(column(page, "main", 0)) == {"Saliency", "Saliency, class mean"}
    count = page.locator(".count").first.inner_text()
    assert count == f"4 of {page.locator('#table-main tbody tr').count()} rows"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_boxes_and_not_the_page(opened, tmp_path, scheme):
    comparison = small_comparison(
        models=(LONG, f"{LONG}2"), method=LONG, class_names=(f"{LONG}0", f"{LONG}1", f"{LONG}2")
    )
    long = write_report(
        comparison, tmp_path / "long.html", title=LONG, verdicts=[{"holds": True, "text": LONG}]
    )
    for file in (None, long):
        phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
        page = opened(**({"file": file} if file else {}), **phone)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.body.scrollWidth") <= 390
        box = page.locator(".paper").first
        assert box.evaluate("e => e.scrollWidth > e.clientWidth")
        wide = page.eval_on_selector_all(
            ".scroll", "all => all.map(e => e.scrollWidth > e.clientWidth + 1)"
        )
        hints = page.eval_on_selector_all(
            ".scroll", "all => all.map(e => e.previousElementSibling.checkVisibility())"
        )
        assert hints == wide
        assert wide.count(True) > 5
        [first, *_] = page.locator(".hint").all_text_contents()
        assert first == "Scroll →"


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_the_colour_scheme(opened, scheme, dark):
    page = opened(color_scheme=scheme)
    open_all(page)
    for selector in (
        "body",
        "#filter",
        "tbody th",
        "select",
        "#slider-all button",
        ".fails .mark",
        "summary",
        ".facts dt",
    ):
        check_colours(page, selector, dark=dark)


def test_scripts_in_names_do_not_run(opened, tmp_path, unillustrated):
    comparison = small_comparison(
        models=(f"a{EVIL}", f"b{EVIL}"), method=EVIL, class_names=(f"{EVIL}0", f"{EVIL}1", EVIL)
    )
    evil = write_report(comparison, tmp_path / "evil.html", title="Ants")
    page = opened(evil)
    page.focus("#slider-area")
    page.keyboard.press("End")
    page.locator("#slider-all button", has_text="taken").click()
    page.locator("#slider-models button").first.click()
    assert page.title() == "Ants"
    assert page.locator("#slider-name").all_text_contents() == [f"{EVIL} on a{EVIL}"]
    assert page.locator("#slider-class").all_text_contents()[0].startswith(EVIL)
    open_all(page)
    assert page.get_by_label(f"a{EVIL}", exact=True).count() == 1


def test_colours_are_those_of_the_canvas(opened, tmp_path, unillustrated):
    comparison = small_comparison(channels=3)
    page = opened(write_report(comparison, tmp_path / "colour.html"))
    page.select_option("#slider-canvas", index=0)
    levels = torch.tensor(pixels(page, "slider-original")).view(8, 8, 4)[..., :3]
    assert (levels / 255 - comparison.canvases[0].permute(1, 2, 0)).abs().max() < 0.003


def test_without_scripts_all_rows_and_numbers_are_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator("#slider").is_hidden()
    assert page.get_by_text("The slider needs scripts").is_visible()
    for summary in page.locator("#more > details > summary").all():
        summary.click()
    assert page.locator("#filter").is_hidden()
    assert page.locator("#table-by-area tbody tr").count() == 2 * 4 * 4
    assert page.locator("#table-by-area tbody tr").last.is_visible()
    assert page.locator("#table-main tbody tr:visible").count() == 2 * 2 * 5
