"""The methods by name: each runs on a real model and leaves it as it was."""

import sys

import pytest
import torch
from captum.attr import DeepLift
from comparisons import CANVASES, LABELS, SEARCH, all_facts, bound, compared, conv_net, linear_net
from refusals import refusals
from test_captum_contract import state_of_caller
from torch import nn
from torch.utils.data import Dataset

from captum_classpattern.comparison import DEFAULT, known_methods
from captum_classpattern.comparison.methods import METHOD_NAMES, feature_layer, grid_cells
from captum_classpattern.demo import demo_images, demo_models

# a pass is an image forward and backward; those of one image of 28 x 28
PASSES = {
    "IntegratedGradients": 50,
    "Saliency": 1,
    "InputXGradient": 1,
    "DeepLift": 2,  # the image and the black one
    "DeepLiftShap": 40,
    "GradientShap": 20,
    "GuidedBackprop": 1,
    "Deconvolution": 1,
    "FeatureAblation": 50 / 2,
    "ShapleyValueSampling": (2 * 49 + 1) / 2,  # by as few samples as here
    "GuidedGradCam": 2,
    "LayerGradCam": 1,
    "LRP": 1.5,
    "Lime": 49,
    "KernelShap": 49,
    "Occlusion": 85,
    "RandomPixels": 0,
    "BestRandomMask": 160,  # 16 masks on 20 images, as many as ClassPattern has in a round
}
FEWER = {"ShapleyValueSampling": {"n_samples": 2}}


@pytest.fixture(scope="module")
def demo():
    search = demo_images().search
    images, labels = search.images[::25], search.labels[::25]
    return demo_models()["natural"], images, labels


@pytest.mark.parametrize("name", [name for name in METHOD_NAMES if name != "LearnedPattern"])
def test_each_explains_the_demos_model_and_leaves_it_as_it_was(demo, name):
    model, images, labels = demo
    [(known, how)] = known_methods(images, labels, names=[name], n_steps=1).items()
    assert known == name
    how = how[0], {**how[1], **FEWER.get(name, {})}

    def explained(*targets):
        canvases = images[[3, 30]][: len(targets)]
        return bound(how, model, images)(canvases, targets, area=0.05, seed=0)

    before = state_of_caller(model, images)
    made = explained(*labels[[3, 30]].tolist())
    assert state_of_caller(model, images) == before
    assert made.maps.shape == (2, 28, 28)
    assert made.maps.isfinite().all()
    assert made.maps.abs().amax((1, 2)).min() > 0
    assert made.maps.flatten(1).std(1).min() > 0
    assert made.passes / 2 == PASSES.get(name, made.passes / 2)
    assert (made.passes == 0) == (PASSES.get(name) == 0)
    other = explained(int(labels[3]) + 1)
    assert name == "RandomPixels" or not torch.equal(other.maps[0], made.maps[0])


def test_all_names_are_known_and_the_default_is_in_order():
    assert [*known_methods(SEARCH, LABELS)] == [*DEFAULT]
    assert [*known_methods(SEARCH, LABELS, names=["LRP", "Lime", "LRP"])] == ["LRP", "Lime"]
    for name, (make, _) in known_methods(SEARCH, LABELS, names=METHOD_NAMES).items():
        if "Cam" not in name:
            assert type(make(linear_net())).__name__ == name
    assert {*METHOD_NAMES} > {*DEFAULT, "LearnedPattern"}
    assert "LearnedPattern" not in DEFAULT


def keywords(name, images=SEARCH, labels=LABELS, **settings):
    return known_methods(images, labels, names=name, **settings)[name][1]


def test_budgets_and_limits_reach_the_methods_that_search():
    free = {"n_steps": None, "precision": "auto"}
    free |= {"internal_batch_size": None}
    limits = {"precision": "full", "internal_batch_size": 8}
    assert keywords("ClassPattern") == {**free, "budget": 3_500}
    assert keywords("LearnedPattern") == {**free, "budget": None}  # its own length
    assert keywords("BestRandomMask") == {"budget": 3_500}
    for side, expected in ((63, 3_500), (64, 960)):
        photos = torch.zeros(30, 3, 64, side)
        for name in ("ClassPattern", "BestRandomMask"):
            assert keywords(name, photos, labels=None)["budget"] == expected
    for name in ("ClassPattern", "LearnedPattern"):
        found = keywords(name, budget=900, **limits)
        assert found == {**free, **limits, "budget": 900}
        assert keywords(name, n_steps=7) == {**free, "n_steps": 7, "budget": None}
    assert keywords("BestRandomMask", budget=900, **limits) == {"budget": 900}
    how = known_methods(SEARCH, LABELS, names="ClassPattern", n_steps=12, precision="full")
    made = bound(how["ClassPattern"])(CANVASES[:1], [0], area=0.1, seed=0)
    steps = keywords("BestRandomMask", n_steps=12)["budget"]  # whatever the budget
    assert steps == keywords("BestRandomMask", n_steps=12, budget=500)["budget"]
    assert abs(made.passes - steps) <= 0.15 * steps


def test_keywords_of_captums_methods():
    images = torch.rand(30, 1, 28, 28)
    assert keywords("Occlusion", images, None)["sliding_window_shapes"] == (1, 4, 4)
    assert keywords("Occlusion", images, None)["strides"] == (1, 2, 2)
    for name in ("GradientShap", "DeepLiftShap"):
        references = keywords(name, images, None)["baselines"]
        assert references.shape == (20, 1, 28, 28)
        assert torch.equal(references[[0, -1]], images[[0, -1]])
    for name in ("Lime", "KernelShap", "FeatureAblation", "ShapleyValueSampling"):
        assert torch.equal(keywords(name, images, None)["feature_mask"], grid_cells(28, 28))
    assert keywords("Lime")["n_samples"] == keywords("KernelShap")["n_samples"] == 98


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 20), (6, 6), (3, 50), (224, 224)])
def test_superpixels_are_a_grid(height, width):
    cells = grid_cells(height, width)
    assert cells.shape == (1, 1, height, width)
    assert cells.unique().tolist() == list(range(min(7, height) * min(7, width)))
    for cell in cells.unique().tolist()[:: max(1, height // 20)]:
        rows, columns = torch.nonzero(cells[0, 0] == cell).T
        inside = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert len(rows) == inside  # one rectangle
        assert abs(int(rows.max() - rows.min() + 1) - height / min(7, height)) < 1


# ---- one's own methods, and what is refused

MINE = """
import captum
import torch

class Mine(captum.attr.Attribution):
    def __init__(self, model, images):
        super().__init__(model)
        self.brightness = images.images.mean()

    def attribute(self, inputs, target=None, additional_forward_args=None):
        return inputs - self.brightness

def make(model, images):
    return Mine(model, images)

Saliency = Mine
number = 3
"""


@pytest.fixture
def my_methods(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(MINE)
    (tmp_path / "needing.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_methods", None)


@pytest.mark.parametrize("name", ["Mine", "make"])
def test_a_method_of_a_users_own_gets_the_model_and_the_search_images(my_methods, name):
    found = known_methods(SEARCH, LABELS, names=["Saliency", f"my_methods:{name}"], budget=900)
    assert [*found] == ["Saliency", name]
    make, keywords = found[name]
    assert keywords == {}  # its attribute takes no budget
    method = make(linear_net())
    assert type(method).__name__ == "Mine"
    assert torch.equal(method.attribute(CANVASES), CANVASES - SEARCH.mean())
    comparison = compared(methods=[f"my_methods:{name}"])
    assert not comparison.failures
    assert {r.method for r in comparison.records} == {name}


class Unreadable(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        assert index == 0, "an image was loaded"
        return torch.zeros(1, 8, 8)


def test_a_method_is_found_by_one_name_and_the_size_of_the_first_image():
    for name in ("LRP", "IntegratedGradients", "ClassPattern", "GuidedGradCam", "BestRandomMask"):
        assert [*known_methods(Unreadable(), names=name)] == [name]
    with pytest.raises(AssertionError, match="an image was loaded"):
        known_methods(Unreadable(), names="GradientShap")


PATCHES = nn.Sequential(
    nn.Identity(), nn.Conv2d(3, 8, 3, stride=3), nn.Flatten(), nn.Linear(32, 3)
).eval()
REFUSALS = {
    "an unknown name": lambda: known_methods(SEARCH, LABELS, names=["Saliency", "SHAP"]),
    "an unknown name alone": lambda: known_methods(SEARCH, LABELS, names="L"),
    "a class in a list": lambda: known_methods(SEARCH, LABELS, names=[Exception]),
    "an unknown precision": lambda: known_methods(SEARCH, LABELS, precision="x"),
    "a module that is missing": lambda: known_methods(SEARCH, names="not_there:Mine"),
    "a module that needs another": lambda: known_methods(SEARCH, names="needing:Mine"),
    "a file": lambda: known_methods(SEARCH, names="my_methods.py:Mine"),
    "a misspelt method": lambda: known_methods(SEARCH, names="my_methods:Min"),
    "a number": lambda: known_methods(SEARCH, names="my_methods:number"),
    "two of one name": lambda: known_methods(SEARCH, names=["Saliency", "my_methods:Saliency"]),
    "patches": lambda: feature_layer(PATCHES, SEARCH[:1]),
    "no feature map": lambda: feature_layer(linear_net(), SEARCH[:1]),
    "layers of a function": lambda: feature_layer(lambda x: x.mean((2, 3)), SEARCH[:1]),
}


def test_refusals(my_methods, snapshot):
    assert refusals(REFUSALS) == snapshot


# ---- Grad-CAM


def test_grad_cam_looks_at_the_last_feature_map(demo):
    image = torch.rand(1, 1, 28, 28)
    assert feature_layer(demo[0], image) is demo[0].model.stages
    assert feature_layer(demo[0].forward, image) is demo[0].model.stages
    assert not any(part._forward_hooks for part in demo[0].modules())


# ---- failures


class Reused(nn.Module):
    """One ReLU in two places, which Captum's DeepLift cannot do."""

    def __init__(self):
        super().__init__()
        net = conv_net()
        self.first, self.relu, self.last = net[:2], nn.ReLU(), net[3:]
        self.middle = nn.Conv2d(4, 4, 1)
        nn.init.dirac_(self.middle.weight)

    def forward(self, images):
        return self.last(self.relu(self.middle(self.relu(self.first(images)))))


def test_a_method_that_fails_half_way_or_is_not_installed_harms_no_other_method(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    model = Reused().eval()
    before = state_of_caller(model)
    methods = known_methods(SEARCH, LABELS, names=["Saliency", "GuidedBackprop"])
    few = {"models": {"reused": model}, "areas": [0.1], "n_seeds": 1}
    expected = compared(**few, methods=methods)
    mixed = {"DeepLift": DeepLift, **known_methods(SEARCH, LABELS, names="Lime"), **methods}
    comparison = compared(**few, methods=mixed)
    assert state_of_caller(model) == before
    deep_lift, lime = comparison.failures
    assert (deep_lift.method, lime.method) == ("DeepLift", "Lime")
    assert "ReLU" in deep_lift.reason
    assert lime.reason == ("scikit-learn is not installed: pip install 'captum_classpattern[lime]'")
    assert all_facts(comparison) == all_facts(expected)
