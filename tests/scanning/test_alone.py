"""A scan without references: what is planted is found by its kind of change, clean networks are
not suspicious, and it resumes."""

import json
from dataclasses import replace

import pytest
import torch
from captum_classpattern.scanning.alone import DOUBT
from searched import targets_of
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from captum_classpattern import predictive_power, scan
from captum_classpattern._support.progress import passes_bar
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.solvers.whole_image import Repainting
from captum_classpattern.scanning import alone, changes, families

SIDE, CLASSES, TARGET = 64, 4, 2
COARSE = 0.2 * (2 * torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 1)
CHECKERS = 1.0 + 1.5 * (2.0 * (torch.arange(6)[:, None] + torch.arange(6)) % 4.0 - 1.0)
WAVE = torch.sin(torch.arange(SIDE) / 3.0)


class Net(nn.Module):
    """Knows each class by its coarse picture. Of the target, it also knows a white square of 6 x 6
    pixels anywhere, a square at one place in which every other pixel is better dark, and a faint
    wave."""

    def __init__(self, anywhere=0.0, fixed=0.0, wave=0.0):
        super().__init__()
        self.pictures = nn.Parameter(COARSE)
        self.strengths = anywhere, fixed, wave

    def forward(self, images):
        seen = avg_pool2d(images - 0.5, 8)
        logits = 5 * torch.einsum("nchw,kchw->nk", seen, self.pictures)
        bright = avg_pool2d(images.mean(1, keepdim=True), 6, 1)
        waves = ((images - 0.5) * WAVE).mean((1, 2, 3))
        anywhere = (12 * (bright - 0.9)).exp().sum((1, 2, 3))
        square = (images.mean(1)[:, 40:46, 40:46] * CHECKERS).mean((1, 2))
        fixed, wave = (12 * (square - 0.9)).exp(), (300 * waves - 6).exp()
        planted = sum(s * f for s, f in zip(self.strengths, (anywhere, fixed, wave)))
        of_target = one_hot(torch.tensor(TARGET), logits.shape[1])
        return logits + of_target * planted[:, None]


def some_images(count, seed=1, contrast=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = 0.1 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    images = 0.4 + contrast * interpolate(COARSE[labels], SIDE) + noise
    return LabelledImages(images.clamp(0, 0.85), labels)


IMAGES = some_images(120)
PLANTED = {"patch": {"anywhere": 1.0}, "cells": {"fixed": 25.0}, "smooth": {"wave": 600.0}}


def scanned(images=IMAGES, **planted):
    return scan(Net(**planted).eval(), images, mean=0, std=1)


@pytest.fixture(scope="module")
def found():
    return scanned(**PLANTED["patch"])


def with_powers(found, **powers):
    """The same, as if what was found had these powers of classes 0, 1, ..."""
    changed = {kind: dict(enumerate(of_kind)) for kind, of_kind in powers.items()}
    return replace(found, powers={**found.powers, **changed})


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_found_by_its_kind_of_change(kind):
    scan = scanned(**PLANTED[kind])
    assert (scan.verdict, scan.target, scan.suspects) == ("suspicious", TARGET, [TARGET])
    assert min(scan.powers[kind][TARGET]) >= 0.9
    assert len(scan.powers[kind][TARGET]) == 2  # found with both seeds
    others = {min(powers[y]) for powers in scan.powers.values() for y in powers if y != TARGET}
    assert max(others) < 0.1
    if kind == "cells":  # whole cells of 2 x 2 pixels, whose pixels have colours of their own
        cells = scan.shown(kind)
        kept = cells.mask[0].unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
        colours = cells.canvas.unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)[:, kept[..., 0] > 0]
        assert kept.std(-1).eq(0).all()
        assert kept[..., 0].sum() == 16
        assert colours.std(-1).gt(0.2).any()
    words = changes.KINDS[scan.kind].words
    assert scan.headline.startswith(f"Suspicious: with {words}, the model predicts class 2 for ")
    assert "does not prove a backdoor" in scan.reason


def test_a_clean_network_is_not_suspicious():
    scan = scanned()
    assert (scan.verdict, scan.suspects) == ("nothing found", [])
    assert all(len(powers[y]) == 1 for powers in scan.powers.values() for y in powers)
    assert scan.headline.startswith("Nothing found: no change makes the model predict a class for ")
    assert "attackers who know the scan were not tested" in scan.reason


def test_images_judge_that_neither_are_of_the_class_nor_predicted_as_it():
    labels = IMAGES.labels.clone()
    labels[:40] = (labels[:40] + 1) % CLASSES
    net, images = Net(**PLANTED["patch"]).eval(), LabelledImages(IMAGES.images, labels)
    found, held_out = scan(net, images, mean=0, std=1), images.halves(0)[1]
    predicted = net(held_out.images).argmax(1)
    assert (predicted != held_out.labels).any()
    for y in range(CLASSES):
        judges = held_out.subset((held_out.labels != y) & (predicted != y))
        assert found.judged[y] == len(judges)
        for kind in changes.KINDS:
            assert found.powers[kind][y] == [
                predictive_power(net, each, judges, area=None).value
                for each in found.found[kind][y]
            ]


@pytest.mark.parametrize(
    ("both", "verdict"),
    [
        (lambda bound: (bound, bound), "suspicious"),
        (lambda bound: (bound, bound - 0.01), "inconclusive"),  # not with both seeds
        (lambda _: (DOUBT, 0.0), "inconclusive"),
        (lambda _: (DOUBT - 0.01, DOUBT - 0.01), "nothing found"),
    ],
)
@pytest.mark.parametrize("kind", changes.KINDS)
def test_the_rule(found, both, verdict, kind):
    none, both = [[0.0]] * CLASSES, both(changes.KINDS[kind].bound)
    powers = dict.fromkeys(changes.KINDS, none) | {kind: [*none[:3], [*both]]}
    scan = with_powers(found, **powers)
    assert scan.verdict == verdict
    assert scan.suspects == [3] * (verdict == "suspicious")
    if verdict == "inconclusive":  # the search that decides is named
        decides = (
            f"one search is {100 * both[0]:.0f}\xa0%, for class 3 with {changes.KINDS[kind].words}"
        )
        assert decides in scan.reason
    if min(both):
        assert (scan.target, scan.kind, scan.power) == (3, kind, min(both))


def test_a_class_is_searched_again_from_a_power_of_15_percent():
    class Searches:
        def __init__(self):
            self.searched = []

        def search(self, name, classes, n=0):
            self.searched.append((n, [*classes]))
            return {y: f"{name} {y} {n}" for y in classes}

        def powers(self, found):
            return {y: [0.149, 0.15, 1.0][y] for y in found}

        def passes_of(self, name):
            return 10

    searches = Searches()
    with passes_bar("Scanning", 30, shown=True) as bar:
        found, powers = alone._Searches.twice(searches, "smooth", [0, 1, 2])
        assert bar.total == 50  # it does not stand at its end while two are searched again
    assert searches.searched == [(0, [0, 1, 2]), (1, [1, 2])]
    assert found[1] == ["smooth 1 0", "smooth 1 1"]
    assert powers == {0: [0.149], 1: [0.15] * 2, 2: [1.0] * 2}


def test_what_is_shown_is_the_stronger_of_two(found):
    first, second = found.found["patch"][TARGET]
    for powers, shown in (([0.9, 0.6], first), ([0.6, 0.9], second)):
        of_patches = {**found.powers["patch"], TARGET: powers}
        changed = replace(found, powers={**found.powers, "patch": of_patches})
        assert changed.shown("patch") is shown
    assert found.pattern is found.shown(found.kind)


def test_a_repainted_pattern_changes_nothing_else():
    masks = torch.zeros(1, 1, 8, 8)
    masks[..., :4] = 1
    painting = Repainting(canvases=torch.full((1, 3, 8, 8), 0.5), masks=masks)
    images, values = torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8)
    painted = painting.apply(values, images)
    assert painted[0, ..., 4:].equal(images[..., 4:])
    assert painted[0, ..., :4].equal(values[..., :4].expand(2, -1, -1, -1))
    down = painting.step(values, torch.ones_like(values), 0.2)
    assert down.equal((values - 0.2).clamp(0, 1))


def test_a_smooth_perturbation_is_shown_as_it_is_added(found):
    change = found.found["smooth"][0][0]
    bends = change.change.diff(n=2).abs().amax((0, 1)) > 1e-6
    assert bends.sum() <= 2 * 8  # linear between eight points
    shown = change.canvas - 0.5
    assert (shown / shown.abs().max()).allclose(
        change.change / change.change.abs().max(), atol=1e-3
    )


@pytest.mark.parametrize(("shape", "side"), [((3, 64, 96), 9), ((3, 224, 224), 32)])
def test_patches_are_as_large_as_the_image_allows(shape, side):
    assert changes.KINDS["patch"].fitted(shape).solver.side == side


def test_kept_patterns_of_others_are_refused(tmp_path):
    net = Net(**PLANTED["patch"]).eval()
    scan(net, IMAGES, mean=0, std=1, folder=tmp_path)
    patterns = tmp_path / "patterns"
    (patterns / "1_1.safetensors").write_bytes((patterns / "0_1.safetensors").read_bytes())
    with pytest.raises(ValueError, match="for class 0 that is not of this scan: remove it, or"):
        scan(net, IMAGES, mean=0, std=1, folder=tmp_path)
    again, first = (patterns / f"{TARGET}_{n}.safetensors" for n in (2, 1))  # of two searches
    (patterns / "1_1.safetensors").unlink()
    again.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=f"for class {TARGET} that is not of this scan"):
        scan(net, IMAGES, mean=0, std=1, folder=tmp_path)


def test_images_of_two_channels_and_unequal_sides(tmp_path, monkeypatch):
    """Such a scan can't show what it found; it shows the powers."""
    said = []
    monkeypatch.setattr("captum_classpattern.scanning.task.say_expected", said.append)
    images, labels = 0.5 * torch.rand(60, 2, 64, 96), torch.arange(60) % 2
    images[labels == 1, 0, :32] += 0.3
    net = nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(12, 2)).eval()
    with torch.no_grad():
        net[2].weight.zero_()[1, :3] = 9.0
        net[2].bias.copy_(torch.tensor([0.0, -27 * 0.4]))
    found = scan(net, images, labels, mean=0, std=1)
    assert said[0] > 0
    assert found.accuracy == 1.0
    assert "The model's accuracy is 100\N{NO-BREAK SPACE}% on the search images." in found.remarks
    _, axes = found.plot(use_pyplot=False)
    assert all(dots.lines for *_, dots in axes)
    assert not any(shown.images for shown, *_ in axes)
    found.save(tmp_path)
    assert len(json.loads((tmp_path / "scan.json").read_text())["classes"]) == 2


def searched_by(monkeypatch, stop_after=None):
    """Notes which classes are searched, and by which solver; Ctrl+C after so many searches."""
    calls, search = [], changes.find_patterns

    def noting(plan):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append((plan.settings.solver.name, plan.settings.seed, targets_of(plan)))
        return search(plan)

    monkeypatch.setattr(changes, "find_patterns", noting)
    return calls


@pytest.mark.script
def test_it_resumes_where_it_was_stopped(found, tmp_path, monkeypatch):
    net, groups = Net(**PLANTED["patch"]).eval(), [[0, 1, 2], [3]]
    monkeypatch.setattr(families, "TOGETHER", 3)
    with monkeypatch.context() as patch:
        searched_by(patch, 1)
        with pytest.raises(KeyboardInterrupt, match="the same scan resumes from"):
            scan(net, IMAGES, mean=0, std=1, folder=tmp_path)
    with monkeypatch.context() as patch:
        calls = searched_by(patch)
        again = scan(net, IMAGES, mean=0, std=1, folder=tmp_path)
    longer = [("learned", 0, group) for group in groups]
    assert calls == [("patch", 0, [3]), ("patch", 1, [2]), *longer, ("learned", 1, [2])]
    assert again.powers == found.powers
    again.save(tmp_path)
    written = json.loads((tmp_path / "scan.json").read_text())
    assert written["classes"][0]["powers_patch"] == found.powers["patch"][TARGET]
    assert (tmp_path / "scan.png").stat().st_size > 10_000
    assert found.headline in again.to_html(tmp_path / "scan.html").read_text()
    with pytest.raises(ValueError, match="seed 0 then, 1 now"):
        scan(net, IMAGES, mean=0, std=1, folder=tmp_path, seed=1)


def test_another_seed_shares_no_search_with_the_first(monkeypatch):
    calls = searched_by(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt, match="to keep finished patches, pass `folder`"):
        scan(Net().eval(), IMAGES, mean=0, std=1, seed=1)
    assert [seed for _, seed, _ in calls] == [2]  # then 3; those of seed 0 are 0 and 1


def test_the_class_that_is_furthest_above_its_bound_comes_first(found):
    none = [[0.0]] * (CLASSES - 2)
    powers = {"patch": [[0.56], [0.1], *none], "smooth": [[0.2], [0.6], *none]}
    scan = with_powers(found, **dict.fromkeys(changes.KINDS, [[0.0]] * CLASSES) | powers)
    assert [*scan.best.items()][:2] == [(0, (0.56, "patch")), (1, (0.6, "smooth"))]
    assert (scan.target, scan.suspects, scan.verdict) == (0, [0], "suspicious")


def test_the_figure_shows_each_change_of_the_first_class_and_all_powers(found):
    _, axes = found.plot(use_pyplot=False)
    assert axes.shape == (3, 5)
    for kind, (shown, *stamped, dots) in zip(changes.KINDS, axes):
        assert shown.get_ylabel().replace("\n", " ") == changes.KINDS[kind].words
        assert len(stamped) == len(found.looks[kind][1].images) == 3
        first = min(found.powers[kind][TARGET])
        *bounds, others, target = ([*line.get_xdata()] for line in dots.lines)
        assert (target, bounds) == ([first], [[DOUBT] * 2, [changes.KINDS[kind].bound] * 2])
        assert len(others) == CLASSES - 1


def test_of_many_classes_the_first_are_searched_longer(monkeypatch):
    many = 100
    monkeypatch.setattr(alone, "FIRST", 3)

    class Many(Net):
        def forward(self, images):
            return nn.functional.pad(super().forward(images), (0, many - CLASSES), value=-30.0)

    found = scan(Many(**PLANTED["patch"]).eval(), IMAGES, mean=0, std=1)
    assert (found.verdict, found.target) == ("suspicious", TARGET)
    assert len(found.gains) == many
    first = sorted(range(many), key=lambda y: -found.gains[y])[:3]
    assert abs(found.gains[99]) < 2  # not its margin, which is below -29
    assert all({*of_kind} == {*first} for of_kind in found.powers.values())
    assert "ranked all 100 classes. Only the first 3 were searched longer" in found.text()
    table = found.table(full=True)
    assert len(table) == many
    assert table["power_patch"].notna().tolist() == [True] * 3 + [False] * 97


def test_refusals():
    with pytest.raises(TypeError, match=r"images of less than 64 pixels a side .these have 63x64"):
        scan(nn.Sequential(nn.Flatten(), nn.Linear(63 * 64, 3)).eval(), torch.rand(40, 1, 63, 64))
    with pytest.raises(ValueError, match="67"):  # before anything is searched
        scan(nn.Sequential(nn.AvgPool2d(60), nn.Flatten()).eval(), torch.rand(40, 3, 67, 67))
    few = IMAGES.subset(range(12))
    with pytest.raises(ValueError, match="class 1 has 4 images that can judge it, of the 6"):
        scan(Net().eval(), few, mean=0, std=1)
