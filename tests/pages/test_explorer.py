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


def linear_net(channels=1):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 3)).eval()


NET = linear_net()
HELD_OUT = LabelledImages(IMAGES, LABELS, NAMES)


def ranked(target=1, area=0.25, seed=2, channels=1, **info):
    """A pattern whose pixels all weigh something else; a quarter of them weigh nothing."""
    generator = torch.Generator().manual_seed(seed)
    canvas = torch.rand(channels, 8, 8, generator=generator)
    weights = torch.randperm(64, generator=generator).view(1, 8, 8) / 63
    kept = weights * (weights > 0.24)
    return Pattern(canvas, kept, target, {"settings": {"area": area}, **info})


def opened(results=None, model=NET, images=HELD_OUT, **changes):
    return cp.explore(ranked() if results is None else results, model, images, **changes)


def text_of(explorer):
    return Page(explorer.panel.value).text.replace("\xa0", " ")


def pictures(explorer):
    """The pictures of the panel, by their alternative text."""
    return {
        attributes["alt"]: attributes["src"]
        for tag, attributes in Page(explorer.panel.value).tags
        if tag == "img"
    }


def uploaded(name, content):
    """What the browser sends."""
    file = {"name": name, "content": memoryview(content), "type": "", "size": len(content)}
    return ({**file, "last_modified": datetime(2026, 1, 1)},)


def png_bytes(pixels):
    written = BytesIO()
    Image.fromarray(pixels).save(written, "png")
    return written.getvalue()


# ---- the slider


def test_the_slider_stamps_exactly_the_pixels_of_the_highest_weights():
    pattern, explorer = ranked(), opened()
    steps = [kept for _, kept in explorer.area.options]
    assert (steps[0], steps[-1]) == (1, int((pattern.mask > 0).sum()))
    assert explorer.area.value == 16  # what was searched
    for kept in steps:
        explorer.area.value = kept
        order = pattern.mask.flatten().argsort(descending=True)
        expected = explorer._example.image.clone().flatten()
        expected[order[:kept]] = pattern.canvas.flatten()[order[:kept]]
        assert torch.equal(explorer.stamped.flatten(), expected)
        assert int(explorer.pattern.mask.sum()) == kept


def test_every_step_has_another_picture_of_pattern_and_stamped_image():
    explorer, seen = opened(), set()
    for _, kept in explorer.area.options:
        explorer.area.value = kept
        shown = pictures(explorer)
        [stamped] = [source for alt, source in shown.items() if "with the pattern" in alt]
        seen.add(stamped)
        assert f"{kept} pixel" in explorer.area.label
    assert len(seen) == len(explorer.area.options)


def test_at_each_number_of_pixels_the_pattern_searched_next_above_is_cut():
    small, large = ranked(area=4 / 64, seed=5), ranked(area=0.5, seed=6)
    found = replace(finding(1, "white", 40), patterns={0.5: large, 4 / 64: small}, scores={})
    explorer = opened(found)
    assert explorer.area.value == 32
    for kept, source in ((3, small), (4, small), (5, large), (32, large), (40, large)):
        explorer.area.value = nearest([k for _, k in explorer.area.options], kept)
        assert torch.equal(explorer.pattern.mask, source.topk(explorer.area.value / 64).mask)
    explorer.area.value = 2
    assert "2 pixels, 3.12 %. The highest weights of the search at 6.25 %" in text_of(explorer)
    explorer.area.value = 4
    assert "4 pixels, 6.25 %, as searched" in text_of(explorer)


@pytest.mark.parametrize("kept", [0, 3, 64])
def test_a_mask_of_zeros_and_ones_is_only_shown_as_it_is(kept):
    mask = (torch.arange(64) < kept).float().view(1, 8, 8)
    explorer = opened(Pattern(torch.rand(1, 8, 8), mask, 0))
    assert [value for _, value in explorer.area.options] == [kept]
    assert explorer.area.disabled
    assert torch.equal(explorer.pattern.mask, mask)


class Counting(nn.Module):
    """The net; it counts the images that it sees."""

    def __init__(self):
        super().__init__()
        self.net, self.seen = NET, 0
        self.eval()

    def forward(self, images):
        self.seen += len(images)
        return self.net(images)


def test_a_step_of_the_slider_classifies_only_the_stamped_image():
    model = Counting()
    explorer = opened(model=model)
    assert not explorer.area.continuous_update  # one step, when the slider is let go
    for step, change in enumerate((1, 4, 9)):
        before = model.seen
        explorer.area.value = change
        assert model.seen == before + 1, step
    before = model.seen
    assert explorer.stamped is not None
    assert model.seen == before


def test_an_added_change_is_added():
    base = ranked()
    change = torch.full((1, 8, 8), 0.5)
    added = AdditivePattern(base.canvas, base.mask, 1, base.info, change=change)
    explorer = opened(added)
    explorer.area.value = 1
    expected = added.topk(1 / 64).stamp(explorer._example.image)
    assert torch.equal(explorer.stamped, expected)


# ---- images and predictions


def test_predictions_are_those_of_the_classifier():
    explorer = opened()
    image = explorer._example.image
    before, after = NET(torch.stack([image, explorer.stamped])).softmax(1).detach()
    text = text_of(explorer)
    for shares in (before, after):
        for name, share in zip(NAMES, shares.tolist()):
            assert f"{name} {100 * share:.1f} %" in " ".join(text.split())


def test_images_are_held_out_and_not_of_the_class():
    used = [1, 2, 4, 5, 6, 8]
    seen = frozenset(image_hash(IMAGES[i]) for i in used)
    explorer = opened(replace(ranked(), seen=seen))
    places = [
        next(i for i in range(30) if torch.equal(IMAGES[i], example.image))
        for example in explorer._examples
    ]
    assert len(set(places)) == 8
    assert all(LABELS[i] != 1 and i not in used for i in places)
    labels = [name for name, _ in explorer.image.options]
    assert {label.split()[0] for label in labels} == {"ant", "cat"}
    assert "held-out image: " in text_of(explorer)
    assert "held-out image: " not in text_of(opened())  # it is not known what was searched
    with pytest.raises(ValueError, match="all 20 images of other classes were used to search"):
        opened(replace(ranked(), seen=frozenset(map(image_hash, IMAGES))))
    with pytest.raises(
        ValueError, match="the images that this pattern was searched on are unknown"
    ):
        opened(replace(ranked(), seen=None))


def test_a_class_whose_images_were_all_used_says_so():
    used = frozenset(map(image_hash, IMAGES))
    explorer = opened([ranked(1), replace(ranked(2, seed=4), seen=used), ranked(0, seed=5)])
    explorer.target.value = 2
    assert "pattern of class 2" in text_of(explorer)
    assert "all 20 images of other classes were used to search" in text_of(explorer)
    assert explorer.image.options == ()
    assert explorer.stamped is None
    explorer.area.value = 1
    assert "all 20 images of other classes were used to search" in text_of(explorer)
    explorer.upload.value = uploaded("own.png", png_bytes(np.full((8, 8), 9, np.uint8)))
    assert "your image: own.png" in text_of(explorer)
    explorer.target.value = 0
    assert "were used to search" not in text_of(explorer)
    assert len(explorer.image.options) == 9


def test_a_class_whose_searched_images_are_unknown_says_so():
    explorer = opened([ranked(1), replace(ranked(2, seed=4), seen=None)])
    explorer.target.value = 2
    text = text_of(explorer)
    assert "pattern of class 2" in text
    assert "the images that this pattern was searched on are unknown" in text
    assert explorer.image.options == ()


def test_next_image_comes_back_to_the_first():
    explorer, shown = opened(), []
    for _ in range(9):
        shown.append(explorer.stamped)
        explorer.next.click()
    assert torch.equal(shown[8], shown[0])
    assert not any(torch.equal(shown[0], other) for other in shown[1:8])


def test_images_without_labels_get_the_predicted_ones():
    explorer = opened(images=IMAGES)
    predicted = NET(IMAGES).argmax(1)
    for example in explorer._examples:
        [i] = [i for i in range(30) if torch.equal(IMAGES[i], example.image)]
        assert predicted[i] != 1
        assert example.name == f"class {int(predicted[i])}"


def test_a_net_that_returns_probabilities_is_not_squashed_twice():
    probabilities = nn.Sequential(NET, nn.Softmax(1)).eval()
    with pytest.warns(cp.Notice, match="look like probabilities"):
        explorer = opened(model=probabilities)
    assert text_of(explorer) == text_of(opened())


# ---- an image of one's own


@pytest.mark.parametrize("channels", [1, 3])
def test_an_upload_is_resized_cropped_stamped_and_classified(channels):
    net = linear_net(channels)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    explorer = opened(ranked(channels=channels), net, torch.rand(9, channels, 8, 8))
    explorer.upload.value = uploaded("own.png", png_bytes(pixels))
    assert explorer.image.label == "own.png"
    assert "your image: own.png" in text_of(explorer)
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = fit(whole, (8, 8), channels).float() / 255
    assert torch.equal(explorer._example.image, expected)
    assert torch.equal(explorer.stamped, explorer.pattern.stamp(expected))
    after = net(explorer.stamped[None]).detach().softmax(1)[0]
    assert f"{100 * float(after.max()):.1f} %" in text_of(explorer)
    assert IN_SEARCH not in text_of(explorer)


def test_several_uploads_stay_when_the_class_changes():
    explorer = opened([ranked(1), ranked(2, seed=4)])
    for name in ("one.png", "two.png"):
        explorer.upload.value = uploaded(name, png_bytes(np.full((8, 8), 9, np.uint8)))
    explorer.target.value = 2
    labels = [name for name, _ in explorer.image.options]
    assert labels[-2:] == ["one.png", "two.png"]


def test_an_upload_from_the_search_is_said_to_be_one():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = torch.from_numpy(pixels)[None].float() / 255
    searched = replace(ranked(), seen=frozenset([image_hash(image)]))
    explorer = opened([searched, ranked(2, seed=4)])
    assert IN_SEARCH not in text_of(explorer)
    explorer.upload.value = uploaded("own.png", png_bytes(pixels))
    assert IN_SEARCH in text_of(explorer)
    explorer.target.value = 2  # of a search without it
    explorer.image.value = explorer.image.options[-1][1]
    assert explorer.image.label == "own.png"
    assert IN_SEARCH not in text_of(explorer)


def test_a_file_that_is_no_image_gives_a_message():
    explorer = opened()
    before = explorer.image.options
    explorer.upload.value = uploaded("<b>.txt", b"no image")
    assert "<b>.txt can't be read as an image" in text_of(explorer)
    assert "pattern of class 1" in text_of(explorer)  # below what was shown
    assert len(pictures(explorer)) == 4
    assert explorer.image.options == before
    assert "b" not in {tag for tag, _ in Page(explorer.panel.value).tags}
    explorer.area.value = 1
    assert "can't be read" not in text_of(explorer)


def test_without_images_the_first_one_is_uploaded():
    explorer = opened(images=None)
    assert explorer.stamped is None
    assert "no image to stamp" in text_of(explorer)
    explorer.area.value = 1
    explorer.upload.value = uploaded("own.png", png_bytes(np.full((9, 9), 9, np.uint8)))
    assert explorer.stamped.shape == (1, 8, 8)


# ---- classes, canvases and scores


def surveyed():
    return [finding(y, kind, 10 + y, class_name=NAMES[y]) for y in (0, 2) for kind in "xy"]


def test_classes_and_canvases_are_offered():
    explorer = opened(Survey(surveyed()))
    assert explorer.target.options == (("ant", 0), ("cat", 2))
    assert [name for name, _ in explorer.canvas.options] == ["x canvas", "y canvas"]
    explorer.canvas.value = 1
    assert (explorer.finding.target, explorer.finding.canvas) == (0, "y")
    explorer.target.value = 2
    assert (explorer.finding.target, explorer.finding.canvas) == (2, "x")
    assert all(example.name != "cat" for example in explorer._examples)
    assert "pattern of cat" in text_of(explorer)


def test_a_kind_of_canvas_may_have_any_name():
    found = [finding(1, kind, 40) for kind in ("canvas", "canvas of mine")]
    explorer = opened([*found, ranked()])
    names = [name for name, _ in explorer.canvas.options]
    assert names == ["canvas canvas", "canvas of mine canvas", "canvas"]


def test_one_class_on_one_canvas_offers_no_choice():
    explorer = opened()
    assert explorer.target.layout.display == explorer.canvas.layout.display == "none"
    assert not explorer.area.disabled


def test_no_class_is_an_error():
    for nothing in ([], Survey([])):
        with pytest.raises(ValueError, match="results have no patterns: give a search that found"):
            opened(nothing)


def test_scores_are_shown_where_they_were_measured():
    weights = ranked().mask
    plain = finding(1, "white", 90, class_name="bee", n=200)
    patterns = {area: replace(each, mask=weights) for area, each in plain.patterns.items()}
    explorer = opened(replace(plain, patterns=patterns))
    assert explorer.area.value == 3  # 5 % of 64
    text = text_of(explorer)
    low, high = (100 * end for end in plain.scores[0.05].power.interval)
    assert "45.0 % of 200 held-out images of other classes become bee" in text
    assert f"(95 % interval {low:.1f}\N{EN DASH}{high:.1f}), above its controls" in text
    rows = " ".join(text.split())
    for row in ("random pixels 2.0 %", "other canvas 3.0 %", "no pattern 0.5 %"):
        assert row in rows
    explorer.area.value = 9
    assert "was measured at 1 %, 5 % of the pixels, not here" in text_of(explorer)
    assert "45.0 %" not in text_of(explorer)
    assert [k for text, k in explorer.area.options if text.endswith("scored")] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [({"n": 60}, "too few images"), ({"control": 0.9}, "not above its controls")],
)
def test_the_verdict_is_that_of_the_scores(settings, verdict):
    assert verdict in text_of(opened(finding(1, "white", 40, **settings)))


def test_hostile_names_are_escaped():
    hostile = "<img src=x onerror=alert(1)>"
    results = replace(finding(1, "white", 40), class_name=hostile)
    page = Page(opened(results).panel.value)
    assert hostile in page.text
    assert all("onerror" not in attributes for _, attributes in page.tags)


# ---- what results bring along


def test_what_explain_class_returns_needs_nothing_else():
    found = cp.explain_class(NET, IMAGES, LABELS, "bee", class_names=NAMES, n_steps=2)
    explorer = cp.explore(found)
    assert len(explorer.canvas.options) == 3
    assert explorer.target.options == (("bee", 1),)
    held_out = {image_hash(image) for image in found.held_out.images}
    assert {image_hash(example.image) for example in explorer._examples} <= held_out
    assert {example.name for example in explorer._examples} == {"ant", "cat"}
    assert cp.explore(found.others[0]).finding.canvas == found.others[0].canvas
    several = cp.explore([found, ranked(2)])
    assert [target for _, target in several.target.options] == [1, 2]
    whole = cp.explore(found, images=IMAGES, labels=LABELS)  # with those of the search
    assert {image_hash(example.image) for example in whole._examples} <= held_out


def found_of(model, target=1, **settings):
    return cp.explain_class(model, IMAGES, LABELS, target, n_steps=2, **settings)


def test_results_of_two_models_need_a_model():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    first, second = found_of(NET), found_of(other)
    with pytest.raises(ValueError, match="are of 2 models: explore one model at a time, or give"):
        cp.explore([first, second])
    assert cp.explore([first, second], other)._model is other
    normalised = found_of(NET, mean=0.5, std=0.5)
    with pytest.raises(ValueError, match="are of 2 models"):
        cp.explore([found_of(NET, mean=0.5, std=0.25), normalised])


def test_one_network_wrapped_twice_is_one_model():
    settings = {"mean": 0.5, "std": 0.5, "class_names": NAMES}
    found = [found_of(NET, target, **settings) for target in (0, 2)]
    assert found[0].model is not found[1].model
    explorer = cp.explore(found)
    assert explorer.target.options == (("ant", 0), ("cat", 2))
    surveys = [cp.survey(NET, *HELD_OUT.halves(), classes=[y], n_steps=2) for y in (0, 2)]
    assert cp.explore(surveys)._model is NET


def test_a_finding_is_pickled_without_model_and_images():
    found = cp.explain_class(lambda x: NET(x), IMAGES, LABELS, 1, n_steps=2)
    loaded = pickle.loads(pickle.dumps(found))
    assert loaded.model is loaded.held_out is None
    assert loaded.scores == found.scores


def test_a_survey_is_searched_first_and_needs_nothing_else():
    halves = HELD_OUT.halves()
    survey = cp.survey(NET, *halves, classes=[0, 2], areas=[0.1], n_steps=2)
    explorer = cp.explore(survey)
    assert len(survey.finished) == 6  # two classes on three kinds of canvas
    assert [target for _, target in explorer.target.options] == [0, 2]
    assert survey.model is NET


def test_a_loaded_survey_needs_a_model(tmp_path):
    survey = cp.survey(NET, *HELD_OUT.halves(), classes=[0], areas=[0.1], n_steps=2)
    survey.save(tmp_path)
    loaded = Survey.load(tmp_path)
    assert loaded.model is loaded.held_out is None
    with pytest.raises(ValueError, match=r"`model` is missing.*call explore\(results, model, im"):
        cp.explore(loaded)
    explorer = cp.explore(loaded, NET, HELD_OUT)
    assert torch.equal(explorer.pattern.mask, cp.explore(survey).pattern.mask)


def test_folders_are_numbered_by_the_names_of_the_model():
    model = cp.PixelClassifier(NET, class_names=["cat", "bee", "ant"])
    explorer = opened(model=model)
    for example in explorer._examples:
        [i] = [i for i in range(30) if torch.equal(IMAGES[i], example.image)]
        assert example.name == NAMES[LABELS[i]]


# ---- what does not fit


def test_what_is_no_result_is_an_error():
    for wrong in (3, "dog", {0.05: ranked()}):
        with pytest.raises(TypeError, match="results must be a Survey, a Finding, a Pattern or a"):
            opened(wrong)


def test_patterns_and_images_must_fit():
    with pytest.raises(ValueError, match="canvases and images must be of one shape"):
        opened(images=torch.rand(4, 1, 9, 9))
    with pytest.raises(ValueError, match="canvases and other canvases must be of one shape"):
        opened([ranked(), ranked(channels=3)])
    with pytest.raises(ValueError, match="target 5 is out of range: the model has 3 classes"):
        opened(ranked(5), images=None)
    with pytest.raises(ValueError, match="only greyscale and colour images"):
        opened(ranked(channels=2), images=None)


def test_the_extra_is_named_where_ipywidgets_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"pip install 'captum_classpattern\[explore\]'"):
        opened()


def test_the_model_stays_as_it_was():
    net = linear_net().train()
    with pytest.warns(UserWarning, match="train mode"):
        explorer = opened(model=net)
    with pytest.warns(UserWarning, match="train mode"):
        explorer.area.value = 1
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_notebook_shows_the_box():
    explorer = opened()
    shown = explorer._repr_mimebundle_(include=None, exclude=None)
    view = shown["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.box.model_id
    assert shown["text/html"] == explorer.panel.value  # where no widgets run
    assert shown["text/plain"] == "Explorer(class 1, canvas, 16 pixels, 25\xa0%)"


def test_names_that_occur_twice_get_numbers():
    assert numbered(["ant", "bee", "ant"]) == ["ant 1", "bee", "ant 2"]
