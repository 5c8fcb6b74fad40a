"""The methods by name: each runs on a real model and leaves it as it was."""

import re
import sys

import pytest
import torch
import torchvision
from captum.attr import DeepLift, InputXGradient, Saliency
from comparisons import CANVASES, LABELS, METHODS, SEARCH, all_facts, compared, conv_net, linear_net
from test_captum_contract import state_of_caller
from torch import nn
from torch.utils.data import Dataset

from captum_classpattern.comparison import DEFAULT, known_methods
from captum_classpattern.comparison.maps import BoundMethod
from captum_classpattern.comparison.methods import feature_layer, grid_cells
from captum_classpattern.demo import demo_images, demo_models

OTHERS = (
    "DeepLiftShap",
    "GuidedBackprop",
    "Deconvolution",
    "FeatureAblation",
    "ShapleyValueSampling",
)
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
    "ShapleyValueSampling": (25 * 49 + 1) / 2,
    "GuidedGradCam": 2,
    "LayerGradCam": 1,
    "RandomPixels": 0,
    "ClassMean": 0,
    "NearestImage": 0,
    "BestRandomMask": 160,  # 16 masks on 20 images, as many as ClassPattern has in a round
}


@pytest.fixture(scope="module")
def demo():
    search = demo_images().search
    images, labels = search.images[::25], search.labels[::25]
    return demo_models()["natural"], images, labels


def explained(model, how, images, targets):
    return BoundMethod(how, model, images)(images, targets, area=0.05, seed=0)


@pytest.mark.parametrize("name", [*DEFAULT, *OTHERS])
def test_each_explains_the_demos_model_and_leaves_it_as_it_was(demo, name):
    model, images, labels = demo
    [(known, how)] = known_methods(images, labels, names=[name], n_steps=1).items()
    assert known == name
    canvases, targets = images[[3, 30]], labels[[3, 30]].tolist()
    before = state_of_caller(model, canvases, images)
    maps = explained(model, how, canvases, targets)
    assert state_of_caller(model, canvases, images) == before
    assert maps.by_pixel.shape == (2, 28, 28)
    assert maps.by_pixel.isfinite().all()
    assert maps.by_pixel.abs().amax((1, 2)).min() > 0
    assert maps.by_pixel.flatten(1).std(1).min() > 0
    if name in PASSES:
        assert maps.passes / 2 == PASSES[name]
    again = explained(model, how, canvases, targets)
    assert torch.equal(again.by_pixel, maps.by_pixel)
    other = explained(model, how, canvases, [t + 1 for t in targets])
    assert name == "RandomPixels" or not torch.equal(other.by_pixel, maps.by_pixel)


def test_all_names_are_known_and_the_default_is_in_order(demo):
    _, images, labels = demo
    assert list(known_methods(images, labels)) == list(DEFAULT)
    assert list(known_methods(images, labels, names=["LRP", "Lime"])) == ["LRP", "Lime"]
    for name, (make, _) in known_methods(images, labels, names=[*DEFAULT, *OTHERS]).items():
        if "Cam" not in name:
            expected = "NearestImage" if name == "NearestFeatures" else name
            assert type(make(linear_net())).__name__ == expected


def test_the_error_about_an_unknown_name_lists_the_known_ones(demo):
    _, images, labels = demo
    with pytest.raises(ValueError, match=r"there is no method 'SHAP': choose from ClassPattern, "):
        known_methods(images, labels, names=["Saliency", "SHAP"])
    with pytest.raises(
        ValueError, match=r"LearnedPattern, or give a function from a model to an .*MODULE:NAME"
    ):
        known_methods(images, labels, names=["SHAP"])


MINE = """
import captum
import torch

class Mine(captum.attr.Attribution):
    def __init__(self, model, images):
        super().__init__(model)
        self.brightness = images.images.mean()

    def attribute(self, inputs, target=None, additional_forward_args=None):
        in_tuple = isinstance(inputs, tuple)
        return (self.attribute(inputs[0]),) if in_tuple else inputs - self.brightness

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


def test_what_is_no_attribution_is_a_failure_that_says_so():
    [failure] = compared(
        methods={"three": lambda model: 3}, canvases=CANVASES[:1], targets=0
    ).failures
    assert failure.reason == (
        "TypeError: a method is a function from a model to an Attribution, but it returned int"
    )


def test_errors_about_a_method_of_ones_own(my_methods):
    cases = {
        "not_there:Mine": (ImportError, "method 'not_there:Mine': there is no module 'not_there'"),
        "needing:Mine": (ImportError, "imports 'not_installed_anywhere', which is not installed"),
        "my_methods.py:Mine": (ValueError, "'my_methods.py' is not a module: give package.modu"),
        "my_methods:Min": (ValueError, "no function or class 'Min'; did you mean Mine"),
        "my_methods:number": (ValueError, "my_methods has no function or class 'number'"),
    }
    for name, (error, text) in cases.items():
        with pytest.raises(error, match=re.escape(text)):
            known_methods(SEARCH, LABELS, names=[name])
    with pytest.raises(ValueError, match="two methods are named 'Saliency': rename one of them"):
        known_methods(SEARCH, LABELS, names=["Saliency", "my_methods:Saliency"])
    assert [*known_methods(SEARCH, LABELS, names=["LRP", "LRP"])] == ["LRP"]  # the same one


def test_a_precision_that_is_none_is_refused_before_a_method_runs():
    with pytest.raises(
        ValueError, match="`precision` must be one of auto, full, bfloat16, got 'x'"
    ):
        known_methods(torch.rand(30, 1, 28, 28), precision="x")


def test_the_keywords():
    images = torch.rand(30, 1, 28, 28)
    methods = known_methods(images, names=[*DEFAULT, *OTHERS], n_steps=7, precision="full")
    assert methods["ClassPattern"][1] == {
        "budget": None,
        "n_steps": 7,
        "max_seconds": None,
        "precision": "full",
        "internal_batch_size": None,
    }
    default = known_methods(images, names=["ClassPattern"])["ClassPattern"][1]
    assert (default["budget"], default["n_steps"]) == (3_500, None)
    assert methods["Occlusion"][1]["sliding_window_shapes"] == (1, 4, 4)
    assert methods["Occlusion"][1]["strides"] == (1, 2, 2)
    for name in ("GradientShap", "DeepLiftShap"):
        references = methods[name][1]["baselines"]
        assert references.shape == (20, 1, 28, 28)
        assert torch.equal(references[[0, -1]], images[[0, -1]])
    for name in ("Lime", "KernelShap", "FeatureAblation", "ShapleyValueSampling"):
        assert torch.equal(methods[name][1]["feature_mask"], grid_cells(28, 28))


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


# ---- Grad-CAM


def test_grad_cam_looks_at_the_last_feature_map(demo):
    image = torch.rand(1, 1, 28, 28)
    assert feature_layer(demo[0], image) is demo[0].model.stages
    assert feature_layer(demo[0].forward, image) is demo[0].model.stages
    assert not any(part._forward_hooks for part in demo[0].modules())


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "layer4"), ("densenet121", "features")])
def test_grad_cam_of_known_networks_looks_behind_the_last_block(name, layer):
    net = getattr(torchvision.models, name)(weights=None).eval()
    assert feature_layer(net, torch.rand(1, 3, 64, 64)) is getattr(net, layer)


def test_grad_cam_does_not_take_patches_for_features():
    patches = nn.Conv2d(3, 8, 4, stride=4)
    net = nn.Sequential(nn.Identity(), patches, nn.Flatten(), nn.Linear(32, 3))
    with pytest.raises(ValueError, match="but the model has only patches of the image"):
        feature_layer(net, torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("model", [linear_net(), lambda images: linear_net()(images)], ids=type)
def test_grad_cam_without_a_convolution_is_a_failure_that_says_so(model):
    methods = known_methods(SEARCH, LABELS, names=["LayerGradCam", "GuidedGradCam", "Saliency"])
    comparison = compared(models={"m": model}, methods=methods)
    assert [(f.method, f.what) for f in comparison.failures] == [
        ("LayerGradCam", "maps"),
        ("GuidedGradCam", "maps"),
    ]
    assert all(f.reason.startswith("ValueError: Grad-CAM needs a ") for f in comparison.failures)
    assert {r.method for r in comparison.records} == {"Saliency"}


def test_a_map_of_a_layer_has_none_of_captums_metrics():
    methods = known_methods(SEARCH, LABELS, names=["LayerGradCam", "Saliency"])
    comparison = compared(models={"m": conv_net()}, methods=methods)
    assert not comparison.failures
    for record in comparison.select(ranking="signed", level="image"):
        assert (record.score("infidelity") is None) == (record.method == "LayerGradCam")
        assert (record.score("sensitivity") is None) == (record.method == "LayerGradCam")


# ---- failures


def test_lime_without_scikit_learn_is_a_failure_and_the_rest_goes_on(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    methods = {**known_methods(SEARCH, LABELS, names=["Lime"]), **METHODS}
    comparison = compared(methods=methods)
    [failure] = comparison.failures
    assert (failure.method, failure.what) == ("Lime", "maps")
    assert (
        failure.reason == "ImportError: needs scikit-learn: pip install 'captum_classpattern[lime]'"
    )
    assert all_facts(comparison) == all_facts(compared())


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


def test_deep_lift_with_a_reused_relu_harms_no_other_method():
    model = Reused().eval()
    before = state_of_caller(model)
    methods = known_methods(SEARCH, LABELS, names=["Saliency", "GuidedBackprop", "GradientShap"])
    expected = compared(models={"reused": model}, methods=methods)
    mixed = {"DeepLift": DeepLift, **methods}
    comparison = compared(models={"reused": model}, methods=mixed)
    assert state_of_caller(model) == before
    [failure] = comparison.failures
    assert failure.method == "DeepLift"
    assert "ReLU" in failure.reason
    assert all_facts(comparison) == all_facts(expected)


@pytest.mark.parametrize("method", [DeepLift, InputXGradient, Saliency])
def test_an_error_inside_captum_half_way_harms_no_other_method(monkeypatch, method):
    """The gradient goes wrong when Captum's hooks are already in the model."""
    expected = compared(models={"conv": conv_net()})

    class Broken(method):
        def attribute(self, *args, **kwargs):
            def wrong(*args, **kwargs):
                raise RuntimeError("gradients went wrong")

            self.gradient_func = wrong
            return super().attribute(*args, **kwargs)

    comparison = compared(models={"conv": conv_net()}, methods={"broken": Broken, **METHODS})
    [failure] = comparison.failures
    assert failure.method == "broken"
    assert failure.reason == "RuntimeError: gradients went wrong"
    assert all_facts(comparison) == all_facts(expected)


def test_lime_is_seeded():
    lime = known_methods(SEARCH, LABELS, names=["Lime"])["Lime"]
    one, same, other = (
        BoundMethod(lime, conv_net(), CANVASES)(CANVASES[:2], [0, 1], area=0.1, seed=seed).by_pixel
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


class Unreadable(Dataset):
    def __len__(self):
        return 30

    def __getitem__(self, index):
        raise AssertionError("an image was loaded")


def test_a_method_is_found_by_one_name_without_a_look_at_the_images():
    for name in ("LRP", "IntegratedGradients", "ClassPattern", "GuidedGradCam", "NearestImage"):
        assert [*known_methods(Unreadable(), names=name)] == [name]
    with pytest.raises(AssertionError, match="an image was loaded"):
        known_methods(Unreadable(), names="GradientShap")
    with pytest.raises(ValueError, match="there is no method 'L': choose from ClassPattern, "):
        known_methods(SEARCH, LABELS, names=["L"])
