"""``explore``: the widget is driven from Python, and compared with patterns and the classifier."""

import pickle
import sys
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal
from reports import Page
from surveyed import finding
from torch import nn

import captum_classpattern as cp
from captum_classpattern import LabelledImages, Pattern
from captum_classpattern.datasets.pixels import fit
from captum_classpattern.pages.explorer import IN_SEARCH, nearest, numbered
from captum_classpattern.pattern import AdditivePattern, image_hash
from captum_classpattern.surveys import Survey

pytest.importorskip("ipywidgets")

NAMES = ("ant", "bee", "cat")
IMAGES = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(30) % 3
HELD_OUT = LabelledImages(IMAGES, LABELS, NAMES)
HASHES = [image_hash(image) for image in IMAGES]
NINES = np.full((8, 8), 9, np.uint8)


def linear_net(channels=1, seed=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 3)).eval()


NET = linear_net()


def ranked(target=1, area=0.25, seed=2, channels=1, seen=frozenset()):
    """A pattern whose pixels all weigh something else; a quarter of them weigh nothing."""
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.rand(channels, 8, 8, generator=generator)
    weights = torch.randperm(64, generator=generator).view(1, 8, 8) / 63
    kept = weights * (weights > 0.24)
    return Pattern(canvas, kept, target, {"settings": {"area": area}}, seen)


def opened(results=None, model=NET, images=HELD_OUT, **changes):
    return cp.explore(ranked() if results is None else results, model, images, **changes)


def text_of(explorer):
    return " ".join(Page(explorer.panel.value).text.replace("\xa0", " ").split())


def pictures(explorer):
    """The pictures of the panel, by their alternative text."""
    images = [attrs for tag, attrs in Page(explorer.panel.value).tags if tag == "img"]
    return {image["alt"]: image["src"] for image in images}


def places_of(explorer):
    """Which of the images are offered."""
    return [HASHES.index(image_hash(example.image)) for example in explorer._examples]


def upload(explorer, name, content):
    """What the browser sends."""
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(file := BytesIO(), "png")
        content = file.getvalue()
    sent = {"name": name, "content": memoryview(content), "type": "", "size": len(content)}
    explorer.upload.value = ({**sent, "last_modified": datetime(2026, 1, 1)},)


def test_each_step_of_the_slider_stamps_the_highest_weights_and_classifies_one_image():
    sizes, seen = [], set()

    def counted(images):
        sizes.append(len(images))
        return NET(images)

    pattern, explorer = ranked(), opened(model=counted)
    steps = [kept for _, kept in explorer.area.options]
    assert (steps[0], steps[-1]) == (1, int((pattern.mask > 0).sum()))
    assert explorer.area.value == 16  # what was searched
    assert not explorer.area.continuous_update  # one step, when the slider is let go
    for kept in steps:
        sizes.clear()
        explorer.area.value = kept
        order = pattern.mask.flatten().argsort(descending=True)
        expected = explorer._example.image.clone().flatten()
        expected[order[:kept]] = pattern.canvas.flatten()[order[:kept]]
        assert torch.equal(explorer.stamped.flatten(), expected)
        assert int(explorer.pattern.mask.sum()) == kept
        seen.add(next(source for alt, source in pictures(explorer).items() if " with the " in alt))
        assert f"{kept} pixel" in explorer.area.label
        assert sizes == [1]
    assert len(seen) == len(steps)


def test_at_each_number_of_pixels_the_pattern_searched_next_above_is_cut():
    small, large = ranked(area=4 / 64, seed=5), ranked(area=0.5, seed=6)
    found = replace(finding(1, "white", 40), patterns={0.5: large, 4 / 64: small}, scores={})
    explorer = opened(found)
    assert explorer.area.value == 32
    for kept, source in ((3, small), (4, small), (5, large), (32, large), (40, large)):
        explorer.area.value = nearest([k for _, k in explorer.area.options], kept)
        assert torch.equal(explorer.pattern.mask, source.topk(explorer.area.value / 64).mask)
    for kept, said in (
        (2, "2 pixels, 3.12 %. The highest weights of the search at 6.25 %"),
        (4, "4 pixels, 6.25 %, as searched"),
    ):
        explorer.area.value = kept
        assert said in text_of(explorer)


@pytest.mark.parametrize("kept", [0, 3, 64])
def test_a_mask_of_zeros_and_ones_is_only_shown_as_it_is(kept):
    mask = (torch.arange(64) < kept).float().view(1, 8, 8)
    explorer = opened(Pattern(torch.rand(1, 8, 8), mask, 0))
    options = [value for _, value in explorer.area.options]
    assert (options, explorer.area.disabled) == ([kept], True)
    assert torch.equal(explorer.pattern.mask, mask)


def test_an_added_change_is_added():
    base, change = ranked(), torch.full((1, 8, 8), 0.5)
    added = AdditivePattern(base.canvas, base.mask, 1, base.info, change=change)
    explorer = opened(added)
    explorer.area.value = 1
    assert torch.equal(explorer.stamped, added.topk(1 / 64).stamp(explorer._example.image))


def test_predictions_are_those_of_the_classifier():
    explorer = opened()
    text = text_of(explorer)
    for shares in NET(torch.stack([explorer._example.image, explorer.stamped])).softmax(1).tolist():
        for name, share in zip(NAMES, shares):
            assert f"{name} {100 * share:.1f} %" in text
    with pytest.warns(cp.Notice, match="look like probabilities"):
        squashed = opened(model=nn.Sequential(NET, nn.Softmax(1)).eval())
    assert text_of(squashed) == text  # not squashed twice


def test_images_are_held_out_and_not_of_the_class_and_come_round():
    used = [1, 2, 4, 5, 6, 8]
    explorer = opened(ranked(seen=frozenset(HASHES[i] for i in used)))
    places = places_of(explorer)
    assert len(set(places)) == 8
    assert all(LABELS[i] != 1 and i not in used for i in places)
    assert {label.split()[0] for label, _ in explorer.image.options} == {"ant", "cat"}
    for i in [*places, places[0]]:
        assert torch.equal(explorer._example.image, IMAGES[i])
        explorer.next.click()
    assert "held-out image: " in text_of(explorer)
    assert "held-out image: " not in text_of(opened())  # nothing is known to be searched


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (frozenset(HASHES), "all 20 images of other classes were used to search these patterns"),
        (None, "the images that this pattern was searched on are unknown"),
    ],
)
def test_a_class_without_held_out_images_says_so(seen, why):
    explorer = opened([ranked(1), ranked(2, seed=4, seen=seen), ranked(0, seed=5)])
    explorer.target.value = 2
    for kept in (16, 1):
        explorer.area.value = kept
        assert "pattern of class 2" in text_of(explorer)
        assert why in text_of(explorer)
        assert (explorer.image.options, explorer.stamped) == ((), None)
    if seen is not None:
        upload(explorer, "own.png", NINES)
        assert "your image: own.png" in text_of(explorer)
    explorer.target.value = 0
    assert why not in text_of(explorer)
    assert len(explorer.image.options) == (8 if seen is None else 9)


def test_labels_are_predicted_or_numbered_by_the_names_of_the_model():
    predicted, model = NET(IMAGES).argmax(1), cp.PixelClassifier(NET, class_names=NAMES[::-1])
    for explorer, name_of in (
        (opened(images=IMAGES), lambda i: f"class {predicted[i]}"),
        (opened(model=model), lambda i: NAMES[LABELS[i]]),
    ):
        for i, example in zip(places_of(explorer), explorer._examples):
            assert example.name == name_of(i) != "class 1"


@pytest.mark.parametrize("channels", [1, 3])
def test_an_upload_is_resized_cropped_stamped_and_classified(channels):
    net = linear_net(channels)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    explorer = opened(ranked(channels=channels), net, torch.rand(9, channels, 8, 8))
    upload(explorer, "own.png", pixels)
    assert explorer.image.label == "own.png"
    assert "your image: own.png" in text_of(explorer)
    expected = fit(torch.from_numpy(pixels).permute(2, 0, 1), (8, 8), channels).float() / 255
    assert torch.equal(explorer._example.image, expected)
    assert torch.equal(explorer.stamped, explorer.pattern.stamp(expected))
    after = net(explorer.stamped[None]).detach().softmax(1)[0]
    assert f"{100 * float(after.max()):.1f} %" in text_of(explorer)


def test_an_upload_from_the_search_is_said_to_be_one():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = torch.from_numpy(pixels)[None].float() / 255
    explorer = opened([ranked(seen=frozenset([image_hash(image)])), ranked(2, seed=4)])
    assert IN_SEARCH not in text_of(explorer)
    for name in ("one.png", "two.png"):
        upload(explorer, name, pixels)
    assert IN_SEARCH in text_of(explorer)
    explorer.target.value = 2  # of a search without it
    assert [name for name, _ in explorer.image.options][-2:] == ["one.png", "two.png"]
    explorer.image.value = explorer.image.options[-1][1]
    assert "your image: two.png" in text_of(explorer)
    assert IN_SEARCH not in text_of(explorer)


def test_a_file_that_is_no_image_gives_a_message():
    explorer = opened()
    before = explorer.image.options
    upload(explorer, "<b>.txt", b"no image")
    assert "<b>.txt can't be read as an image" in text_of(explorer)
    assert "b" not in {tag for tag, _ in Page(explorer.panel.value).tags}
    assert "pattern of class 1" in text_of(explorer)  # below what was shown
    assert (len(pictures(explorer)), explorer.image.options) == (4, before)
    explorer.area.value = 1
    assert "can't be read" not in text_of(explorer)


def test_without_images_the_first_one_is_uploaded():
    explorer = opened(images=None)
    assert "no image to stamp" in text_of(explorer)
    explorer.area.value = 1
    assert explorer.stamped is None
    upload(explorer, "own.png", NINES)
    assert explorer.stamped.shape == (1, 8, 8)


def test_classes_and_canvases_are_offered():
    found = [finding(y, kind, 10 + y, class_name=NAMES[y]) for y in (0, 2) for kind in "xy"]
    explorer = opened(Survey(found))
    assert explorer.target.options == (("ant", 0), ("cat", 2))
    assert [name for name, _ in explorer.canvas.options] == ["x canvas", "y canvas"]
    explorer.canvas.value = 1
    assert (explorer.finding.target, explorer.finding.canvas) == (0, "y")
    explorer.target.value = 2
    assert (explorer.finding.target, explorer.finding.canvas) == (2, "x")
    assert all(example.name != "cat" for example in explorer._examples)
    found = [finding(1, kind, 40) for kind in ("canvas", "canvas of mine")]
    names = [name for name, _ in opened([*found, ranked()]).canvas.options]
    assert names == ["canvas canvas", "canvas of mine canvas", "canvas"]
    assert numbered(["ant", "bee", "ant"]) == ["ant 1", "bee", "ant 2"]


def test_scores_are_shown_where_they_were_measured():
    plain = finding(1, "white", 90, class_name="bee", n=200)
    patterns = {area: replace(p, mask=ranked().mask) for area, p in plain.patterns.items()}
    explorer = opened(replace(plain, patterns=patterns))
    assert explorer.area.value == 3  # 5 % of 64
    low, high = (100 * end for end in plain.scores[0.05].power.interval)
    for said in (
        "45.0 % of 200 held-out images of other classes become bee",
        f"(95 % interval {low:.1f}\N{EN DASH}{high:.1f}), above its controls",
        *("random pixels 2.0 %", "other canvas 3.0 %", "no pattern 0.5 %"),
    ):
        assert said in text_of(explorer)
    explorer.area.value = 9
    assert "was measured at 1 %, 5 % of the pixels, not here" in text_of(explorer)
    assert "45.0 %" not in text_of(explorer)
    assert [k for text, k in explorer.area.options if text.endswith("scored")] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [({"n": 60}, "too few images"), ({"control": 0.9}, "not above its controls")],
)
def test_the_verdict_is_that_of_the_scores_and_hostile_names_are_escaped(settings, verdict):
    hostile = "<img src=x onerror=alert(1)>"
    explorer = opened(replace(finding(1, "white", 40, **settings), class_name=hostile))
    assert verdict in text_of(explorer)
    assert hostile in text_of(explorer)
    assert all("onerror" not in attrs for _, attrs in Page(explorer.panel.value).tags)


def found_of(model, target=1, **settings):
    return cp.explain_class(model, IMAGES, LABELS, target, n_steps=2, **settings)


def surveyed(*classes):
    return cp.survey(NET, *HELD_OUT.halves(), classes=classes, areas=[0.1], n_steps=2)


def test_what_explain_class_returns_needs_nothing_else():
    found = found_of(NET, "bee", class_names=NAMES)
    held_out = {image_hash(image) for image in found.held_out.images}
    explorer = cp.explore(found)
    assert len(explorer.canvas.options) == 3
    assert explorer.target.options == (("bee", 1),)
    assert {example.name for example in explorer._examples} == {"ant", "cat"}
    whole = cp.explore(found, images=IMAGES, labels=LABELS)  # with those of the search
    for each in (explorer, whole):
        assert {HASHES[i] for i in places_of(each)} <= held_out
    assert cp.explore(found.others[0]).finding.canvas == found.others[0].canvas
    assert [target for _, target in cp.explore([found, ranked(2)]).target.options] == [1, 2]


def test_one_network_wrapped_twice_is_one_model():
    settings = {"mean": 0.5, "std": 0.5, "class_names": NAMES}
    found = [found_of(NET, target, **settings) for target in (0, 2)]
    assert found[0].model is not found[1].model
    assert cp.explore(found).target.options == (("ant", 0), ("cat", 2))
    first, other = found_of(NET), linear_net(seed=5)
    assert cp.explore([first, found_of(other)], other)._model is other
    assert cp.explore([surveyed(0), surveyed(2)])._model is NET


def test_findings_and_surveys_are_stored_without_model_and_images(tmp_path):
    found, survey = found_of(lambda x: NET(x)), surveyed(0, 2)
    explorer = cp.explore(survey)
    assert len(survey.finished) == 6  # it is searched first: two classes on three kinds of canvas
    assert [target for _, target in explorer.target.options] == [0, 2]
    assert survey.model is NET
    survey.save(tmp_path)
    for stored in (pickled := pickle.loads(pickle.dumps(found)), loaded := Survey.load(tmp_path)):
        assert stored.model is stored.held_out is None
    assert pickled.scores == found.scores
    assert torch.equal(cp.explore(loaded, NET, HELD_OUT).pattern.mask, explorer.pattern.mask)


def test_the_model_stays_as_it_was():
    net = linear_net().train()
    with pytest.warns(UserWarning, match="train mode"):
        opened(model=net).area.value = 1
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_notebook_shows_the_box():
    explorer = opened()
    shown = explorer._repr_mimebundle_(include=None, exclude=None)
    view = shown.pop("application/vnd.jupyter.widget-view+json")
    assert view["model_id"] == explorer.box.model_id
    assert shown == {
        "text/html": explorer.panel.value,  # where no widgets run
        "text/plain": "Explorer(class 1, canvas, 16 pixels, 25\xa0%)",
    }
    assert explorer.target.layout.display == explorer.canvas.layout.display == "none"  # one each
    assert not explorer.area.disabled


REFUSALS = {
    "a number": lambda: opened(3),
    "a text": lambda: opened("dog"),
    "a dict": lambda: opened({0.05: ranked()}),
    "an empty list": lambda: opened([]),
    "an empty survey": lambda: opened(Survey([])),
    "all images searched": lambda: opened(ranked(seen=frozenset(HASHES))),
    "unknown images": lambda: opened(ranked(seen=None)),
    "larger images": lambda: opened(images=torch.rand(4, 1, 9, 9)),
    "canvases of two shapes": lambda: opened([ranked(), ranked(channels=3)]),
    "a class that there is not": lambda: opened(ranked(5), images=None),
    "two channels": lambda: opened(ranked(channels=2), images=None),
    "no model": lambda: cp.explore(ranked()),
    "two models": lambda: cp.explore([found_of(NET), found_of(linear_net(seed=5))]),
    "two normalisations": lambda: cp.explore([found_of(NET, mean=0.5, std=s) for s in (0.25, 0.5)]),
    "no ipywidgets": opened,
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, snapshot, monkeypatch):
    if case == "no ipywidgets":
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert refusal(REFUSALS[case]) == snapshot
