"""PixelClassifier, and calls that leave the caller's model and random state as they were."""

import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.classifier import (
    additional_rows,
    check_classifier,
    device_and_dtype,
    find_module,
    preserve_state,
    warn,
)

IMAGES = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))


def linear_net(channels=3):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 30, 3)).eval()


class OtherOutputs(nn.Module):
    """Returns something other than one tensor."""

    def __init__(self, form):
        super().__init__()
        self.net, self.form = linear_net(), form

    def forward(self, images, scale=1.0):
        logits = scale * self.net(images)
        return {"tuple": (images, logits), "dict": {"features": [1], "logits": logits}}[self.form]


@pytest.mark.parametrize(
    ("mean", "std"),
    [(None, None), (0.5, None), (None, 0.25), (0.3, 0.2), (torch.tensor(0.3), torch.tensor(0.2))],
)
def test_one_mean_and_std(mean, std):
    net = linear_net()
    expected = net((IMAGES - (0 if mean is None else mean)) / (1 if std is None else std))
    result = PixelClassifier(net, mean, std)(IMAGES)
    torch.testing.assert_close(result, expected)


def test_a_mean_and_std_per_channel():
    mean, std, net = (0.485, 0.456, 0.406), [0.229, 0.224, 0.225], linear_net()
    normalised = torch.stack([(IMAGES[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(PixelClassifier(net, mean, std)(IMAGES), net(normalised))
    classifier = PixelClassifier(net, torch.tensor(mean), np.array(std))
    torch.testing.assert_close(classifier(IMAGES), net(normalised))


@pytest.mark.parametrize(("form", "output"), [("tuple", 1), ("tuple", -1), ("dict", "logits")])
def test_output_picks_the_logits(form, output):
    classifier = PixelClassifier(OtherOutputs(form), output=output)
    assert torch.equal(classifier(IMAGES), linear_net()(IMAGES))
    assert torch.equal(classifier(IMAGES, 2.0), 2 * linear_net()(IMAGES))


def test_class_names():
    assert PixelClassifier(linear_net()).class_names is None
    assert PixelClassifier(linear_net(), class_names=("cat", 7)).class_names == ["cat", "7"]


@pytest.mark.parametrize("mode", [True, False])
def test_the_models_mode_is_kept(mode):
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)).train(mode)
    net[1].eval()
    classifier = PixelClassifier(net)
    assert classifier.training is net.training is mode
    assert not net[1].training
    assert net[0].training is mode
    classifier.eval()
    assert not net.training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision(dtype):
    net = linear_net().to(dtype)
    result = PixelClassifier(net, 0.3, 0.2)(IMAGES.to(dtype))
    assert result.dtype == dtype
    expected = linear_net()((IMAGES - 0.3) / 0.2)
    torch.testing.assert_close(
        result.float(), expected, atol=0.2 if dtype is torch.bfloat16 else 1e-5, rtol=0
    )
    assert device_and_dtype(PixelClassifier(net), IMAGES) == (torch.device("cpu"), dtype)


def test_double_precision_normalises_in_double():
    images = IMAGES.double()
    net = linear_net().double()
    result = PixelClassifier(net, 0.3, 0.2)(images)
    torch.testing.assert_close(result, net((images - 0.3) / 0.2), atol=1e-12, rtol=0)


def test_a_torchvision_model():
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(num_classes=5).eval()
    images = torch.rand(2, 3, 32, 32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalise = torchvision.transforms.Normalize(mean, std)
    with torch.no_grad():
        result = PixelClassifier(resnet, mean, std)(images)
        torch.testing.assert_close(result, resnet(normalise(images)))
    assert result.shape == (2, 5)


def test_only_the_weights_are_saved():
    net = linear_net()
    classifier = PixelClassifier(net, 0.3, 0.2)
    assert set(classifier.state_dict()) == {f"model.{key}" for key in net.state_dict()}


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"model": len}, TypeError, r"model must be a torch\.nn\.Module, got builtin_function"),
        (
            {"mean": 128.0},
            ValueError,
            r"`mean` must be in units .*\[0, 1\], got 128.0: divide it by",
        ),
        ({"std": [60, 60, 60]}, ValueError, r"`std` must be in units .*divide it by 255"),
        ({"std": 0.0}, ValueError, "`std` must be positive, got 0.0"),
        ({"std": [0.2, -0.2, 0.2]}, ValueError, "`std` must be positive"),
        (
            {"mean": float("nan")},
            ValueError,
            "`mean` must be a number, or one per channel, got nan",
        ),
        (
            {"mean": [[0.5]]},
            ValueError,
            r"`mean` must be a number, or one per channel, got \[\[0.5\]\]",
        ),
    ],
)
def test_wrong_settings(kwargs, error, text):
    with pytest.raises(error, match=text):
        PixelClassifier(**{"model": linear_net(), **kwargs})


@pytest.mark.parametrize(
    ("mean", "std", "channels"),
    [
        ((0.5, 0.5, 0.5), None, 1),
        (None, (0.5, 0.5, 0.5), 1),
        (0.5, (0.5, 0.5, 0.5), 1),
        ((0.5, 0.5), 0.5, 3),
        ((0.5, 0.5, 0.5), (0.5, 0.5), 3),
    ],
)
def test_channels_that_mean_and_std_do_not_fit(mean, std, channels):
    with pytest.raises(ValueError, match="`mean` and `std`"):
        PixelClassifier(linear_net(), mean, std)(IMAGES[:, :channels])


@pytest.mark.parametrize(
    ("form", "output", "error", "text"),
    [
        ("tuple", 2, ValueError, "`output=2` does not pick the logits: .* a tuple of 2"),
        ("tuple", "logits", ValueError, "`output='logits'` does not pick .* a tuple of 2"),
        ("dict", "scores", ValueError, r"a dict with keys \['features', 'logits'\]"),
        ("dict", "features", TypeError, "`output='features'` picks a list, expected a Tensor"),
    ],
)
def test_an_output_that_is_not_there(form, output, error, text):
    with pytest.raises(error, match=text):
        PixelClassifier(OtherOutputs(form), output=output)(IMAGES)


def test_find_module_sees_through_bound_methods():
    net = linear_net()
    assert find_module(net) is net
    assert find_module(net.forward) is net
    assert find_module(lambda images: images) is None


def test_a_function_has_the_device_and_dtype_of_the_images():
    assert device_and_dtype(lambda images: images, IMAGES.half()) == (
        torch.device("cpu"),
        torch.float16,
    )
    assert device_and_dtype(nn.Flatten(), IMAGES.half()) == (torch.device("cpu"), torch.float16)


def states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


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


def test_preserve_state_seeds_all_generators():
    draws = []
    for seed in (3, 3, 4):
        torch.rand(1), random.random(), np.random.rand()
        with preserve_state(linear_net(), seed):
            draws.append((float(torch.rand(1)), random.random(), np.random.rand()))
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[0], draws[2]))


def test_preserve_state_keeps_gradients_off_outside():
    with torch.no_grad():
        with preserve_state(linear_net(), seed=0):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


def test_a_warning_points_at_the_caller():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("careful")
    assert [(str(w.message), w.category, w.filename) for w in caught] == [
        ("careful", UserWarning, __file__)
    ]


def test_additional_rows():
    rows = torch.tensor([1, 1, 0])
    per_row, shared = torch.tensor([[1.0], [2.0]]), torch.zeros(3)
    first, second, third, fourth = additional_rows((per_row, shared, "x", None), rows, 2)
    assert first.tolist() == [[2.0], [2.0], [1.0]]
    assert second is shared
    assert (third, fourth) == ("x", None)


def test_output_is_refused_if_the_model_returns_one_tensor():
    with pytest.raises(ValueError, match=r"one Tensor of shape \(2, 3\): leave out `output`"):
        PixelClassifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), output=0)(
            torch.rand(2, 3, 2, 2)
        )


def test_unused_cuda_devices_are_not_seeded(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    with preserve_state(nn.Identity().eval(), seed=5):
        first = torch.rand(1)
    assert seeded == []
    assert torch.equal(first, torch.rand(1, generator=torch.Generator().manual_seed(5)))


def test_a_new_mean_is_used_at_once():
    classifier = PixelClassifier(linear_net(), 0.5, 0.25)
    classifier(IMAGES)
    classifier.mean = torch.zeros_like(classifier.mean)
    assert torch.equal(classifier(IMAGES), linear_net()(IMAGES / 0.25))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(48, 3)),
        nn.Conv2d(1, 4, 3),
        nn.Conv2d(3, 4, 7),
        torchvision.models.VisionTransformer(8, 4, 1, 1, 4, 4, num_classes=3),
    ],
    ids=["size", "channels", "too small", "ViT"],
)
def test_images_of_a_shape_that_the_model_does_not_accept(network):
    with pytest.raises(ValueError, match=r"model failed on images of shape \(3, 5, 6\)") as caught:
        check_classifier(network, IMAGES[:1], [])
    assert str(caught.value.__cause__).strip().splitlines()[-1] in str(caught.value)
    assert "are size and channels those that it was trained on?" in str(caught.value)
    assert "load_images has `size` and `channels` for that" in str(caught.value)


def test_a_traced_model_names_its_error_without_its_traceback():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        traced = torch.jit.trace(linear_net(), IMAGES)
    with pytest.raises(ValueError, match=r"shape \(3, 4, 4\) \(RuntimeError: mat1 and mat2 shapes"):
        check_classifier(traced, torch.rand(1, 3, 4, 4), [])


@pytest.mark.parametrize("mean", [None, (0.5, 0.4, 0.3)])
def test_images_with_the_channels_last(mean):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 12, 3)).eval()
    text = r"look like \(N, H, W, C\), so permute them by \.permute\(0, 3, 1, 2\)"
    with pytest.raises(ValueError, match=text):
        check_classifier(PixelClassifier(network, mean), IMAGES[:1].permute(0, 2, 3, 1), [])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("tried to allocate a tensor of size 1"),
        RuntimeError("expected scalar type Float but found Half"),
        KeyError("size"),
    ],
)
def test_other_errors_of_a_model_stay(error):
    def fail(images):
        raise error

    with pytest.raises(type(error)) as caught:
        check_classifier(fail, IMAGES[:1], [])
    assert caught.value is error


def views_permuted(images):
    return images.permute(0, 2, 3, 1).view(len(images), -1)


def joins_unequal(images):
    return torch.cat([images[..., :1], images[:, :1, :2, :2]], dim=1).flatten(1)


@pytest.mark.parametrize(
    ("forward", "text"),
    [(views_permuted, "view size is not compatible"), (joins_unequal, "Sizes of tensors must mat")],
)
def test_mistakes_in_a_model_are_not_blamed_on_the_images(forward, text):
    with pytest.raises(RuntimeError, match=text) as caught:
        check_classifier(forward, IMAGES[:1], [])
    assert "images of shape" not in str(caught.value)


@pytest.mark.parametrize("given", ["model.pt", Path("model.pt"), {"fc.weight": torch.ones(1)}, 3])
def test_what_is_no_classifier(given):
    with pytest.raises(TypeError, match="give a PixelClassifier, a function, or") as caught:
        check_classifier(given, IMAGES[:1], [])
    assert ("open a checkpoint by cp.load_model(" in str(caught.value)) == (given != 3)
