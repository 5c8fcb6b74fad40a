"""The gallery in a browser: opened from the disk, with clicks and keys."""

import pytest
from browsers import MARKS, check_colours, started_browser, watched_pages
from galleries import found, thousand_classes, write_survey, write_sweep

from captum_classpattern import Survey
from captum_classpattern.pages.gallery import Pages, file_of, pattern_png, write_gallery

pytestmark = MARKS
LONG = "a_name_without_a_single_space_" * 4
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title=1\">"


@pytest.fixture(scope="module")
def browser():
    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    return write_gallery(folder, tmp_path_factory.mktemp("site") / "site")


@pytest.fixture
def opened(browser, index):
    """Opens an index; at the end there must be no error, no message and no request elsewhere."""

    def own(file):
        return index.parent.as_uri(), file.parent.as_uri()

    with watched_pages(browser, own) as open_page:
        yield lambda file=index, **settings: open_page(file, **settings)


def names(page):
    return page.locator(".cards li:visible .name").all_text_contents()  # rendered or not


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_white_pixels_lie_on_dark_and_black_ones_on_light(tmp_path, opened, scheme):
    write_survey(tmp_path / "survey", canvases=("white", "black", "positive"))
    site = write_gallery(tmp_path / "survey", tmp_path / "site")
    page = opened(site, color_scheme=scheme)
    page.get_by_role("link", name="bee").click()
    ground = "e => getComputedStyle(e).background"
    seen = {
        image.get_attribute("data-canvas"): image.evaluate(ground)
        for image in page.locator(".pattern img").all()
    }
    assert seen.keys() == {"white", "black", "positive"}
    assert seen["white"].startswith("rgb(16, 21, 28)")
    assert seen["black"].startswith("rgb(238, 241, 244)")
    assert "conic-gradient" in seen["positive"]


def test_search_sort_open_slide_and_go_back(opened, folder):
    page = opened()
    assert page.locator("#count").inner_text() == "5 of 5 classes"
    page.get_by_role("searchbox", name="Search").fill("CRANE")
    assert names(page) == ["crane", "crane"]
    assert page.locator("#count").inner_text() == "2 of 5 classes"
    page.get_by_role("searchbox", name="Search").fill("3")
    assert names(page) == ["crane"]
    page.get_by_role("searchbox", name="Search").fill("")
    page.get_by_role("combobox", name="Sort by").select_option("name")
    assert names(page) == ["ant", "bee", "crane", "crane", "elk, Alces alces"]
    page.get_by_role("combobox", name="Sort by").select_option("weakest")
    powers = [float(text.split("\xa0")[0]) for text in page.locator(".cards b").all_text_contents()]
    assert powers == sorted(powers)
    page.get_by_role("combobox", name="Sort by").select_option("class")

    page.locator(".cards a").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/1_bee.html")
    assert page.locator("h1").inner_text() == "bee"
    model = page.locator(".path a").last.inner_text()
    findings = Survey.load(folder / model).findings
    assert page.locator("#status").inner_text() == ""  # nothing has changed yet
    for finding in (finding for finding in findings if finding.target == 1):
        page.get_by_label(finding.canvas, exact=True).check()
        page.focus("#area")
        page.keyboard.press("Home")
        for area in sorted(finding.scores):
            power = finding.scores[area].power
            assert page.locator(".variant:visible").count() == 1
            assert page.locator(".power:visible").inner_text() == f"{100 * power.value:.1f}\xa0%"
            kept = page.get_attribute("#area", "aria-valuetext")
            assert f"{round(64 * area)} of 64" in kept
            assert page.locator("#kept").inner_text() == kept
            assert page.locator("#status").inner_text() == f"Power {100 * power.value:.1f}\xa0%"
            source = page.locator(".variant:visible .pattern img").get_attribute("src")
            assert source.endswith(f"1_bee_{finding.canvas}_{area:g}.png")
            page.keyboard.press("ArrowRight")

    page.locator("header").get_by_role("link", name="Next class").click()
    assert page.locator("h1").inner_text() == "crane"
    page.go_back()
    page.go_back()
    assert page.locator("#count").inner_text() == "5 of 5 classes"
    assert names(page)[:2] == ["ant", "bee"]  # still sorted by class number


def test_a_number_is_that_of_a_class_or_a_word_of_its_name(opened, tmp_path):
    classes = ["area 51", "route 1", "b1b 12th", None, "ant", "10-speed bike"]
    folder = write_sweep(tmp_path / "sweep", models=("resnet-1", "resnet 51"), names=classes)
    page = opened(write_gallery(folder, tmp_path / "site"))
    page.get_by_role("combobox", name="Sort by").select_option("class")

    def search(text):
        page.get_by_role("searchbox", name="Search").fill(text)
        return names(page)

    assert search("51") == ["area 51"]  # no model's name
    assert search("1") == ["route 1"]  # class 1, and not 51, 10, 12th or b1b
    assert search("3") == ["class 3"]
    assert search("class") == ["class 3"]
    assert search("12") == []
    assert search("12th") == ["b1b 12th"]
    assert search("10") == ["10-speed bike"]
    assert search("bike 5") == ["10-speed bike"]
    assert search("4") == ["ant"]
    assert len(search("resnet")) == len(classes)


def test_the_slider_is_named_once(opened):
    page = opened()
    page.locator(".cards a").first.click()
    assert page.get_by_role("slider", name="Pixels kept", exact=True).count() == 1
    assert page.locator("output, [aria-live]").count() == 1  # the slider says its value itself


def test_a_thousand_classes_load_lazily(opened, tmp_path):
    model = thousand_classes()
    pages = Pages([model], None, True, False)
    index = tmp_path / "index.html"
    image = pattern_png(found(0, "white", 1, name="ant").pattern.topk(0.05))
    files = pages.files()
    assert len(files["index.html"]) < 1_000_000
    files |= {file_of(model, best, "0.05.png"): image for best in model.best.values()}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    page = opened(index)
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate("[...document.images].filter(i => i.naturalWidth > 0).length")
    assert 0 < loaded < 300
    assert page.locator("#count").inner_text() == "1000 of 1000 classes"
    page.get_by_role("searchbox", name="Search").fill("765")
    assert page.locator(".cards li:visible").count() == 1


def test_images_load_and_pixels_stay_sharp(opened):
    page = opened()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    drawn = page.eval_on_selector(".cards img", "e => getComputedStyle(e).imageRendering")
    assert drawn == "pixelated"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_does_not_scroll_sideways(opened, tmp_path, scheme):
    sweep = write_sweep(tmp_path / "sweep", models=(LONG, f"{LONG}2"), names=(f"{LONG}0", LONG))
    long = write_gallery(sweep, tmp_path / "site")
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    page = opened(long, **phone)
    for file in (long, next(long.parent.glob("models/*/0_*.html"))):
        page.goto(file.as_uri())
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_it_follows_the_colour_scheme(opened, index, scheme, dark):
    page = opened(color_scheme=scheme)
    for address, selectors in (
        (index, ("body", ".cards .name", ".legend li", "select", "thead th")),
        (next(index.parent.glob("models/clean/4_*.html")), ("h1", ".verdict", ".bars dt")),
    ):
        page.goto(address.as_uri())
        for selector in selectors:
            check_colours(page, selector, dark=dark)


def test_scripts_in_names_do_not_run(opened, tmp_path):
    sweep = write_sweep(tmp_path / "sweep", models=(EVIL, "b"), names=(EVIL, "bee"))
    made = write_gallery(sweep, tmp_path / "site", title="Ants")
    page = opened(made)
    assert page.title() == "Ants"
    page.get_by_text(EVIL, exact=True).first.click()
    assert page.locator("h1").inner_text() == EVIL


def test_without_scripts_all_patterns_are_shown(opened, index):
    page = opened(java_script_enabled=False)
    assert page.locator("#find").is_hidden()
    assert page.locator(".cards li:visible").count() == 5
    page.goto((index.parent / "models/clean/0_ant.html").as_uri())
    assert page.locator("#choices").is_hidden()
    assert page.locator(".variant:visible").count() == 4


def test_one_pattern_needs_no_slider(opened, tmp_path):
    folder = write_survey(tmp_path / "mine", areas=(0.05,), canvases=("white",))
    page = opened(write_gallery(folder, tmp_path / "site"))
    page.locator(".cards a").first.click()
    assert page.locator("#choices").is_hidden()
    assert page.locator(".variant:visible").count() == 1


@pytest.mark.parametrize(("canvases", "columns"), [("show", 3), ("hide", 2)])
def test_without_a_canvas_the_pattern_and_its_power_are_two_columns(
    opened, tmp_path, canvases, columns
):
    folder = write_survey(tmp_path / "mine", ("ant",))
    page = opened(write_gallery(folder, tmp_path / "site", canvases=canvases))
    page.locator(".cards a").first.click()
    stage = page.locator(".stage:visible")
    assert len(stage.evaluate("e => getComputedStyle(e).gridTemplateColumns").split()) == columns
    tops = {round(stage.locator(part).bounding_box()["y"]) for part in (".pattern", ".reading")}
    assert len(tops) == 1  # side by side
