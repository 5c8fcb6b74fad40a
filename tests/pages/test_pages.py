"""What a notebook and a page show of patterns, powers, findings and surveys: their numbers, and
names as texts."""

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from shown import DATA, HOSTILE, cells_of, check, read
from surveyed import finding

from captum_classpattern import Pattern
from captum_classpattern.pages import parts
from captum_classpattern.results import Result, as_table
from captum_classpattern.scores.examples import StampedImages
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Survey
from captum_classpattern.visualization.drawing import on_neutral
from captum_classpattern.visualization.style import NO_PIXEL


def pixels(page, place=0):
    """A picture of a page, as bytes (H, W, C)."""
    source = [attributes["src"] for tag, attributes in page.tags if tag == "img"][place]
    return np.asarray(Image.open(BytesIO(b64decode(source.removeprefix(DATA)))).convert("RGB"))


def levels(image):
    return (255 * image).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()


def pattern(channels=3, side=8, **info):
    generator = torch.Generator().manual_seed(0)
    canvas, mask = torch.rand(channels, side, side, generator=generator), torch.zeros(1, side, side)
    mask[0, 2:4, 3:5] = 1
    return Pattern(canvas, mask, 1, info)


def examples(n=2):
    images = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return StampedImages(images, ("cat", HOSTILE), (0, 1), ("cat", "dog"), (0.25, 0.5))


def survey(classes, **settings):
    return Survey(
        [
            finding(y, canvas, 10 + y, search_power=power, class_name=f"pet {y}", **settings)
            for y in range(classes)
            for canvas, power in (("positive", 0.5), ("white", 0.9 if y % 2 else 0.1))
        ],
        classes,
    )


@pytest.mark.parametrize(
    ("channels", "side", "factor"), [(1, 8, 16), (3, 28, 4), (3, 64, 2), (3, 224, 1)]
)
def test_a_small_picture_is_enlarged_by_a_whole_number(channels, side, factor):
    image = torch.rand(channels, side, side)
    drawn = pixels(check(parts.picture(image, "canvas")))
    assert (drawn == levels(image).repeat(factor, 0).repeat(factor, 1)).all()


def test_a_large_picture_is_reduced_to_its_mean_colours():
    image = torch.zeros(3, 448, 224)
    image[:, 224:] = 1
    drawn = pixels(check(parts.picture(image, "canvas", most=112)))
    assert drawn.shape == (112, 56, 3)
    assert (drawn[:50] == 0).all()
    assert (drawn[62:] == 255).all()


def test_a_pattern_lies_on_a_ground_that_is_neither_black_nor_white():
    shown = pattern().canvas, pattern().mask
    drawn = pixels(check(parts.pattern_picture(*shown, "pattern")))[::16, ::16]
    assert (drawn == levels(on_neutral(*shown))).all()
    assert np.abs(drawn[0, 0] - 255 * np.array(NO_PIXEL)).max() <= 1


def test_arguments_in_texts_are_code_on_a_page():
    weak = finding(1, "white", 1, n=200)
    page = read(weak)
    assert "`" not in page.text
    codes = re.findall("<code>(.*?)</code>", weak._repr_html_())
    assert {"canvases=&#39;patch&#39;", "area", "budget", "seed"} <= {*codes}


PHOTO = Pattern(torch.rand(3, 224, 224), torch.rand(1, 224, 224), 1, {}).topk(0.05)
LINEAR = torch.linspace(0, 1, 64).view(1, 8, 8)
DOG = finding(1, "white", 90, class_name="dog", n=200)
CHECKED = replace(DOG, accuracy=0.875)
OF_A_FILE = Survey(survey(2).findings, 2, info={"provenance": {"source": "a<b>.pt"}})
KINDS = {  # one of each kind, with the number of pictures
    "a pattern": (pattern(class_name="dog", search_power=0.5), 1),
    "a power": (power_of(90, 200, 4), 1),
    "a finding": (
        replace(DOG, others=(finding(1, "positive", 2, n=200),), stamped={0.05: examples()}), 6,
    ),
    "a survey": (OF_A_FILE, 6),
}  # fmt: skip
SHOWN = {  # with the number of pictures, and some words
    "a weighted pattern": (
        Pattern(torch.ones(1, 8, 8), LINEAR, 0),
        1,
        "50 % of the 64 pixels; 63 pixels have a weight",
    ),
    "a photo of noise, which compresses worst": (PHOTO, 1, "5 % of the 50,176 pixels."),
    "four channels": (pattern(channels=4), 0, "got canvases of (4, 8, 8)"),
    "few images": (finding(1, "white", 40, n=60), 2, "too few images"),
    "known images": (CHECKED, 2, "Images and settings accuracy 87.5 %"),
}


@pytest.mark.parametrize("case", KINDS)
def test_what_a_notebook_and_a_page_show(case, snapshot, tmp_path):
    result, pictures = KINDS[case]
    page = read(result, pictures=pictures)
    assert "\n".join(page.prose) == snapshot
    rows = [row[2:4] + row[6:] for table in page.tables.values() for row in table[1:]]
    findings = [result, *result.others] if hasattr(result, "others") else ()
    findings = findings or getattr(result, "findings", ())
    assert rows == [cells_of(scores) for each in findings for scores in each.scores.values()]
    path = result.to_html(tmp_path / "page.html")
    assert page.text in check(path.read_text(encoding="utf-8")).text
    assert path.read_bytes() == result.to_html(tmp_path / "again.html").read_bytes()


@pytest.mark.parametrize("case", SHOWN)
def test_what_else_is_shown(case):
    result, pictures, words = SHOWN[case]
    text = read(result, pictures=pictures).text
    assert words in text, text


def test_a_finding_shows_all_its_canvases():
    """A page has the one first that did best, which its text is about. Figures and the repr have
    the positive one first."""
    kinds = {"black": 40, "noise": 70, "white": 90, "positive": 2}  # the last is not above controls
    white, *others = (finding(1, kind, n, n=200) for kind, n in sorted(kinds.items(), reverse=True))
    found = replace(white, others=tuple(others))
    order = ["positive", "white", "black", "noise"]
    assert [each.canvas for each in found.on_each_canvas] == order
    page, powers = read(found, pictures=8), [f"{kinds[kind] / 2:.1f} %" for kind in order]
    ranked = [each.canvas for each in (found, *others)]
    start = [page.text.index(f"{kind.capitalize()} canvas") for kind in ranked]
    assert start == sorted(start)
    for kind, part in zip(ranked, map(slice, start, [*start[1:], None])):
        assert f"{kinds[kind] / 2:.1f} %" in page.text[part]
        assert ("not above it" in page.text[part]) == (kind == "positive")
    assert "pixels of a white canvas" in page.text
    assert page.text.count("Best on the validation images") == 1
    assert page.text.index("Best on the validation") < start[1]
    assert re.findall(r"(\w+) canvas (\S+ %)", repr(found).split(";")[1]) == [*zip(order, powers)]
    figure, axes = found.plot(use_pyplot=False)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == [f"{kind}\ncanvas" for kind in order]
    texts = [axis.texts[0].get_text() for axis in axes[:, -1]]
    assert texts == [power.replace(" ", "\xa0") for power in powers]
    weights = [axis.texts[0].get_fontweight() for axis in axes[:, -1]]
    assert weights == ["normal", "bold", "bold", "bold"]
    assert figure.get_supxlabel() == "grey: not above its controls"


def test_the_numbers_of_a_power():
    power = power_of(90, 200, 4)
    [row] = power.table().to_dict("records")
    low, high = power.interval
    assert row == {
        "power": 0.45, "low": low, "high": high, "no_pattern": 0.02, "images": 200,
        "top5": None, "mean_margin": None,
    }  # fmt: skip
    _, [axis] = power.plot(use_pyplot=False)
    assert [text.get_text() for text in axis.texts] == ["45.0\xa0%", "no pattern 2.0\xa0%"]


def test_a_survey_shows_the_best_canvas_of_each_class_and_of_many_the_strongest(tmp_path):
    page = read(survey(4))
    others = ["positive", "white"] * 2
    for y, canvas in enumerate(others[::-1]):  # the strongest first
        power = f"{13 - y}.0 %"
        assert f"pet {3 - y} {canvas.capitalize()} canvas {power}" in page.text
        assert f"{others[y]}: {power}" in page.text  # the other canvas is not hidden
    page = read(survey(25), pictures=20 * 3)
    assert "The 20 strongest of 25 classes are shown" in page.text
    [(_, *rows)] = page.tables.values()
    assert {row[1] for row in rows} == {f"pet {y}" for y in range(5, 25)}
    assert len(rows) == 20 * 2 * 2
    written = survey(105, n=200).to_html(tmp_path / "survey.html").read_text(encoding="utf-8")
    [(_, *rows)] = check(written, pictures=100 * 3).tables.values()
    assert {row[1] for row in rows} == {f"pet {y}" for y in range(105)}
    assert len(rows) == 105 * 2 * 2


def test_hostile_names_are_escaped(tmp_path):
    plain, hostile = (
        replace(finding(1, "white", 90, class_name=name), stamped={0.05: examples()})
        for name in ("dog", HOSTILE)
    )
    for one, other in (
        (hostile, plain),
        (hostile.pattern, plain.pattern),
        (Survey([hostile]), Survey([plain])),
    ):
        page = read(one)
        assert [tag for tag, _ in page.tags] == [tag for tag, _ in read(other).tags]
        assert "<img src=x onerror=alert(1)> & \"'\N{LATIN SMALL LETTER E WITH ACUTE}" in page.text
        check(one.to_html(tmp_path / "page.html").read_text(encoding="utf-8"))


class Note(Result):
    """A kind of result that a contributor adds."""

    def text(self):
        return f"A note\n{HOSTILE}"

    def table(self):
        return as_table([{"power": 0.25, "low": 0.2, "high": 0.375, "class_name": HOSTILE}])

    def plot(self, *, use_pyplot=True):
        return pattern().plot(use_pyplot=use_pyplot)


class LongNote(Note):
    """One whose page has more, and no figure."""

    def sections(self, whole):
        return [pattern(channels=2).plot, parts.heading("More"), "Only a page says this." * whole]


class ShortNote(Note):
    """One with a text alone, as a survey that has found nothing."""

    def sections(self, whole):
        return []


def test_a_further_kind_of_result_is_one_class(tmp_path):
    page = read(Note(), pictures=1)
    assert page.text.startswith("A note")
    assert list(page.tables.values()) == [
        [["power", "class name"], ["0.25 (0.2 to 0.375)", HOSTILE[:-1] + "\ufffd"]]
    ]
    path = Note().to_html(tmp_path / "note.html")
    assert page.text in check(path.read_text(encoding="utf-8"), pictures=1).text
    page = read(LongNote(), pictures=0)
    assert "only greyscale and colour images" in page.text
    path = LongNote().to_html(tmp_path / "note.html")
    assert "Only a page says this" not in page.text
    assert "Only a page says this" in path.read_text(encoding="utf-8")
    assert read(ShortNote(), pictures=0).text.startswith("A note")
