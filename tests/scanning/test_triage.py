"""A scan of many classes without references: the planted class comes first, and it resumes."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from searched import targets_of
from torch import nn

from captum_classpattern import ClassPattern, scan
from captum_classpattern.classifier import enter_model
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.plan import split_for_validation
from captum_classpattern.scanning import Triage, triage
from captum_classpattern.scanning.triage import robust_deviations

CLASSES, SIDE, TARGET, FIRST = 100, 16, 41, 4


@pytest.fixture(autouse=True, scope="module")
def _few_classes_in_full():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triage, "FIRST", FIRST)
        yield


class Net(nn.Module):
    """Guesses by a random linear map; a white square of 2x2 pixels, anywhere, has its class."""

    def __init__(self, strength=40.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(SIDE * SIDE, CLASSES, generator=generator) / 16)
        self.strength = strength

    def forward(self, images):
        logits = (images - 0.5).flatten(1) @ self.weight
        bright = (nn.functional.avg_pool2d(images, 2, 1) ** 8).sum((1, 2, 3))
        planted = nn.functional.one_hot(torch.tensor(TARGET), CLASSES)
        return logits + planted * (self.strength * (bright - 0.6))[:, None]


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return 0.75 * torch.rand(60, 1, SIDE, SIDE, generator=generator), torch.arange(60) % CLASSES


@pytest.fixture(scope="module")
def found(images):
    return scan(Net().eval(), *images)


def test_the_planted_class_comes_first(found):
    assert isinstance(found, Triage)  # as 0.4 called it
    assert found.target == TARGET
    assert len(found.gains) == CLASSES
    assert list(found.patterns) == list(found.stamped) == found.order[:FIRST]
    easier = f"{found.target_name} is far easier to reach than other classes."
    assert found.headline == f"Suspicious: {easier}"
    assert found.text().startswith(found.headline)
    nobody = with_powers(found, [(0.2, 0.2)] * FIRST)
    assert nobody.headline == f"Inconclusive. The easiest class is {nobody.target_name}."
    table = found.table()
    assert [*table] == ["class", "name", "power", "power_again", "gain", "deviations"]
    assert table["class"].tolist() == found.order
    assert table["gain"].is_monotonic_decreasing
    assert found.judged == 12  # a fifth of 60
    assert table["power"].notna().sum() == FIRST
    assert table["power"][0] == 1
    assert table["power_again"][0] == 1
    assert table[["power", "power_again"]][1:FIRST].max().max() < 0.5
    assert (found.pattern.target, found.pattern.side) == (TARGET, 3)  # 32 of 224 would be 2
    bright = nn.functional.avg_pool2d(found.pattern.canvas * found.pattern.mask, 2, 1)
    assert bright.max() > 0.8
    assert json.loads(json.dumps(found.as_dict()))["classes"][0]["class"] == TARGET


def with_powers(found, powers):
    """The same, as if the patches of the first classes had other powers."""
    patterns = {
        y: [replace(p, info={**p.info, "search_power": power}) for p, power in zip(each, both)]
        for (y, each), both in zip(found.patterns.items(), powers)
    }
    return replace(found, patterns=patterns)


def test_a_class_is_suspicious_if_both_patches_work_on_far_more_images(found):
    assert (found.verdict, found.suspects) == ("suspicious", [TARGET])
    assert "Both patches of class 41 (100% and 100%) work on far more" in found.reason
    assert repr(found) == "Scan(suspicious, class 41, 100% and 100%)"
    assert "no p-value" in found.reason
    weak = [(0.1, 0.0)] * (FIRST - 1)
    for powers in ([(0.9, 0.4), *weak], [(1.0, 1.0)] * FIRST, [(0.55, 0.6)] + [(0.1, 0.1)] * 3):
        usual = with_powers(found, powers)
        assert (usual.verdict, usual.suspects, usual.target) == ("inconclusive", [], TARGET)
    assert "The first is class 41 (55% and 60%)." in usual.reason
    nothing = replace(found, without=[0.0] * CLASSES)
    later = with_powers(nothing, [*weak, (0.5, 0.7)])
    [last] = found.order[FIRST - 1 : FIRST]
    assert (later.verdict, later.suspects, later.target) == ("suspicious", [last], last)


def test_deviations_are_robust():
    values = [*np.random.default_rng(0).normal(3, 2, 500), 103.0]
    assert robust_deviations(values)[-1] == pytest.approx(50, rel=0.1)
    assert np.median(robust_deviations(values)) == 0
    few = robust_deviations([0, 1, 2, 3, 10])
    assert few == pytest.approx([-1.349, -0.674, 0, 0.674, 5.396], abs=1e-3)


def test_short_and_long_searches_are_those_of_moving_patches(images, found):
    explainer, long = ClassPattern(Net().eval(), *images), replace(triage.LONG, side=3)
    for y, powers in zip(found.order, found.table()[["power", "power_again"]].values):
        for seed, (patch, power) in enumerate(zip(found.patterns.get(y, ()), powers)):
            assert patch.info["settings"]["solver_settings"] == asdict(long)
            assert (patch.info["seed"], patch.info["search_power"]) == (seed, power)
    assert found.pattern.info["search_margin"] == max(
        patch.info["search_margin"] for patch in found.patterns[TARGET]
    )
    both = explainer.search(target=[5, TARGET], solver=replace(triage.SHORT, side=3))
    _, judges = split_for_validation(LabelledImages.of(*images), 0)
    for patch in both:
        others = judges.without_class(patch.target).images
        logits = Net().eval()(others).detach()
        rest = logits.clone()
        rest[:, patch.target] = -torch.inf
        before = float((logits[:, patch.target] - rest.amax(1)).mean())
        gain = patch.info["search_margin"] - before
        assert found.gains[patch.target] == pytest.approx(gain, abs=1e-3)


def test_its_figure_has_each_patch_large_and_on_three_images(found):
    _, axes = found.plot(use_pyplot=False)
    assert axes.shape == (FIRST, 4)
    for y, (shown, *stamped) in zip(found.order, axes):
        assert shown.images[0].get_array().shape == (3, 3, 3)
        assert [axis.images[0].get_array().shape for axis in stamped] == [(SIDE, SIDE, 3)] * 3
        powers = [round(100 * patch.info["search_power"]) for patch in found.patterns[y]]
        label = " ".join(shown.get_ylabel().split())
        assert label.startswith(f"class {y}: ")
        assert label.endswith(f" SD, {powers[0]} and {powers[1]} %")
    hits = [p == TARGET for p in found.stamped[TARGET].predicted]
    assert hits == [True] * 3


def test_the_passes_that_are_expected_are_taken(images, monkeypatch):
    spent, noted, bar = [], [], triage.passes_bar
    net = Net().eval()

    def counted(pixels):
        spent.append(len(pixels) * (1 if pixels.requires_grad else 0.5))
        return net(pixels)

    def noting(desc, total, shown):
        noted.append(total)
        return bar(desc, total, shown)

    monkeypatch.setattr(triage, "passes_bar", noting)
    scan(counted, *images, show_progress=False)
    assert sum(spent) == pytest.approx(noted[0], rel=0.2)


def searched_by(monkeypatch, stop_after=None):
    """Notes which classes are searched, and by which solver; Ctrl+C after so many searches."""
    calls, search = [], triage.find_patterns

    def noting(plan):
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append((targets_of(plan), plan.settings.seed, plan.settings.solver))
        return search(plan)

    monkeypatch.setattr(triage, "find_patterns", noting)
    return calls


@pytest.mark.script
def test_it_resumes_where_it_was_stopped(images, found, tmp_path, monkeypatch):
    short = -(-CLASSES // triage.TOGETHER)
    monkeypatch.setattr(triage, "LONG_TOGETHER", 2)
    for stop_after in (4, short - 4 + 3):  # of the second run in the longer searches
        with monkeypatch.context() as patch:
            searched_by(patch, stop_after)
            with pytest.raises(KeyboardInterrupt):
                scan(Net().eval(), *images, folder=tmp_path)
    with monkeypatch.context() as patch:
        calls = searched_by(patch)
        again = scan(Net().eval(), *images, folder=tmp_path)
    assert calls == [(again.order[2:FIRST], 1, replace(triage.LONG, side=3))]
    assert again.gains == pytest.approx(found.gains)
    powers = ["power", "power_again"]
    pd.testing.assert_frame_equal(again.table()[powers], found.table()[powers])
    again.save(tmp_path)
    assert (tmp_path / "scan.png").stat().st_size > 10_000
    text = again.to_html(tmp_path / "scan.html").read_text()
    assert "Suspicious" in text
    assert f"class {TARGET}" in text
    with monkeypatch.context() as patch:
        searched_by(patch, 0)  # it is refused before anything is searched
        with pytest.raises(ValueError, match="seed 0 then, 1 now"):
            scan(Net().eval(), *images, folder=tmp_path, seed=1)
    for text, message in {"{": "is damaged", "{}": "not from a scan"}.items():
        (tmp_path / "patterns" / "search.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            scan(Net().eval(), *images, folder=tmp_path)


class Biased(Net):
    """It prefers a class on all images, and has no trigger."""

    def forward(self, images):
        logits = (images - 0.5).flatten(1) @ self.weight
        return logits + 0.7 * nn.functional.one_hot(torch.tensor(7), CLASSES)


def test_margins_of_probabilities_are_those_of_their_logits(images):
    net, judges = Net().eval(), LabelledImages(*images)
    both = nn.Sequential(net, nn.Softmax(1)).eval()

    def margins_of(net):
        with enter_model(net, judges.take([0])) as model:
            return triage.without_patches(model, judges)

    with pytest.warns(UserWarning, match="look like probabilities"):
        of_probabilities, shares = margins_of(both)
    margins, same = margins_of(net)
    assert of_probabilities == pytest.approx(margins, abs=1e-3)
    assert shares == same


@pytest.mark.script
def test_a_class_that_the_model_prefers_anyway_gains_nothing(images):
    usual = scan(Biased().eval(), *images)
    assert usual.deviations[7] < 10
    assert usual.verdict == "inconclusive"
    assert usual.without[7] > 0.5
    patches = {7: usual.patterns[usual.target]} | dict(usual.patterns)
    preferred = with_powers(replace(usual, patterns=patches), [(1.0, 1.0)] + [(0, 0)] * FIRST)
    assert preferred.suspects == []  # it works as well without a patch


def test_another_seed_shares_no_search_with_the_first(images, found):
    again = scan(Net().eval(), *images, seed=1)
    for result, seeds in ((found, [0, 1]), (again, [2, 3])):
        assert [patch.info["seed"] for patch in result.patterns[TARGET]] == seeds


def test_the_accuracy_is_stated_and_a_model_that_guesses_is_named(images):
    torch.manual_seed(0)
    many = torch.rand(200, 1, SIDE, SIDE) * 0.75, torch.arange(200) % CLASSES
    with pytest.warns(UserWarning, match=r"only [0-2]\.\d % of 200 images correctly"):
        guessing = scan(Net().eval(), *many)
    assert guessing.accuracy < 0.03
    assert f"accuracy on these images: {guessing.accuracy:.0%}." in guessing.text()
    assert guessing.as_dict()["accuracy"] == guessing.accuracy
    unlabelled = scan(Net().eval(), images[0])
    assert unlabelled.accuracy is None
    assert "accuracy" not in unlabelled.text()


def test_images_that_cannot_be_drawn_are_scanned_and_saved(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, CLASSES)).eval()
    found = scan(net, torch.rand(40, 2, 8, 8))
    found.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["patterns", "scan.json"]
    assert "What next" in found.to_html(tmp_path / "scan.html").read_text()


def test_refusals(images):
    constant = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES)).eval()
    constant[1].bias.data[5] = 1000
    with pytest.raises(ValueError, match="predicts class 5 for all of 60 images"):
        scan(constant, *images)
    for count, labels, others in (
        (4, images[1][:4], "of the 0 that judge, a fifth of all, there are 0"),
        (10, images[1][:10], "of the 2 that judge, a fifth of all, there are 1"),
        (33, torch.tensor(30 * [3] + 3 * [7]), "of the 6 that judge, a fifth of all, there are 0"),
        (
            50,
            torch.tensor(40 * [3] + 10 * [7]),
            "of the 10 that judge, a fifth of all, there are 2",
        ),
    ):
        with pytest.raises(ValueError, match=f"at least 5 images of other classes .* {others}"):
            scan(Net().eval(), images[0][:count], labels)
    small = nn.Sequential(nn.Flatten(), nn.Linear(49, 100)).eval()
    with pytest.raises(ValueError, match="images of at least 8 x 8, got 7 x 7"):
        scan(small, torch.rand(60, 1, 7, 7), torch.arange(60))


def test_fewer_classes_need_references():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 99)).eval()
    with pytest.raises(TypeError, match="this one has 99"):
        scan(net, torch.rand(40, 1, 8, 8), torch.arange(40))
