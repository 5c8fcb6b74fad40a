"""The site of a sweep shows all models' patterns of each class, and needs no network."""

import re
from itertools import product
from urllib.parse import unquote

import pytest
from reports import Page
from shown import cells_of
from sites import PRIVATE, write_sweep
from surveyed import finding

from captum_classpattern.surveys import Survey, Sweep, site

EVIL = "</script><script>alert('x')</script>\"&{{ 7 * 7 }}<!--"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of two models and one that failed, and its site."""
    sweep = Sweep.load(write_sweep(tmp_path_factory.mktemp("sweep") / "s", failing=("lost",)))
    return sweep, sweep.to_html(sweep.folder / "site")


def pages_of(index):
    return {path.name: Page(path.read_text()) for path in index.parent.iterdir()}


def check_links(index):
    """All pages are linked from the index and link back, and nothing else is loaded."""
    pages = pages_of(index)
    for name, page in pages.items():
        links = {unquote(link) for link in page.attributes("href")}
        assert links == {*pages} - {name} if name == "index.html" else "index.html" in links
        assert links <= {*pages}
        assert all(link.startswith("data:image/png;base64,") for link in page.attributes("src"))
        assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
        assert "default-src 'none'" in page.attributes("content")[0]
        text = (index.parent / name).read_text()
        assert not re.search(r"https?:|@import|url\(|private|resnet18", text)
    return pages


def test_the_index_lists_models_and_classes_and_links_to_all_pages(made, snapshot):
    sweep, index = made
    assert index == sweep.folder / "site" / "index.html"
    pages = check_links(index)
    assert {*pages} == {
        *("index.html", "0_ant.html", "1_bee.html", "2_crane.html", "3_crane.html", "4_elk.html"),
        *("model_0_clean.html", "model_1_bad.html"),
    }
    assert pages["index.html"].lines == snapshot
    assert len(pages["index.html"].attributes("src")) == 2  # powers, and patterns side by side
    links = [link for link in pages["index.html"].attributes("href") if link[:5] == "model"]
    assert [*dict.fromkeys(links)] == ["model_0_clean.html", "model_1_bad.html"]  # in one order
    assert PRIVATE in sweep.failures["lost"]  # which no page says, see check_links


def test_the_page_of_a_class_has_the_patterns_and_scores_of_all_models(made):
    sweep, index = made
    pages = pages_of(index)
    for name, models in (("2_crane", ["clean", "bad"]), ("4_elk", ["clean"])):
        page = pages[f"{name}.html"]
        [(_, *rows)] = page.tables.values()
        assert [tag for tag, _ in page.tags].count("h3") == len(models)
        for model in models:
            of_class = [f for f in sweep.survey(model) if name.startswith(f"{f.target}_")]
            assert len(rows) == 2 * len(of_class) * len(models)
            for each, area in product(of_class, (0.05, 0.01)):
                power, control, *others = cells_of(each.scores[area])
                where = [each.canvas, f"{100 * area:g}\xa0%"]
                names = [model, f"{each.target}", each.label]
                assert [*names, power, control, *where, *others] in rows
            [best] = [
                f for f in sweep.survey(model).best_canvases() if f.target == of_class[0].target
            ]
            alts = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
            assert alts.count(f"canvas of {best.label}") == len(models)
            assert f"{100 * best.power.value:.1f} %" in page.text


def test_a_page_is_split_before_it_is_too_large(tmp_path, monkeypatch):
    names = [f"m{i}" for i in range(5)]
    sweep = Sweep.load(write_sweep(tmp_path / "s", names, ["ant"]))
    size = sweep.to_html(tmp_path / "one").with_name("0_ant.html").stat().st_size
    monkeypatch.setattr(site, "MOST_BYTES", size // 2)
    pages = check_links_of_parts(sweep.to_html(tmp_path / "site"))
    shown = [text for page in pages for text in page.texts if text in names]
    assert len(pages) > 1
    assert {*shown} == {*names[:-1]}  # the last one lacks the class


def check_links_of_parts(index):
    parts = {name: page for name, page in pages_of(index).items() if name[0] == "0"}
    for page in parts.values():
        links = {unquote(link) for link in page.attributes("href")}
        assert {link for link in links if link[:5] != "model"} == {"index.html", *parts}
    return [*parts.values()]


def test_hostile_names_are_escaped(tmp_path):
    sweep = Sweep.load(write_sweep(tmp_path / "s", (f"m{EVIL}", "n"), (EVIL, None), failing="f"))
    pages = check_links(sweep.to_html(tmp_path / "site"))
    assert len(pages) == 5  # the index, two models and two classes
    assert all(EVIL in page.text for page in pages.values())


def test_a_site_says_why_models_failed(tmp_path):
    sweep = Sweep.load(write_sweep(tmp_path / "s", ["m"], ["ant"], failing=["my zoo/lost"]))
    index = sweep.to_html(tmp_path / "site")
    assert ["my zoo/lost", "no file at lost.pt"] in [*Page(index.read_text()).tables.values()][-1]


def test_a_site_opens_with_where_the_models_differ(tmp_path, monkeypatch):
    """A picture, a sentence with the class and both powers, and one that leads to a scan."""
    powers = {"backdoored": (98, 90), "clean": (87, 89)}
    surveys = {
        model: Survey(
            [
                finding(y, "white", n, class_name=name)
                for y, n, name in zip((0, 1), of, ("cat", "dog"))
            ]
        )
        for model, of in powers.items()
    }
    sweep = Sweep.load(write_sweep(tmp_path / "s", [*powers], ["cat", "dog"]))
    monkeypatch.setattr(Sweep, "survey", lambda _, name: surveys[name])
    said = "The models differ most in cat: 98.0 % in backdoored, 87.0 % in clean."
    assert said in sweep.text()
    text = sweep.to_html(tmp_path / "site").read_text()
    page = Page(text)
    assert said in page.text.replace("\xa0", " ")
    order = [
        page.text.index(part) for part in (said[:20], "run classpattern scan", "above controls")
    ]
    assert order == sorted(order)
    assert text.index("<img ") < text.index("The models differ")
    rows = sweep.shown_table().to_dict("records")
    assert [row["furthest above others"] for row in rows] == ["cat, +11 points", None]
    [axis, _] = sweep.plot(use_pyplot=False)[0].axes
    assert [text.get_text() for text in axis.get_yticklabels()] == [*powers]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["cat", "dog"]


def test_an_empty_sweep_has_an_index(tmp_path):
    write_sweep(tmp_path / "s", ("a",), ()).joinpath("a/results.json").unlink()
    page = pages_of(Sweep.load(tmp_path / "s").to_html(tmp_path / "site"))["index.html"]
    assert "Class patterns of 1 model: power of 5 % of the pixels 0 classes." in page.text


def test_a_models_row_is_of_the_canvases_that_did_best_on_validation_images(tmp_path, monkeypatch):
    found = Survey(
        [
            finding(0, "positive", 20, search_power=0.9, control=0.19),
            finding(0, "white", 80, search_power=0.1),  # the strongest on held-out images
            finding(1, "positive", 40, class_name="dog"),
        ]
    )
    sweep = Sweep.load(write_sweep(tmp_path / "s", ["m"], ["cat", "dog"], failing=["n"]))
    monkeypatch.setattr(Sweep, "survey", lambda _, name: found if name == "m" else Survey())
    row, nothing = sweep.shown_table().to_dict("records")
    assert row == {
        "model": "m",
        "power": "30.0 %",
        "classes": "2 of 2",
        "above controls": "1",
    }
    assert nothing["classes"] == "0 of 2, failed"
