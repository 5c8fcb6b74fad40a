"""Clean models that a scan trains to compare with."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from captum_classpattern.scanning.families import FAMILIES
from captum_classpattern.scanning.training import RECIPES, Plan, augmented, untrained
from refusals import refusals
from safetensors.torch import load_file
from scanned import NAMES, Net, images_of, made_up
from torch import nn
from torch.nn.utils import spectral_norm

import captum_classpattern as cp
from captum_classpattern.optimization.solvers.learned import Learned
from captum_classpattern.optimization.solvers.whole_image import Perturbation, Warp
from captum_classpattern.scanning import ReferenceSet, ReferenceTraining, training
from captum_classpattern.surveys.folder import locked

FEW = {Learned: {"rounds": 2, "starts": 1}, Perturbation: {"steps": 3}, Warp: {"steps": 3}}
TRAINING, IMAGES = images_of(n=160, seed=1), images_of(n=80)


@pytest.fixture(scope="module", autouse=True)
def _short_searches():
    with pytest.MonkeyPatch.context() as patch:
        for name, family in FAMILIES.items():
            solver = replace(family.solver, **FEW[type(family.solver)])
            patch.setitem(FAMILIES, name, replace(family, solver=solver))
        yield


class Tokens(nn.Module):
    """A parameter that nothing resets, layers that can reset theirs, and frozen weights."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.arange(12.0).view(3, 4))
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        self.layers[0].requires_grad_(False)
        spectral_norm(self.layers[2])  # whose reset does not reach the weight
        self.layers[1].running_mean.fill_(7.0)


def test_an_untrained_network_knows_nothing_of_the_first():
    first = Tokens()
    before = {name: value.clone() for name, value in first.state_dict().items()}
    new, same, other = (untrained(first, seed) for seed in (0, 0, 1))
    assert all(value.equal(before[name]) for name, value in first.state_dict().items())
    assert all(a.equal(b) for a, b in zip(new.parameters(), same.parameters()))
    for part in ("layers.0.weight", "layers.2.weight_orig", "token"):
        values = [net.get_parameter(part) for net in (first, new, other)]
        assert not any(a.equal(b) for a, b in zip(values, values[1:] + values[:1])), part
    assert [*new.token.flatten().sort().values] == [*range(12)]
    assert new.layers[1].running_mean.eq(0).all()


@pytest.mark.parametrize("count", [64, 100, 500, 2_500, 50_000])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("name", RECIPES)
def test_few_images_take_smaller_batches_and_more_epochs(name, count, factor):
    recipe, plan = RECIPES[name], Plan.of(RECIPES[name], count, factor)
    assert plan.images == round(recipe.share * count)
    assert plan.steps * plan.size <= plan.images < (plan.steps + 1) * plan.size
    assert plan.size == 128 or plan.steps >= 32
    assert plan.epochs >= factor * recipe.epochs
    assert plan.epochs * plan.steps >= factor * recipe.least_steps
    enough = math.ceil(factor * recipe.epochs), factor * recipe.least_steps
    assert (plan.epochs - 1) * plan.steps < enough[1] or plan.epochs == enough[0]
    assert plan.passes == plan.epochs * plan.steps * plan.size


def test_mirrored_and_moved_images_are_those_that_were_given():
    torch.manual_seed(0)
    images = torch.rand(40, 3, 16, 16)
    assert augmented(images, flips=False, crops=False).equal(images)
    flipped = augmented(images, flips=True, crops=False)
    mirrored = [new.equal(old.flip(2)) for new, old in zip(flipped, images)]
    assert 8 < sum(mirrored) < 32
    assert all(m or new.equal(old) for m, new, old in zip(mirrored, flipped, images))
    padded, moves = nn.functional.pad(images, (2, 2, 2, 2)), set()
    for new, old in zip(augmented(images, flips=False, crops=True), padded):
        places = [(r, c) for r in range(5) for c in range(5)]
        moves |= {p for p in places if new.equal(old[:, p[0] : p[0] + 16, p[1] : p[1] + 16])}
    assert len(moves) > 10


class Small(nn.Module):
    """A linear network of coarse pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(16, 4)

    def forward(self, images):
        return self.head(4 * nn.functional.avg_pool2d(images - 0.5, 2).flatten(1))


def scan(folder, model=None, shown=False, data=IMAGES, seed=0, **more):
    given = ReferenceTraining(TRAINING, models=2, epochs=0.2)
    model = cp.PixelClassifier(model or Small().eval())
    how = {"make_references": replace(given, **more), "folder": folder, "show_progress": shown}
    return cp.scan(model, data, **how, seed=seed)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    return folder, scan(folder)


def test_clean_models_are_trained_measured_and_kept(scanned):
    folder, found = scanned
    made = ReferenceSet.load(folder / "references.safetensors")
    assert [*made.profiles] == ["few_0", "short_1"]
    assert made.accuracies == [1.0, 1.0]  # bright rows are easy
    assert made.class_names == NAMES
    assert made.recipes["few_0"] == {"recipe": "few_0", "epochs": 5, "images": 80}
    assert found.verdict == "inconclusive"  # two are too few
    assert cp.scan(Small().eval(), IMAGES, references=made, mean=0, std=1).verdict == "inconclusive"


def test_an_interrupted_training_resumes(scanned, tmp_path, monkeypatch):
    folder, _ = scanned
    for file in (folder / "references").iterdir():  # the second was trained, and not measured
        if file.name != "short_1.safetensors":
            (tmp_path / "references").mkdir(exist_ok=True)
            (tmp_path / "references" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(training, "train", None)  # not again, not even to say how long it takes
    scan(tmp_path)
    both = (ReferenceSet.load(each / "references.safetensors") for each in (folder, tmp_path))
    assert next(both) == next(both)


def test_the_time_is_said_first(tmp_path, monkeypatch):
    said, left = [], []
    monkeypatch.setattr("captum_classpattern.scanning.task.say_expected", said.append)
    monkeypatch.setattr(training.ScanTask, "pass_seconds", 2.0)
    monkeypatch.setattr(training, "_training_seconds", lambda _, names: left.append(names) or 7.0)
    scan(tmp_path, shown=None)
    scan(tmp_path, shown=None, models=3)  # more of them
    assert left == [["few_0", "short_1"], ["adam_2"]]
    assert said == [7 + 2 * 3 * training.passes_of(4), 7 + 2 * 2 * training.passes_of(4)]


def test_training_takes_a_step_for_each_batch(tmp_path, monkeypatch):
    """With a clock that moves by ten seconds at each look."""
    asked = []
    monkeypatch.setattr(training, "_training_seconds", partial(asked_of, asked))
    monkeypatch.setattr(training.time, "perf_counter", itertools.count(0, 10).__next__)
    scan(tmp_path)
    [(plans, seconds)] = asked
    assert seconds == 10 * sum(plan.passes for plan in plans) / plans[-1].size


def asked_of(asked, work, left, seconds_of=training._training_seconds):
    asked.append(([work.plans[name] for name in left], seconds_of(work, left)))
    return asked[-1][1]


class Softmax(Small):
    def forward(self, images):
        return super().forward(images).softmax(1)


def test_probabilities_are_trained_by_their_logarithm(scanned, tmp_path):
    with pytest.warns(cp.Notice, match="look like probabilities"):
        scan(tmp_path, Softmax().eval())
    for name in ("few_0", "short_1"):
        kept = [
            load_file(each / f"references/{name}_weights.safetensors")
            for each in (scanned[0], tmp_path)
        ]
        for key, value in kept[0].items():
            torch.testing.assert_close(value, kept[1][f"{key}"], atol=1e-3, rtol=1e-3)


def test_a_training_that_collapses_is_tried_again_more_slowly(scanned, tmp_path, monkeypatch):
    tried, train = [], training.train

    def collapsing(network, images, plan):
        tried.append(plan.rate)
        train(network, images, plan)
        if plan.rate == 1:
            with torch.no_grad():
                next(network.parameters()).mul_(0)

    monkeypatch.setattr(training, "train", collapsing)
    scan(tmp_path)
    assert tried == [1, 1, *[1, 0.1] * 2]  # two to say how long it takes
    monkeypatch.setattr(training, "RATES", (1.0,))
    with pytest.raises(ValueError, match=r"few_0 was not made \(it predicts one class for all"):
        scan(tmp_path / "other")
    assert not [*(tmp_path / "other").rglob("*_weights*")]


def test_a_smaller_alpha_needs_more_references(tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(training, "_training_seconds", lambda work, _: planned.append(work.plans))
    for alpha in (0.05, 0.01):
        with pytest.raises(TypeError):  # the time is None
            cp.scan(
                cp.PixelClassifier(Small().eval()), IMAGES, alpha=alpha, make_references=TRAINING,
                folder=tmp_path,
            )  # fmt: skip
    assert [*map(len, planned)] == [20, 100]


def test_classes_have_the_names_that_are_given(tmp_path):
    model = cp.PixelClassifier(Small().eval(), class_names=["a", "b", "c", "d"])
    numbered = {"labels": IMAGES.labels, "class_names": NAMES, "show_progress": False}
    few = ReferenceTraining(TRAINING.images, TRAINING.labels, models=1, epochs=0.1)
    found = cp.scan(model, IMAGES.images, make_references=few, folder=tmp_path, **numbered)
    assert [*found.references.class_names] == NAMES


@pytest.mark.parametrize("place", ["list", "closure"])
def test_a_network_that_hides_its_weights_is_refused(tmp_path, place):
    hidden = Net(0)

    class Hides(Small):
        def __init__(self):
            super().__init__()
            self.parts = [hidden] if place == "list" else None

        def forward(self, images):
            return super().forward(images) + hidden(images)

    with pytest.raises(TypeError, match="it hides a Net from its modules"):
        scan(tmp_path, Hides().eval())


def test_a_network_that_cannot_be_trained_is_refused(tmp_path):
    class Whole(Small):
        def forward(self, images):
            if self.training:
                raise RuntimeError("no training here")
            return super().forward(images)

    with pytest.raises(
        ValueError, match=r"can't be trained .*no training here.*train clean models"
    ):
        scan(tmp_path, Whole().eval())


def test_what_is_refused(scanned, tmp_path, snapshot):
    folder, in_use = scanned[0], tmp_path / "in_use"
    lock = locked(in_use / "references")
    net, images = Small().eval(), TRAINING.images
    other_size = (torch.rand(160, 1, 16, 16), TRAINING.labels)
    calls = {
        "trained otherwise": lambda: scan(folder, epochs=0.4),
        "another network": lambda: scan(folder, Net(0)),
        "a function": lambda: cp.scan(
            lambda images: net(images), IMAGES, make_references=TRAINING, folder=tmp_path
        ),
        "no labels": lambda: scan(tmp_path, images=images),
        "another size": lambda: scan(tmp_path, images=other_size),
        "few": lambda: scan(tmp_path, images=TRAINING.subset(range(40))),
        "a class is missing": lambda: scan(tmp_path, images=TRAINING.without_class(2)),
        "the same images": lambda: scan(tmp_path, images=IMAGES),
        "no models": lambda: scan(tmp_path, models=0),
        "no epochs": lambda: scan(tmp_path, epochs=0),
        "other labels": lambda: scan(folder, images=TRAINING.with_labels(3 - TRAINING.labels)),
        "other images of the scan": lambda: scan(folder, data=images_of(n=80, seed=2)),
        "another seed": lambda: scan(folder, seed=1),
        "other names": lambda: scan(tmp_path, images=TRAINING._with(class_names=NAMES[::-1])),
        "no folder": lambda: scan(None),
        "both": lambda: cp.scan(
            Small(), IMAGES, references=made_up(3), make_references=TRAINING, folder=tmp_path
        ),
        "another process": lambda: scan(in_use),
        "another engine": lambda: scan(tmp_path, engine="slurm"),
        "workers without Ray": lambda: scan(tmp_path, workers=2),
    }
    with lock:
        assert (
            refusals(calls).replace(str(folder), "FOLDER").replace(str(in_use), "HERE") == snapshot
        )
