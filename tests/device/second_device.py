"""All that a user does, on the pretend device: it gives what the CPU gives, and waits for little.

The device stays registered, so these tests run in a process of their own, which ``test_device.py``
starts. To see more of a failure:

    python -m pytest -n 0 tests/device/second_device.py
"""

import json

import pretend
import pytest
import torch
from captum.attr import NoiseTunnel
from entered import entered
from torch import Tensor, nn

import captum_classpattern as cp
from captum_classpattern.comparison.methods import METHOD_NAMES
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.optimization import acceleration
from captum_classpattern.scores.power import Scorer, judge

pretend.install()

DEVICES = ("cpu", pretend.NAME)
CLASSES = 4
SEARCH, HELD_OUT = (
    cp.LabelledImages(
        torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(seed)),
        torch.arange(96) % CLASSES,
        ["cat", "dog", "fox", "owl"],
    )
    for seed in (0, 1)
)
CANVASES = SEARCH.images[SEARCH.labels == 0][:4]
QUICK = {"n_steps": 2, "internal_batch_size": 64}  # the same batches on both devices
WHITE = {"canvases": {"white": 1}, "areas": [0.1], **QUICK}


@pytest.fixture(autouse=True)
def _same_speedups(monkeypatch):
    """Those of the pretend device on the CPU, too, so that not even rounding differs."""
    rule = acceleration.choose_speedups
    monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(
        acceleration,
        "choose_speedups",
        lambda model, device, precision: rule(model, torch.device(pretend.NAME), precision),
    )


class Net(nn.Module):
    """A small convolutional network; LRP has a rule for each of its layers."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU()
        self.head = nn.Linear(256, CLASSES)

    def forward(self, images):
        return self.head(self.relu(self.norm(self.convolution(images))).flatten(1))


def network():
    """A classifier that predicts all classes."""
    torch.manual_seed(0)
    classifier = cp.PixelClassifier(Net().eval(), mean=0.5, std=0.25)
    head = classifier.model.head
    with torch.no_grad():
        head.weight.mul_(6)
        head.bias -= classifier(SEARCH.images).mean(0)
    return classifier


def plain(value):
    """A result as numbers on the CPU that can be compared."""
    if isinstance(value, cp.Pattern):
        return [plain(value.canvas), plain(value.mask), value.target]
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def is_same(here, there):
    """Whether plain values are equal. Scores are of batches of other sizes on a GPU, which round
    differently."""
    if isinstance(here, float):
        return here == pytest.approx(there, rel=1e-5, nan_ok=True)
    if isinstance(here, list):
        return len(here) == len(there) and all(map(is_same, here, there))
    if isinstance(here, dict):
        return here.keys() == there.keys() and all(is_same(here[key], there[key]) for key in here)
    return here == there


def on_both(call):
    """What a call gives for a model on each device, and for the device's name."""
    return [plain(call(network().to(device), device)) for device in DEVICES]


def explainer(model, device="cpu"):
    return cp.ClassPattern(model, SEARCH.images.to(device), SEARCH.labels.to(device))


def search(model, device, canvases=CANVASES, target=0, **options):
    return explainer(model).search(canvases.to(device), target, **{**QUICK, **options})


class OfBuffers(nn.Module):
    """A model without parameters."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(CLASSES, 64, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight)

    def forward(self, images):
        return images.flatten(1) @ self.weight.T


def attribute_with_arguments(model, device):
    shift = torch.arange(2.0).to(device)
    shifted = explainer(lambda images, shift: model(images) + shift[:, None])
    return shifted.attribute(CANVASES[:2].to(device), 0, additional_forward_args=shift, **QUICK)


def by_a_function(model, device):
    return explainer(lambda images: model(images.to(device))).attribute(CANVASES[:2], 0, **QUICK)


def learned(model, device):
    grey = torch.full_like(CANVASES[:2], 0.5)
    return search(model, device, grey, [0, 1], solver="learned", area=[0.2, 0.1])


def through_noise(model, device):
    torch.manual_seed(0)
    how = {"nt_type": "smoothgrad", "nt_samples": 2, "stdevs": 0.05, **QUICK}
    return NoiseTunnel(explainer(model)).attribute(CANVASES[:1].to(device), target=0, **how)


SEARCHES = {
    "attribute": lambda m, to: explainer(m).attribute(CANVASES.to(to), [0, 1, 2, 3], **QUICK),
    "attribute with arguments": attribute_with_arguments,
    "attribute by a function that moves the images": by_a_function,
    "baselines that are there": lambda m, to: explainer(m, to).attribute(
        CANVASES[:1].to(to), 1, **QUICK
    ),
    "a pool": lambda m, to: search(m, to, keep=1, n_steps=None, budget=900),
    "two areas": lambda m, to: search(m, to, area=[0.2, 0.1]),
    "cells": lambda m, to: search(m, to, feature_mask=cp.Cells(4), area=0.2),
    "a feature mask": lambda m, to: search(
        m, to, feature_mask=cp.Cells(4)(CANVASES[0]).to(to), area=0.2
    ),
    "NoiseTunnel": through_noise,
    "the paper's loop": lambda m, to: search(m, to, solver="paper"),
    "learned": learned,
    "moving patches": lambda m, to: explainer(m).search(
        target=[0, 1], solver=cp.MovingPatch(6, steps=2)
    ),
    "canvases": lambda m, to: [
        cp.select_canvases(m, SEARCH, target=2, n=2, strategy=kind)
        for kind in ("positive", "negative", "noise", "white")
    ],
    "buffers only": lambda _, to: (
        cp.explain_class(
            OfBuffers().eval().to(to),
            SEARCH,
            target=3,
            held_out=HELD_OUT,
            canvases="white",
            **QUICK,
        ).pattern
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_masks_are_those_of_the_cpu(name):
    here, there = on_both(SEARCHES[name])
    assert here == there


def explained(model, device):
    options = {"canvases": {"positive": 3, "white": 1}, "area": 0.1, **QUICK}
    found = cp.explain_class(model, SEARCH, target="dog", held_out=HELD_OUT, **options)
    assert found.pattern.mask.device.type == device
    assert found.plot(use_pyplot=False)
    return {
        "patterns": found.pattern,
        "scores": found.scores[0.1].as_dict(),
        "stamped": [found.stamp(HELD_OUT.images[:2].to(place)) for place in ("cpu", device)],
    }


def power(model, device):
    """Of a pattern that is on the CPU, and of images on either device."""
    [pattern] = explainer(network()).search(CANVASES[:1], 0, **QUICK)
    [patch] = explainer(network()).search(target=0, solver=cp.MovingPatch(6, steps=2))
    return [
        cp.predictive_power(
            model, each, HELD_OUT.images.to(on), HELD_OUT.labels.to(on)
        ).as_columns()
        for each in (pattern, pattern.to(device), patch, patch.to(device))
        for on in DEVICES
    ]


def scanned(model, device):
    found = cp.scan(model, SEARCH, internal_batch_size=64)
    return [found.verdict, found.table(full=True).to_dict("list")]


def compared(model, device):
    methods = cp.known_methods(SEARCH, names=METHOD_NAMES, n_steps=1, internal_batch_size=64)
    make, how = methods["ShapleyValueSampling"]
    methods["ShapleyValueSampling"] = make, {**how, "n_samples": 2}
    found = cp.compare(
        {"net": model}, CANVASES[:1].to(device), [0], search=SEARCH, held_out=HELD_OUT,
        methods=methods, area=0.1, areas=[0.1], n_seeds=1,
    )  # fmt: skip
    assert not found.failures
    table = found.table()
    return table[[name for name in table if "second" not in name]].to_dict("list")


RESULTS = {"explain_class": explained, "power": power, "compare": compared, "scan": scanned}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_those_of_the_cpu(name):
    here, there = on_both(RESULTS[name])
    assert is_same(here, there)


def test_a_survey_and_its_folder(tmp_path):
    def surveyed(model, device):
        folder = tmp_path / device
        options = {"folder": folder, "classes_together": 2, **WHITE}
        cp.survey(model, SEARCH, HELD_OUT, classes=[0, 1], **options)
        found = cp.survey(model, SEARCH, HELD_OUT, classes=[0, 1, 2], resume=True, **options)
        found.to_html(folder / "report.html")
        patterns = [each.pattern for each in cp.surveys.Survey.load(folder)]
        assert len(patterns) == 3
        assert {pattern.mask.device.type for pattern in patterns} == {"cpu"}
        settings = json.loads((folder / "results.json").read_text())["settings"]
        return settings, patterns, [each.scores[0.1].as_dict() for each in found]

    here, there = on_both(surveyed)
    assert is_same(here, there)


def test_a_sweep_opens_checkpoints_there(tmp_path):
    torch.manual_seed(0)
    torch.save(SmallResNet().state_dict(), tmp_path / "net.pt")
    described = {"arch": "captum_classpattern.demo.network:SmallResNet", "mean": 0.5, "std": 0.25}

    def swept(device):
        models = {"net": {"path": tmp_path / "net.pt", "device": device, **described}}
        images = [(each.images, each.labels) for each in (SEARCH, HELD_OUT)]
        found = cp.sweep(models, *images, folder=tmp_path / device, classes=[0], **WHITE)
        assert found.failures == {}
        [finding] = found.survey("net")
        return plain([finding.pattern, finding.scores[0.1].as_dict()])

    assert is_same(swept("cpu"), swept(pretend.NAME))


def test_a_pattern_moves_is_saved_and_drawn(tmp_path):
    model = network().to(pretend.NAME)
    [pattern] = search(model, pretend.NAME, CANVASES[:1])
    pattern.save(tmp_path / "one.safetensors")
    loaded = cp.Pattern.load(tmp_path / "one.safetensors")
    assert loaded.mask.device.type == "cpu"
    assert plain(loaded) == plain(pattern) == plain(loaded.to(pretend.NAME))
    assert loaded.to(pretend.NAME).canvas.device.type == pretend.NAME
    assert (loaded.seen, loaded.area) == (pattern.seen, pattern.area)
    figure, _ = cp.plot_patterns(model, [pattern, loaded], HELD_OUT, use_pyplot=False)
    assert len(figure.axes) > 2
    for images in (HELD_OUT.images[:2], HELD_OUT.images[:2].to(pretend.NAME)):
        stamped = [each.topk(0.02).stamp(images) for each in (pattern, loaded)]
        assert {each.device for each in stamped} == {images.device}
        assert plain(stamped[0]) == plain(stamped[1])


def test_a_model_moves_there_and_back():
    model = network()
    [here] = search(model, "cpu", CANVASES[:1])
    [there] = search(model.to(pretend.NAME), pretend.NAME, CANVASES[:1])
    [again] = search(model.to("cpu"), "cpu", CANVASES[:1])
    assert plain(here) == plain(there) == plain(again)


# ---- what is moved, and what is refused


def test_explanations_take_images_of_either_device():
    def found(images_on, held_out_on):
        images = (SEARCH.images.to(images_on), SEARCH.labels.to(images_on))
        held_out = (HELD_OUT.images.to(held_out_on), HELD_OUT.labels.to(held_out_on))
        model = network().to(pretend.NAME)
        options = {"held_out": held_out, "canvases": "white", "area": 0.1, **QUICK}
        return plain(cp.explain_class(model, *images, 0, **options).pattern)

    assert found("cpu", "cpu") == found(pretend.NAME, "cpu") == found("cpu", pretend.NAME)


@pytest.mark.parametrize("method", ["search", "attribute"])
def test_captums_methods_say_what_to_move(method):
    call = getattr(explainer(network().to(pretend.NAME)), method)
    with pytest.raises(ValueError, match=r"on cpu, but the model's parameters are on pretend:0: m"):
        call(CANVASES, 0, **QUICK)


def test_held_out_images_move_only_where_there_is_room(monkeypatch):
    device = torch.device(pretend.NAME)
    needed = HELD_OUT.images.numel() * 4
    for free, moves in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(pretend.Module, "free", free)
        moved = HELD_OUT.to(device, torch.float32)
        assert (moved.images.device.type == pretend.NAME) == moves
        model = entered(network().to(device), moved.first())
        assert Scorer(model, moved).predicted.device.type == "cpu"


# ---- waits


def waits_of(n_steps, solver):
    """The waits of a search with so many rounds, by line."""
    explainer = cp.ClassPattern(network().to(pretend.NAME), SEARCH, check_accuracy=False)
    grey = torch.full((2, 1, 8, 8), 0.5).to(pretend.NAME)
    with pretend.counting() as counts:
        explainer.search(grey, [0, 1], solver=solver, n_steps=n_steps)
    return counts


@pytest.mark.parametrize(("solver", "first", "last"), [("swap", 2, 5), ("learned", 1, 2)])
def test_a_round_waits_for_nothing(solver, first, last):
    """But every sixteenth step, where the losses are looked at. What comes before the rounds is as
    long in both searches."""
    few, many = (waits_of(n, solver) for n in (first, last))
    assert (many.total() - few.total()) / (last - first) <= 0.1, (many - few).most_common(5)


def test_512_images_are_scored_with_three_waits():
    model = entered(network().to(pretend.NAME), torch.rand(1, 1, 8, 8))
    images = cp.LabelledImages(torch.rand(512, 1, 8, 8), torch.arange(512) % 4)
    pattern = cp.Pattern(torch.ones(1, 8, 8), torch.zeros(1, 8, 8), 0).to(pretend.NAME)
    judge(model, pattern, images)  # mean and deviation are copied once
    with pretend.counting() as counts:
        judge(model, pattern, images)
    assert counts.total() <= 3, counts.most_common(5)
