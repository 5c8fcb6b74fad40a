"""PixelClassifier, and calls that leave the caller's model and random state as they were."""

import random
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from entered import entered
from refusals import refusals, warnings_of
from searched import search_masks
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_classpattern import (
    ClassPattern,
    PixelClassifier,
    explain_class,
)
from captum_classpattern.classifier import (
    device_and_dtype,
    enter_model,
    find_module,
    preserve_state,
    warn_if_guessing,
)
from captum_classpattern.classifier.calling import check_classifier

IMAGES = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")


def linear_net(channels=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 30, 3)).eval()


NET = linear_net()


class OtherOutputs(nn.Module):
    """Returns something other than one tensor."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = linear_net(), form

    def forward(self, images, scale=1.0):
        logits = scale * self.net(images)
        return {"tuple": (images, logits), "dict": {"features": [1], "logits": logits}}[self.form]


# ---- PixelClassifier


class Copies(TorchDispatchMode):
    """Counts what changes its device or precision."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket == torch.ops.aten._to_copy
        return function(*args, **(kwargs or {}))


def test_mean_and_std_are_copied_once_for_each_precision():
    model = PixelClassifier(nn.Flatten(), mean=(0.5, 0.4, 0.3), std=0.2)
    with torch.inference_mode():
        model(IMAGES)
    with Copies() as copies:
        first = model(IMAGES)
    exact = model(IMAGES.double())
    assert copies.count == 0
    assert (first.dtype, exact.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(exact.float(), first)
    leaf = IMAGES.clone().requires_grad_()  # the copies are from within inference mode
    (slope,) = torch.autograd.grad(model(leaf).sum(), leaf)
    torch.testing.assert_close(slope, torch.full_like(leaf, 5.0))
    model.mean = model.mean + 0.1
    torch.testing.assert_close(model(IMAGES), first - 0.5)
    model.mean += 0.1  # in place
    torch.testing.assert_close(model(IMAGES), first - 1)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (None, None),
        (0.5, None),
        (None, 0.25),
        (torch.tensor(0.3), torch.tensor(0.2)),
        ((0.485, 0.456, 0.406), [0.229, 0.224, 0.225]),
        (torch.tensor([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])),
        (0.5, (0.229, 0.224, 0.225)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_are_normalised_in_the_precision_of_the_images(mean, std, dtype):
    net, images = linear_net().to(dtype), IMAGES.to(dtype)
    means, stds = (
        [default] * 3 if given is None else np.broadcast_to(given, 3).tolist()
        for given, default in ((mean, 0), (std, 1))
    )
    normalised = torch.stack([(images[:, c] - means[c]) / stds[c] for c in range(3)], dim=1)
    result = PixelClassifier(net, mean, std)(images)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(result, net(normalised), atol=tolerance, rtol=0)


@pytest.mark.parametrize(("form", "output"), [("tuple", 1), ("tuple", -1), ("dict", "logits")])
def test_output_picks_the_logits(form, output):
    classifier = PixelClassifier(OtherOutputs(form), output=output)
    assert torch.equal(classifier(IMAGES), NET(IMAGES))
    assert torch.equal(classifier(IMAGES, 2.0), 2 * NET(IMAGES))


def test_names_and_weights():
    assert PixelClassifier(NET).class_names is None
    classifier = PixelClassifier(NET, 0.5, 0.25, class_names=("cat", 7))
    assert classifier.class_names == classifier.classes == ["cat", "7"]
    assert set(classifier.state_dict()) == {f"model.{key}" for key in NET.state_dict()}


def test_the_means_of_a_classifier_are_its_own():
    for values in (torch.tensor([0.25], dtype=torch.float64), torch.tensor([0.25]).numpy()):
        classifier = PixelClassifier(NET, values, values)
        values *= 255  # the caller goes on to use them in other units
        assert torch.equal(classifier(IMAGES), NET((IMAGES - 0.25) / 0.25))


# ---- careful calls


def test_device_and_dtype():
    assert find_module(NET) is NET
    assert find_module(NET.forward) is NET
    assert find_module(lambda images: images) is None
    doubled = linear_net().double()
    assert device_and_dtype(PixelClassifier(doubled), IMAGES) == (CPU, torch.float64)
    for without_parameters in (lambda images: images, nn.Flatten()):
        assert device_and_dtype(without_parameters, IMAGES.half()) == (CPU, torch.float16)
    module = nn.Module()
    module.register_buffer("counts", torch.zeros(2, dtype=torch.int64))
    assert device_and_dtype(module, IMAGES) == (CPU, torch.float32)
    module.register_buffer("weights", torch.zeros(2, dtype=torch.float64))
    assert device_and_dtype(module, IMAGES) == (CPU, torch.float64)


def states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


def test_a_model_without_values_is_refused_before_it_is_called():
    net = nn.Linear(2, 2, device="meta")
    for model in (net, net.forward, lambda images: net(images)):
        with pytest.raises(ValueError, match="no weights: load them"), enter_model(model, IMAGES):
            raise AssertionError


def test_preserve_state_restores_everything():
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Dropout())
    net[1].eval()
    before = states()

    def disturb():
        with torch.inference_mode(), preserve_state(net, seed=3):
            assert not any(part.training for part in net.modules())
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
            torch.rand(5), random.random(), np.random.rand()
            raise KeyError("stop")

    with (
        pytest.warns(UserWarning, match="train mode: it is put into eval") as caught,
        pytest.raises(KeyError, match="stop"),
    ):
        disturb()
    assert [part.training for part in net.modules()] == [True, True, False, True]
    assert states() == before
    assert [warning.filename for warning in caught] == [__file__]
    with torch.no_grad():
        with preserve_state(NET, seed=0):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_preserve_state_seeds_all_generators(monkeypatch):
    seeded = []  # of CUDA devices that are not in use
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    draws = []
    for seed in (3, 3, 4):
        torch.rand(1), random.random(), np.random.rand()
        with preserve_state(NET, seed):
            draws.append((float(torch.rand(1)), random.random(), np.random.rand()))
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2]))
    assert draws[2][0] == float(torch.rand(1, generator=torch.Generator().manual_seed(4)))
    assert seeded == []


class Accelerator:
    """A module of torch for a kind of device, in use or not: one device with a generator."""

    def __init__(self, in_use):
        self.in_use, self.seed = in_use, 7

    def is_initialized(self):
        return self.in_use

    def get_rng_state(self, device):
        return self.seed

    def set_rng_state(self, state, device):
        self.seed = state

    def manual_seed(self, seed):
        self.seed = seed


@pytest.mark.parametrize(("in_use", "seeds"), [(True, [3, 7]), (False, [7, 7])])
def test_the_generators_of_any_accelerator_in_use_are_seeded_and_kept(monkeypatch, in_use, seeds):
    module = Accelerator(in_use)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    with preserve_state(NET, 3):
        inside = module.seed
    assert [inside, module.seed] == seeds


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("CUDNN_STATUS_ALLOC_FAILED")]
)
def test_images_are_classified_half_by_half_where_the_memory_is_too_small(error):
    """With the rows of their additional arguments."""
    sizes, shifts = [], torch.arange(12.0).view(4, 3)

    def classifier(images, shift, scale):
        sizes.append(len(images))
        if len(images) > 1:
            raise error
        return scale * NET(images) + shift

    model = entered(classifier, IMAGES, additional=(shifts, 2.0))
    sizes.clear()
    found = model.outputs(IMAGES, (shifts, 2.0))
    assert torch.allclose(found, 2 * NET(IMAGES) + shifts, atol=1e-5)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    with pytest.raises(RuntimeError, match="another"):
        replace(model, logits=Raises(RuntimeError("another"))).outputs(IMAGES)


class Raises:
    def __init__(self, error):
        self.error = error

    def __call__(self, images):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried to allocate a tensor of size 1"),
        RuntimeError("expected scalar type Float but found Half"),
        RuntimeError("view size is not compatible with input tensor's size and stride"),
        RuntimeError("Sizes of tensors must match except in dimension 1 (for tensor number 1)"),
        KeyError("size"),
    ],
)
def test_mistakes_in_a_model_are_not_blamed_on_the_images(error):
    def fail(images):
        raise error

    with pytest.raises(type(error)) as caught:
        check_classifier(fail, IMAGES[:1])
    assert caught.value is error


def traced():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        return torch.jit.trace(lambda images: images * torch.ones(6), IMAGES)


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(3, 4, 7),
        torchvision.models.VisionTransformer(8, 4, 1, 1, 4, 4, num_classes=3),
        lambda images: traced()(images[..., :5]),
    ],
    ids=["size", "channels", "too small", "ViT", "traced"],
)
def test_images_of_a_shape_that_the_model_does_not_accept(network):
    """The model's own error is a part of the text, without the traceback of TorchScript."""
    text = r"model failed on images of shape \(3, 5, 6\) \((.*)\): are `size` and channels those"
    with pytest.raises(ValueError, match=text) as caught:
        check_classifier(network, IMAGES[:1])
    assert str(caught.value.__cause__).strip().splitlines()[-1] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "(in Python: load_images takes `size` and `channels`)" in str(caught.value)


LAST = IMAGES[:1].permute(0, 2, 3, 1)


def of_three_channels(images):
    raise RuntimeError("expected 3 channels")


def picked(form, output):
    return PixelClassifier(OtherOutputs(form), output=output)(IMAGES)


REFUSALS = {
    "grey images": lambda: check_classifier(nn.Conv2d(3, 4, 3), IMAGES[:, :1]),
    "a function": lambda: PixelClassifier(len),
    "a mean of bytes": lambda: PixelClassifier(NET, mean=128.0),
    "a std of bytes": lambda: PixelClassifier(NET, std=[60, 60, 60]),
    "a std of 0": lambda: PixelClassifier(NET, std=0.0),
    "a mean of NaN": lambda: PixelClassifier(NET, mean=float("nan")),
    "means of three, stds of two": lambda: PixelClassifier(NET, (0.5, 0.5, 0.5), (0.5, 0.5)),
    "means of three, images of one": lambda: PixelClassifier(NET, (0.5,) * 3)(IMAGES[:, :1]),
    "a third of two outputs": lambda: picked("tuple", 2),
    "a key of a tuple": lambda: picked("tuple", "logits"),
    "another key of a dict": lambda: picked("dict", "scores"),
    "a list of a dict": lambda: picked("dict", "features"),
    "output of one Tensor": lambda: PixelClassifier(NET, output=0)(IMAGES),
    "channels last": lambda: check_classifier(of_three_channels, LAST),
    "a path": lambda: entered("model.pt", IMAGES),
    "weights": lambda: entered({"fc.weight": torch.ones(1)}, IMAGES),
    "a number": lambda: entered(3, IMAGES),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


# ---- models that guess


LABELS = torch.arange(60) % 3
SHADES = torch.tensor([0.2, 0.5, 0.8])


def shades(seed=0):
    """Dark, grey and light images: the class is how light they are."""
    noise = 0.1 * torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
    return SHADES[LABELS].view(-1, 1, 1, 1) + noise - 0.05


class ByShade(nn.Module):
    """Takes normalised images: the classes' means are -10, 0 and 10."""

    def forward(self, x):
        return -((x.mean((1, 2, 3))[:, None] - torch.tensor([-10.0, 0.0, 10.0])) ** 2)


RAW = ByShade().eval()
RIGHT = PixelClassifier(RAW, mean=0.5, std=0.03)
ONE_STEP = {"target": 0, "n_steps": 1, "area": 0.2}


def test_a_model_of_normalised_images_that_gets_pixels_is_reported_once(snapshot):
    explainer = ClassPattern(RAW, shades(), LABELS)
    with pytest.warns(UserWarning, match="33.3 % of 60 baselines correctly") as caught:
        explainer.search(shades(1)[:1], **ONE_STEP)
    assert [(str(each.message), each.filename == __file__) for each in caught] == snapshot
    assert warnings_of(lambda: explainer.attribute(shades(1)[:1], **ONE_STEP)) == []


@pytest.mark.parametrize(
    ("model", "labels", "count"), [(RIGHT, LABELS, 60), (RAW, None, 60), (RAW, LABELS, 18)]
)
def test_a_model_that_is_right_or_gives_the_labels_or_has_few_is_not_reported(model, labels, count):
    labels = None if labels is None else labels[:count]
    explainer = ClassPattern(model, shades()[:count], labels)
    assert warnings_of(lambda: explainer.search(shades(1)[:1], **ONE_STEP)) == []


@pytest.mark.parametrize(
    ("accuracy", "labels", "classes", "warned"),
    [
        (0.0, [0, 1] * 20, 1000, True),  # two class folders that are not the model's 0 and 1
        (0.6, [0, 1] * 20, 1000, False),
        (0.54, [0, 1] * 20, 2, True),  # a half is what a coin gives
        (0.56, [0, 1] * 20, 2, False),
        (0.9, [0] * 38 + [1] * 2, 2, True),  # so does calling all of them class 0
        (0.0, [0, 1] * 9, 2, False),  # too few to tell
    ],
)
def test_guessing_is_accuracy_at_chance(accuracy, labels, classes, warned):
    labels = torch.tensor(labels)
    assert bool(warnings_of(lambda: warn_if_guessing(accuracy, labels, classes, "x"))) == warned


@pytest.mark.parametrize(("right", "warned"), [(188, True), (200, False)])
def test_class_pattern_warns_where_explain_class_does(right, warned):
    """Of 1,000 images of ten classes. On some hundred of them, accuracies differ by chance."""
    classes = torch.arange(1_000) % 10
    labels = classes.clone()
    labels[torch.randperm(1_000, generator=torch.Generator().manual_seed(0))[right:]] += 1
    labels %= 10
    images = (classes / 10).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)

    def model(images):
        return -((images.mean((1, 2, 3))[:, None] - torch.arange(10) / 10) ** 2)

    explainer = ClassPattern(model, images, labels)
    first = warnings_of(lambda: explainer.search(images[:1], **ONE_STEP))
    held_out = torch.rand(20, 1, 4, 4), torch.arange(20) % 10
    other = warnings_of(
        lambda: explain_class(
            *(model, held_out, None, 0), held_out=(images, labels), n_steps=1, area=0.2
        )
    )
    assert [any("guessing" in text for text in texts) for texts in (first, other)] == [warned] * 2


# ---- what a search may not do to a device


class NoFloat64(TorchDispatchMode):
    """Like a device that has no float64, such as Apple's mps."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        for tensor in made:
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64:
                raise TypeError(f"{function} makes float64")
        return result


def test_a_search_needs_no_float64_on_the_device():
    settings = {"baseline_labels": LABELS, "n_steps": 2, "area": 0.2}
    canvases, baselines = shades(1)[:2], shades()
    with NoFloat64():
        search_masks(RAW, canvases, [0, 1], baselines, **settings)
    assert not [b for b in RIGHT.buffers() if b.dtype == torch.float64]
