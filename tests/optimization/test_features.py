"""A feature mask keeps pixels together, as plain, slow versions do it."""

import numpy as np
import pytest
import torch
from searched import search_masks
from small_models import conv_net, random_images

from captum_classpattern import Cells, ClassPattern, explain_class, survey, sweep
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization import Learned, PaperLoop, Swap, grid_cells
from captum_classpattern.optimization.features import Features, number_features

LABELS = [0, 1, 2, 1, 0, 2, 1, 2, 1, 0, 1, 2]
BASELINES, SAME = random_images(12, seed=6), random_images(1, seed=5).expand(5, -1, -1, -1)
MANY = LabelledImages(random_images(60, seed=6), torch.arange(60) % 3)
SOLVERS = [Swap(4, batch_size=2), PaperLoop(epochs=2, batch_size=2), Learned(3, batch_size=2)]


def search(feature_mask, canvases=None, targets=(0, 1), **settings):
    settings = {"area": 0.25, "solver": Swap(5, batch_size=3), **settings}
    canvases = random_images(2, seed=5) if canvases is None else canvases
    given = {"baseline_labels": LABELS, "feature_mask": feature_mask, **settings}
    return search_masks(conv_net(), canvases, [*targets], BASELINES, **given)


def uneven(seed=0):
    """Features of 1 to 5 pixels of an image of 6x6, in any order."""
    sizes = [5, 1, 4, 2, 3, 1, 5, 2, 4, 3, 1, 5]
    ids = torch.repeat_interleave(torch.arange(12), torch.tensor(sizes))
    order = torch.randperm(36, generator=torch.Generator().manual_seed(seed))
    return ids[order].view(6, 6)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_a_feature_for_each_pixel_changes_no_bit(solver):
    alone = search(None, solver=solver)
    ids = torch.randperm(36, generator=torch.Generator().manual_seed(1)).view(6, 6)
    for mask in (ids, 7 - 3 * ids, ids.int()[None], ids.expand(2, 1, 6, 6), lambda canvas: ids):
        for ours, theirs in zip(search(mask, solver=solver), alone, strict=True):
            assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("ids", [uneven(), uneven(1), grid_cells(6, 6, 3, 4)[0, 0]])
def test_all_pixels_of_a_feature_have_one_weight_and_the_area_is_kept(solver, ids):
    other = search(11 - 2 * ids, solver=solver)
    for mask, same in zip(search(ids, solver=solver).masks, other.masks, strict=True):
        assert torch.equal(mask, same)  # whatever the numbers are
        for feature in ids.unique():
            assert mask[0, ids == feature].unique().numel() == 1
        assert 9 - ids.unique(return_counts=True)[1].max() < (mask > 0).sum() <= 9


def test_each_canvas_has_its_features():
    together = torch.stack([uneven(0), uneven(1)])[:, None].expand(2, 1, 6, 6)
    canvases = random_images(2, seed=5)
    masks = search(together).masks
    for row in (0, 1):
        alone = search(uneven(row), canvases[row : row + 1], [row]).masks
        assert torch.equal(masks[row] > 0, alone[0] > 0)
    explainer = ClassPattern(conv_net(), BASELINES, LABELS)
    settings = {"area": 0.25, "solver": Swap(5, batch_size=3), "feature_mask": together}
    assert torch.equal(explainer.attribute(canvases, [0, 1], **settings), masks)
    [kept] = explainer.search(canvases, 2, keep=1, **settings)  # it has its own features
    [place] = [row for row in (0, 1) if torch.equal(kept.canvas, canvases[row])]
    for feature in range(12):
        assert kept.mask[0, uneven(place) == feature].unique().numel() == 1


def test_a_function_segments_a_canvas_and_a_blank_one_has_cells():
    seen = []

    def halves(canvas):
        seen.append(tuple(canvas.shape))
        return (canvas[0] > 0.5).long() * 36 + torch.arange(36).view(6, 6) // 4

    canvases = torch.cat([random_images(1, seed=5), torch.ones(1, 1, 6, 6)])
    ids = number_features(halves, canvases, [0.25])
    assert seen == [(1, 6, 6)]
    assert torch.equal(ids[0] == ids[0, 0, 0], halves(canvases[0]) == halves(canvases[0])[0, 0])
    assert ids[1].unique().numel() == 36  # no more than pixels
    three = torch.arange(3).repeat_interleave(2)
    small = number_features(Cells(3), canvases, [0.25])
    assert torch.equal(small, (three + 3 * three[:, None]).expand(2, 6, 6))


def test_features_are_summed_spread_and_chosen_as_plain_versions_do_it():
    masks = [uneven(0), grid_cells(6, 6, 2, 3)[0, 0]]
    ids = number_features(torch.stack(masks)[:, None], torch.rand(2, 1, 6, 6), [0.5])
    features, pixels = Features.of(ids), torch.randn(2, 3, 6, 6)
    sums, firsts = features.sums(pixels), features.first(pixels)
    for row, channel in ((0, 0), (0, 2), (1, 1)):
        for feature in ids[row].unique():
            inside = pixels[row, channel][ids[row] == feature]
            assert float(sums[row, channel, 0, feature]) == pytest.approx(
                float(inside.sum()), abs=1e-5
            )
            assert firsts[row, channel, 0, feature] == inside[0]
    spread = features.spread(sums)
    assert torch.equal(spread[1, 0][ids[1] == 4].unique(), sums[1, 0, 0, 4].view(1))
    weights = torch.randn(2, 1, 1, 12)
    chosen = features.strongest(weights, 13)
    for row in (0, 1):
        sizes = ids[row].flatten().bincount().tolist()
        worth = {f: float(weights[row, 0, 0, f]) / size for f, size in enumerate(sizes)}
        kept, total = set(), 0
        for feature in sorted(worth, key=worth.get, reverse=True):
            if total + sizes[feature] > 13:
                break
            kept.add(feature)
            total += sizes[feature]
        assert {f for f in range(12) if chosen[row, 0, 0, f]} == kept


def test_a_pattern_of_features_is_never_filled_up():
    given = {"area": 0.3, "feature_mask": Cells(2), "n_steps": 3, "canvases": "positive"}
    found = explain_class(conv_net(), MANY, target=1, **given)
    assert int(found.pattern.topk(0.3).mask.sum()) == 9  # one cell of four; 11 pixels would fit
    assert found.pattern.info["settings"]["feature_mask"] == "Cells(side=2)"


def test_large_features_are_ranked_by_small_differences_of_what_they_gain_per_pixel():
    ids = number_features(torch.arange(4096).view(64, 64) // 128, torch.rand(1, 1, 64, 64), [0.5])
    weights = 1e-3 * torch.linspace(0, 1, 32).view(1, 1, 1, -1)
    chosen = Features.of(ids).strongest(weights, 1024)
    assert chosen.flatten().nonzero().flatten().tolist() == list(range(24, 32))


def test_equal_canvases_with_other_features_are_other_canvases():
    explainer, masks = ClassPattern(conv_net(), MANY), torch.stack([uneven(0), uneven(1)])[:, None]
    for mask, different in ((masks, 2), (masks[:1], 1)):
        settings = {"area": 0.25, "n_steps": 3, "feature_mask": mask}
        assert len(explainer.search(SAME[:2], 2, keep=2, **settings)) == different
        found = explainer.attribute(SAME[:2], 1, **settings)
        assert torch.equal(*found) == (different == 1)


def made(canvas):
    """Features that a later run recognises by the function's name."""
    return torch.arange(36).view(6, 6) // 2


def test_a_folder_needs_features_that_a_later_run_recognises(tmp_path):
    def begun(feature_mask, name):
        settings = {"areas": (0.3,), "n_steps": 2, "canvases": "positive", "classes": [1]}
        settings |= {"folder": tmp_path / name, "resume": True, "feature_mask": feature_mask}
        return survey(conv_net(), MANY, **settings)

    for name, mask in {"cells": Cells(3), "tensor": made(None), "function": made}.items():
        assert len(list(begun(mask, name))) == 1
        assert len(begun(mask, name)) == 1
    with pytest.raises(ValueError, match="settings"):
        begun(Cells(2), "cells")
    with pytest.raises(ValueError, match="without a name"):
        begun(lambda canvas: made(canvas), "unknown")


@pytest.mark.parametrize("mask", [[0, 1], np.zeros((6, 6), int), 3])
def test_a_mask_of_another_type_is_refused_by_all_searches(mask, tmp_path):
    explainer, given = ClassPattern(conv_net(), BASELINES, LABELS), {"feature_mask": mask}
    for search in (
        lambda: explainer.search(SAME, 1, **given),
        lambda: explainer.attribute(SAME, 1, **given),
        lambda: survey(conv_net(), MANY, **given),
        lambda: survey(conv_net(), MANY, folder=tmp_path / "survey", **given),
        lambda: sweep({"a": conv_net()}, MANY, MANY, folder=tmp_path, **given),
    ):
        with pytest.raises(TypeError, match=f"got {type(mask).__name__}"):
            search()


def test_features_are_chosen_by_what_they_gain_per_pixel():
    ids = torch.tensor([[[0, 0, 0], [0, 1, 2], [3, 4, 5]]])  # of 4 pixels, and of 1
    weights = torch.tensor([2.0, 1, 0.1, 0.1, 0.1, 0.1]).view(1, 1, 1, 6)
    chosen = Features.of(ids).strongest(weights, 4)
    assert chosen.flatten().tolist() == [0, 1, 0, 0, 0, 0]  # the next has 4 pixels
