"""What is measured besides predictive power."""

from dataclasses import asdict
from statistics import mean

import pytest
import torch
from comparisons import (
    CANVASES,
    LABELS,
    SEARCH,
    TARGETS,
    Searching,
    compared,
    from_function,
    plain_mask,
)

from captum_classpattern import Pattern
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.comparison.task import images_of_classes
from captum_classpattern.images import LabelledImages
from captum_classpattern.scores.localisation import localise
from captum_classpattern.scores.shape import simplicity

ROW = torch.zeros(1, 6, 6)
ROW[0, 1] = 1
TRIGGER = Pattern(torch.ones(3, 6, 6), ROW, 1)


SIMPLICITY = ("total_variation", "high_frequency_share", "components")


def localisation(record):
    names = ("iou", "average_precision", "pointing_game", "relevance_mass", "relevance_rank")
    return {name: record.scores[name] for name in names}


def iou(one, other):
    return float((one & other).sum() / (one | other).sum())


def searched(canvas, area, seed):
    """The map of ``Searching``."""
    return CANVASES[canvas].double().sum(0).roll(round(area * 36) + seed, -1)


def test_simplicity_is_that_of_the_mask():
    for record in compared().records:
        assert {name: record.scores[name] for name in SIMPLICITY} == asdict(
            simplicity(record.masks[0.1].float())
        )


@pytest.mark.parametrize("n_seeds", [1, 2, 3])
def test_stability_over_seeds_is_the_mean_of_all_pairs(n_seeds):
    comparison = compared(methods={"Searching": Searching}, n_seeds=n_seeds, seed=2)
    for record in comparison.records:
        masks = [plain_mask(searched(record.canvas, 0.1, 2 + i), 0.1) for i in range(n_seeds)]
        pairs = [iou(masks[i], masks[j]) for i in range(n_seeds) for j in range(i)]
        if n_seeds == 1:
            assert "stability_seeds" not in record.scores
        else:
            assert record.scores["stability_seeds"] == pytest.approx(mean(pairs))
            assert record.scores["stability_seeds"] < 1


def test_a_method_without_chance_is_stable_over_seeds():
    for record in compared().records:
        assert record.score("stability_seeds") == (1.0 if record.level == "image" else None)
    random = compared(methods={"RandomPixels": RandomPixels})
    assert all(record.scores["stability_seeds"] < 0.5 for record in random.records)


def test_stability_over_canvases_is_with_the_other_image_of_the_class():
    comparison = compared(
        methods={"m": from_function(lambda images, targets: images)}, class_images=3
    )
    search = LabelledImages.of(SEARCH, LABELS, argument="baselines")
    _, others = images_of_classes(search, CANVASES, TARGETS, count=3, seed=0)
    for record in comparison.select(level="image", ranking="signed"):
        other = others[record.target].double().sum(0)
        assert not any(torch.equal(others[record.target], canvas) for canvas in CANVASES)
        expected = iou(record.masks[0.1][0], plain_mask(other, 0.1))
        assert record.scores["stability_seeds"] == 1.0
        assert record.scores["stability_canvases"] == pytest.approx(expected)


def test_localisation_of_an_image_is_the_mean_over_seeds():
    comparison = compared(methods={"Random": RandomPixels}, n_seeds=3, triggers={"linear": TRIGGER})
    for record in comparison.select(target=1, kind="canvas"):
        draws = [
            torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(seed))[:, 0]
            for seed in range(3)
        ]  # 4 canvases and 2 stamped ones; other seeds see the first 4 alone
        found = [asdict(localise(draw[record.canvas].double(), ROW > 0)) for draw in draws]
        expected = {name: mean(one[name] for one in found) for name in found[0]}
        assert localisation(record) == pytest.approx(expected)
    for record in comparison.select(kind="stamped"):
        assert localisation(record) == asdict(localise(record.map, ROW > 0))


def test_localisation_of_a_search_is_at_the_triggers_area():
    comparison = compared(methods={"S": Searching}, n_seeds=2, triggers={"linear": TRIGGER})
    for record in comparison.select(target=1, kind="canvas"):
        found = [
            asdict(localise(searched(record.canvas, 6 / 36, seed), ROW > 0)) for seed in (0, 1)
        ]
        expected = {name: mean(one[name] for one in found) for name in found[0]}
        assert localisation(record) == pytest.approx(expected)
    assert len(comparison.select(target=1)) == 4


@pytest.mark.parametrize("ranking", ["signed", "absolute"])
def test_each_ranking_is_localised_by_itself(ranking):
    comparison = compared(
        methods={"minus": from_function(lambda images, targets: -ROW.expand_as(images).clone())},
        triggers={"linear": TRIGGER},
    )
    records = [r for r in comparison.select(ranking=ranking) if "iou" in r.scores]
    assert {r.scores["iou"] for r in records} == {1.0 if ranking == "absolute" else 0.0}
    assert {r.level for r in records} == {"image", "class"}
    for record in comparison.select(ranking=ranking):
        assert record.map.min() == -1  # in each of its equal channels, whatever the ranking
        strongest = record.masks[0.1][0] & (ROW[0] > 0)
        assert int(strongest.sum()) == (4 if ranking == "absolute" else 0)


def test_maps_without_negative_values_have_no_absolute_ranking():
    both = compared(
        methods={"plus": from_function(lambda i, t: i), "minus": from_function(lambda i, t: -i)}
    )
    found = {(r.method, r.ranking) for r in both.records}
    assert found == {("plus", "signed"), ("minus", "signed"), ("minus", "absolute")}


def test_the_mean_over_stamped_canvases_is_their_class_map():
    comparison = compared(
        methods={"m": from_function(lambda i, t: i)}, triggers={"linear": TRIGGER}
    )
    images = comparison.stamped["linear"].double().sum(1).mean(0)
    records = comparison.select(kind="stamped", level="class")
    assert [r.canvas for r in records] == [4, 5]
    for record in records:
        torch.testing.assert_close(record.map, images)


def test_passes_and_seconds_are_those_of_one_map():
    for record in compared(triggers={"linear": TRIGGER}).records:
        of_image = record.level == "image"
        assert record.score("passes") == (1 if of_image else None)
        assert ("seconds" in record.scores) == of_image


def test_names_contain_an_unusual_level_and_ranking():
    names = [r.name for r in compared().select(method="InputXGradient", canvas=0)]
    assert names == [
        "InputXGradient",
        "InputXGradient, absolute",
        "InputXGradient, class mean",
        "InputXGradient, class mean, absolute",
    ]
    assert len(TARGETS) == 4
