"""Fragments of HTML, and what a notebook shows of patterns, powers, findings and surveys."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from shown import DATA, HOSTILE, check, read, table_of
from surveyed import finding

import captum_classpattern
from captum_classpattern import Pattern
from captum_classpattern.pages import kinds, parts
from captum_classpattern.results import Result
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Survey
from captum_classpattern.surveys.search import SurveySearch, SurveySettings
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.style import NO_PIXEL


def pixels(page, place=0):
    """A picture of a page, as bytes (H, W, C)."""
    source = [attributes["src"] for tag, attributes in page.tags if tag == "img"][place]
    return np.asarray(Image.open(BytesIO(b64decode(source.removeprefix(DATA)))).convert("RGB"))


def pattern(channels=3, side=8, **info):
    generator = torch.Generator().manual_seed(0)
    canvas, mask = torch.rand(channels, side, side, generator=generator), torch.zeros(1, side, side)
    mask[0, 2:4, 3:5] = 1
    return Pattern(canvas, mask, 1, info)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_picture_is_enlarged_by_a_whole_number(channels):
    image = pattern(channels).canvas
    drawn = pixels(check(parts.picture(image, "canvas")))
    assert drawn.shape == (128, 128, 3)
    expected = (255 * image).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
    assert (drawn[::16, ::16] == expected).all()
    assert (drawn == expected.repeat(16, 0).repeat(16, 1)).all()


@pytest.mark.parametrize(("side", "drawn"), [(28, 112), (64, 128), (200, 200), (224, 224)])
def test_pictures_keep_whole_pixels_up_to_224(side, drawn):
    assert pixels(check(parts.picture(torch.rand(3, side, side), "canvas"))).shape[0] == drawn


def test_a_large_picture_is_reduced_to_its_mean_colours():
    image = torch.zeros(3, 448, 224)
    image[:, 224:] = 1
    drawn = pixels(check(parts.picture(image, "canvas", most=112)))
    assert drawn.shape == (112, 56, 3)
    assert (drawn[:50] == 0).all()
    assert (drawn[62:] == 255).all()


def test_a_pattern_lies_on_a_ground_that_is_neither_black_nor_white():
    page = read(pattern(class_name="dog", search_power=0.5), pictures=2)
    drawn = pixels(page)[::16, ::16]
    expected = (255 * on_neutral(pattern())).round().byte().permute(1, 2, 0).numpy()
    assert (drawn == expected).all()
    assert np.abs(drawn[0, 0] - 255 * np.array(NO_PIXEL)).max() <= 1
    assert "Pattern of dog" in page.text
    assert "6.25 % of the 64 pixels" in page.text.replace("\xa0", " ")
    assert "power 50.0 % on the judging images" in page.text.replace("\xa0", " ")


def test_a_weighted_pattern_is_drawn_at_its_own_area():
    weighted = Pattern(torch.ones(1, 8, 8), torch.linspace(0, 1, 64).view(1, 8, 8), 0)
    assert weighted.at_own_area().mask.sum() == 32
    page = read(weighted, pictures=2)
    assert "63 pixels have a weight" in page.text
    whole = Pattern(torch.ones(1, 8, 8), torch.ones(1, 8, 8), 0)  # no area to cut to
    assert whole.at_own_area() is whole
    read(whole, pictures=2)


def test_what_is_no_image_is_said_to_be_none():
    page = read(pattern(channels=4), pictures=0)
    assert "pattern of class 1" in page.text or "4 channels, so it can't be shown" in page.text


def test_a_power_is_shown_with_its_interval():
    power = power_of(90, 200, 4)
    text = read(power, pictures=0).text.replace("\xa0", " ")
    low, high = (100 * end for end in power.interval)
    assert f"45.0 % of 200 images (95 % interval {low:.1f}\N{EN DASH}{high:.1f})" in text
    assert "Without the pattern: 2.0 %" in text
    _, [axis] = power.plot(use_pyplot=False)
    assert [text.get_text() for text in axis.texts] == ["45\xa0%"]


def test_patterns_and_powers_are_written_as_pages(tmp_path):
    for result in (pattern(), power_of(90, 200, 4)):
        path = result.to_html(tmp_path / "page.html")
        page = check(path.read_text(encoding="utf-8"))
        shown = read(result).text.split()
        assert " ".join(shown) in " ".join(page.text.split())


def test_the_table_of_a_power_is_one_row():
    power = power_of(90, 200, 4)
    [row] = power.table().to_dict("records")
    low, high = power.interval
    assert row == {
        "power": 0.45, "power_low": low, "power_high": high, "images": 200, "no_pattern": 0.02,
    }  # fmt: skip


def examples(n=2):
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return StampedImages(images, ("cat", HOSTILE), (0, 1), ("cat", "dog"), (0.25, 0.5))


def test_a_finding_shows_its_numbers():
    found = finding(1, "white", 90, class_name="dog", n=200)
    other = finding(1, "positive", 10, class_name="dog", n=200)
    page = read(replace(found, others=(other,), examples=examples()), pictures=4)
    rows = {key.replace("\xa0", " "): row for key, row in table_of(page).items()}
    assert list(rows) == [
        "white canvas, 5 %", "white canvas, 1 %", "positive canvas, 5 %", "positive canvas, 1 %",
    ]  # fmt: skip
    scores, row = found.scores[0.05], rows["white canvas, 5 %"]
    low, high = (100 * end for end in scores.power.interval)
    assert {key: value.replace("\xa0", " ") for key, value in row.items()} == {
        "power": "45.0 %",
        "95 % interval": f"{low:.1f}\N{EN DASH}{high:.1f}",
        "images": "200",
        "no pattern": "0.5 %",
        "random pixels": "2.0 %",
        "other canvas": "3.0 %",
        "above its controls": "yes",
    }
    assert rows["positive canvas, 1 %"]["above its controls"] == "no"
    assert "cat, predicted: cat 25 %" in page.text.replace("\xa0", " ")
    assert (pixels(page, 2)[::16, ::16, 0] == (255 * examples().images[0, 0]).round().numpy()).all()


def test_few_images_are_said_to_be_too_few():
    page = read(finding(1, "white", 40, n=60))
    assert {row["above its controls"] for row in table_of(page).values()} == {"too few images"}


def test_hostile_names_are_escaped(tmp_path):
    hostile = replace(
        finding(1, "white", 90, class_name=HOSTILE), class_name=HOSTILE, examples=examples()
    )
    plain = replace(finding(1, "white", 90, class_name="dog"), examples=examples())
    for one, other in (
        (hostile, plain),
        (hostile.pattern, plain.pattern),
        (Survey([hostile]), Survey([plain])),
    ):
        page = read(one)
        assert [tag for tag, _ in page.tags] == [tag for tag, _ in read(other).tags]
        assert "<img src=x onerror=alert(1)> & \"'\N{LATIN SMALL LETTER E WITH ACUTE}" in page.text
    for number, result in enumerate((hostile, Survey([hostile]))):
        path = result.to_html(tmp_path / f"{number}.html")
        check(path.read_text(encoding="utf-8"))


def survey(classes, **settings):
    return Survey(
        [
            finding(y, canvas, 10 + y, search_power=power, class_name=f"pet {y}", **settings)
            for y in range(classes)
            for canvas, power in (("positive", 0.5), ("white", 0.9 if y % 2 else 0.1))
        ],
        classes,
    )


def test_a_survey_shows_the_best_canvas_of_each_class(tmp_path):
    found = survey(4)
    page = read(found, pictures=4)
    for y, canvas in enumerate(["positive", "white"] * 2):
        assert f"pet {y}, {canvas} canvas: {10 + y}.0" in page.text
    [(_, *rows)] = page.tables.values()
    assert len(rows) == 4 * 2 * 2
    path = found.to_html(tmp_path / "survey.html")
    assert check(path.read_text()).tables == page.tables
    assert path.read_bytes() == found.to_html(tmp_path / "again.html").read_bytes()


def test_of_many_classes_the_strongest_are_shown():
    page = read(survey(25), pictures=20)
    assert "The 20 strongest of 25 classes are shown" in page.text
    assert "pet 24," in page.text
    assert "pet 4," not in page.text
    [(_, *rows)] = page.tables.values()
    assert len(rows) == 20 * 2 * 2


def test_the_table_of_a_page_lists_all_classes(tmp_path):
    written = survey(105, n=200).to_html(tmp_path / "survey.html").read_text(encoding="utf-8")
    page = check(written)
    assert written.count("<img") == 100
    [(_, *rows)] = page.tables.values()
    assert len(rows) == 105 * 2 * 2
    assert {row[0] for row in rows} == {f"pet {y}" for y in range(105)}


def test_a_survey_names_its_model_if_that_is_known():
    assert "<b>Class patterns</b>" in survey(2)._repr_html_()
    named = Survey(survey(2).findings, 2, info={"provenance": {"source": "a<b>.pt"}})
    assert "<b>Class patterns of a&lt;b&gt;.pt</b>" in named._repr_html_()


def test_an_unfinished_survey_is_not_searched_for_it(monkeypatch):
    def find(self, missing):
        for target in missing:
            yield [finding(target, "white", 50, class_name=f"pet {target}")]

    monkeypatch.setattr(SurveySearch, "find", find)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval()
    network.provenance = {"source": "pets.pt"}
    images = torch.rand(2, 1, 8, 8)
    searching = SurveySearch(
        *(network, images, images),
        SurveySettings(canvases={"white": 1}, areas=(0.05, 0.1)),
    )
    assert "0 of 2 findings on white canvases" in read(searching, pictures=0).text
    next(iter(searching))
    page = read(searching, pictures=1)
    assert "Class patterns of pets.pt" in page.text
    assert "1 of 2 findings on white canvases" in page.text
    assert "pet 1" not in page.text
    assert len(searching.finished) == 1


def test_a_photo_stays_small():
    """An ImageNet-sized finding of noise, which compresses worst of all."""
    canvas, mask = torch.rand(3, 224, 224), torch.zeros(1, 224, 224)
    mask.view(-1)[torch.randperm(224 * 224)[:2509]] = 1
    noise = Pattern(canvas, mask, 1, {"settings": {}})
    read(noise, pictures=2)


def test_the_names_of_plain_reprs():
    power = power_of(90, 100, 1)
    assert repr(power) == f"PredictivePower({power})"
    found = finding(1, "white", 90, class_name="dog")
    powers = "0.05: 90.0% (controls at most 3.0%), 0.01: 2.0% (controls at most 1.0%)"
    assert repr(found) == f"Finding(dog, white canvas, power at area {powers})"
    checked = replace(found, class_name=None, accuracy=0.875, search_images=4, held_out_images=8)
    assert repr(checked) == (
        f"Finding(class 1, white canvas, power at area {powers}, the model's accuracy 87.5%)"
    )


def test_a_finding_reports_what_its_model_and_images_are():
    found = finding(1, "white", 90, class_name="dog")
    assert "images to search with" not in read(found, pictures=2).text
    checked = replace(found, accuracy=0.875, search_images=1200, held_out_images=800)
    text = read(checked, pictures=2).text.replace("\xa0", " ")
    assert "1,200 images to search with, 800 held out. The model classifies 87.5 % of" in text
    unlabelled = read(replace(checked, accuracy=None), pictures=2).text
    assert "800 held out." in unlabelled
    assert "The model classifies" not in unlabelled


def test_the_strongest_colours_of_a_figure_are_kept():
    """A map that is mostly pale, as attributions are, in red and green."""
    figure = Figure(figsize=(2, 2))
    axis = figure.add_axes((0, 0, 1, 1))
    generator = np.random.default_rng(0)
    pale = 255 * (1 - generator.exponential(0.08, (120, 120)).clip(0, 1))
    red, green = np.full((120, 120), 255.0), np.full((120, 120), 128 + pale / 2)
    positive = generator.random((120, 120)) < 0.5
    image = np.where(
        positive[..., None],
        np.stack([pale, green, pale], 2),
        np.stack([red, pale, pale], 2),
    ).round().astype(np.uint8)  # fmt: skip
    axis.imshow(image, interpolation="nearest")
    axis.set_axis_off()
    data, size = parts.figure_png(figure, 60)
    drawn = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    assert size == (120, 120)
    assert np.abs(drawn - image).max() <= 5


class Note(Result):
    """A kind of result that a contributor adds."""

    def __init__(self, text):
        self.text = text

    def plot(self, *, use_pyplot=True):
        return self._draw(use_pyplot=use_pyplot)


class LongNote(Note):
    """Drawn as the kind that it is derived from."""


class NoteKind:
    """What draws it; the modules of ``pages/kinds`` are such objects, too."""

    @staticmethod
    def parts(note, whole=False):
        return "A note", [parts.paragraph(note.text if whole else f"{note.text:.9}")]

    @staticmethod
    def plot(note, *, use_pyplot):
        return note.text, use_pyplot


@pytest.mark.parametrize("kind", [Note, LongNote])
def test_a_further_kind_of_result_is_one_entry(kind, monkeypatch, tmp_path):
    monkeypatch.setitem(kinds.KINDS, "Note", NoteKind)
    note = kind(HOSTILE)
    assert "<b>A note</b>" in note._repr_html_()
    assert "<p>&lt;img src=" in note._repr_html_()
    path = note.to_html(tmp_path / "note.html")
    assert "onerror=alert(1)> &" in check(path.read_text(encoding="utf-8"), pictures=0).text
    assert note.plot(use_pyplot=False) == (HOSTILE, False)


def test_a_result_without_an_entry_is_refused():
    with pytest.raises(TypeError, match="nothing draws a Note: add the name of its class to KINDS"):
        Note("")._repr_html_()


def test_all_results_have_an_entry():
    public = [getattr(captum_classpattern, name) for name in captum_classpattern.__all__]
    names = {
        each.__name__ for each in public if isinstance(each, type) and issubclass(each, Result)
    }
    assert names == {name for name, kind in kinds.KINDS.items() if isinstance(kind, str)}
