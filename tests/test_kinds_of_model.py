"""The table "Does it work on my model?" of the documentation, a test for each of its rows."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

import captum_classpattern as cp

PAGE = Path(__file__).parents[1] / "docs" / "bring_your_own_model.md"
SIDE, CLASSES = 16, 3
QUICK = {
    "area": 0.1,
    "canvases": {"positive": 2, "white": 1},
    "n_steps": 3,
    "precision": "full",
    "show_progress": False,
}


def some_images(channels=3, count=60):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, SIDE, SIDE, generator=generator)


LABELS = torch.arange(60) % CLASSES


def cnn(channels=3, outputs=CLASSES):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 7 * 7, outputs),
    )


def vit():
    network = VisionTransformer(SIDE, 8, 1, 2, 8, 8, num_classes=CLASSES)
    nn.init.normal_(network.heads.head.weight)  # torchvision's is 0
    return network


def swin():
    return SwinTransformer([2, 2], 8, [1, 1], [1, 2], [2, 2], num_classes=CLASSES)


def mixer():
    timm = pytest.importorskip("timm")
    network = timm.models.MlpMixer(CLASSES, SIDE, patch_size=8, num_blocks=1, embed_dim=8)
    nn.init.normal_(network.head.weight)  # timm's is 0
    return network


@pytest.fixture(autouse=True)
def untrained():
    """These models only guess, and their weights are the same in each run."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*close to guessing")
        yield


@pytest.fixture
def net():
    return cnn().eval()


@pytest.fixture
def expected(net):
    return cp.explain_class(net, some_images(), LABELS, 1, **QUICK)


def explain(model, channels=3, labels=LABELS, **settings):
    return cp.explain_class(model, some_images(channels), labels, 1, **{**QUICK, **settings})


def assert_same(found, other):
    assert torch.equal(found.pattern.mask > 0, other.pattern.mask > 0)
    assert (found.canvas, found.scores) == (other.canvas, other.scores)


def margin(model, images):
    """How far the class is above the best other one, on average."""
    logits = model(images).detach()
    return float((logits[:, 1] - logits[:, [0, 2]].amax(1)).mean())


@pytest.mark.parametrize("make", [cnn, vit, swin, mixer])
def test_any_network_without_a_setting(make):
    """The pattern's pixels raise the class more than random ones of the same canvas."""
    model = make().eval()
    found = explain(model)
    held_out = some_images()[LABELS != 1]
    mask, canvas = found.pattern.topk(0.1).mask, found.pattern.canvas
    assert int(mask.sum()) == 26
    random = [mask.flatten()[torch.randperm(SIDE**2)].view_as(mask) for _ in range(10)]
    levels = [margin(model, m * canvas + (1 - m) * held_out) for m in (mask, *random)]
    assert levels[0] > max(levels[1:])


def test_normalised_images(net, expected):
    """A network whose first layer undoes the mean and std is the same classifier."""
    mean, std = (0.25, 0.5, 0.75), (0.5, 0.25, 0.125)
    undo = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        undo.weight.copy_(torch.diag(torch.tensor(std)).view(3, 3, 1, 1))
        undo.bias.copy_(torch.tensor(mean))
    network = nn.Sequential(undo, *net).eval()
    assert_same(explain(network, mean=mean, std=std), expected)
    with pytest.raises(AssertionError):
        assert_same(explain(network), expected)


def test_one_channel(tmp_path):
    """Files are read with one channel, and explained as such a Tensor is."""
    network = cnn(1).eval()
    values = (255 * some_images(1)).round().byte()
    for i, (image, label) in enumerate(zip(values, LABELS.tolist())):
        path = tmp_path / f"{label}" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).convert("RGB").save(path)
    source = cp.load_images(tmp_path, size=SIDE, channels=1)
    order = LABELS.argsort(stable=True)
    found = cp.explain_class(network, source, target=1, **QUICK)
    assert found.pattern.canvas.shape == (1, SIDE, SIDE)
    tensors = cp.explain_class(network, values[order] / 255, LABELS[order], 1, **QUICK)
    assert_same(found, tensors)


def test_ones_own_head(net, expected):
    names = ["ant", "bee", "cat"]
    network = nn.Sequential(*net[:-1], nn.Linear(196, 7)).eval()  # the head of other classes
    network[-1] = net[-1]
    found = cp.explain_class(network, some_images(), LABELS, "bee", class_names=names, **QUICK)
    assert found.label == "bee"
    assert_same(found, expected)


class Returning(nn.Module):
    """The network with its output in another form."""

    def __init__(self, network, form):
        super().__init__()
        self.network, self.form = network, form

    def forward(self, images):
        return self.form(self.network(images))


class ModelOutput(OrderedDict):
    """Like the outputs of transformers: keys, attributes and indices."""

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else [*self.values()][key]

    def __getattr__(self, name):
        return self[name]


FORMS = {
    "tuple": (lambda logits: (logits, logits.sum()), 0),
    "last of a list": (lambda logits: [logits.sum(), logits], -1),
    "dict": (lambda logits: {"loss": None, "logits": logits}, "logits"),
    "Hugging Face": (lambda logits: ModelOutput(logits=logits), "logits"),
}


@pytest.mark.parametrize("form", FORMS)
def test_output_picks_the_logits_of_a_tuple_or_dict(net, expected, form):
    wrapped, output = Returning(net, FORMS[form][0]).eval(), FORMS[form][1]
    assert_same(explain(cp.PixelClassifier(wrapped, output=output)), expected)
    with pytest.raises(TypeError, match="which part holds the logits, such as `output=-1` or"):
        explain(wrapped)


@pytest.mark.parametrize("ends_in", ["a logit", "a sigmoid"])
def test_one_output(ends_in):
    network = cnn(outputs=1).eval()
    labels = torch.arange(60) % 2

    def two_columns(images):
        z = network(images)
        return torch.cat([torch.zeros_like(z), z], dim=1)

    def two_shares(images):
        p = network(images).sigmoid()
        return torch.cat([1 - p, p], dim=1)

    with pytest.raises(ValueError, match=r"return torch.cat\(\[torch.zeros_like\(z\), z\], dim=1"):
        explain(network, labels=labels)
    found = explain(two_columns, labels=labels)
    if ends_in == "a sigmoid":
        with pytest.warns(cp.Notice, match="look like probabilities"):
            shares = explain(two_shares, labels=labels)
        assert_same(shares, found)
    stamped = found.stamp(some_images()[labels == 0])
    assert network(stamped).mean() > network(some_images()[labels == 0]).mean()


@pytest.mark.filterwarnings("ignore:the model's outputs are all")
@pytest.mark.parametrize("end", [nn.Softmax(1), nn.LogSoftmax(1)])
def test_a_softmax_or_its_logarithm_at_the_end(net, expected, end):
    assert_same(explain(nn.Sequential(net, end).eval()), expected)


@pytest.mark.parametrize("form", ["DataParallel", "traced", "scripted", "a function", "a method"])
def test_other_forms_of_a_model(net, expected, form):
    make = {
        "DataParallel": lambda: nn.DataParallel(net).eval(),
        "traced": lambda: torch.jit.trace(net, some_images()[:2]),
        "scripted": lambda: torch.jit.script(net),
        "a function": lambda: lambda images: net(images),
        "a method": lambda: net.forward,
    }[form]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        model = make()
        assert_same(explain(model), expected)
        assert_same(explain(model, precision="auto"), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(net, expected, dtype):
    found = explain(net.to(dtype))
    assert next(net.parameters()).dtype == dtype
    if dtype == torch.float64:
        assert torch.equal(found.pattern.mask > 0, expected.pattern.mask > 0)
    powers = [each.scores[0.1].power.value for each in (found, expected)]
    assert powers[0] == pytest.approx(powers[1], abs=0.1)


@pytest.mark.parametrize("broken", ["no_grad", "classes", "numpy"])
def test_a_model_without_a_gradient_is_refused(net, broken):
    forward = {
        "no_grad": torch.no_grad()(lambda images: net(images)),
        "classes": lambda images: nn.functional.one_hot(net(images).argmax(1), CLASSES).float(),
        "numpy": lambda images: torch.from_numpy(net(images).detach().numpy()),
    }[broken]
    with pytest.raises(ValueError, match="logits carry no gradient"):
        explain(forward)


def test_detection_and_segmentation_are_refused_unless_a_function_gives_one_logit_per_class():
    detector = Returning(nn.Flatten(), lambda flat: [{"boxes": row} for row in flat]).eval()
    with pytest.raises(TypeError, match=r"must return logits \(N, K\) as one Tensor, got a list"):
        explain(detector)
    network = nn.Conv2d(3, CLASSES, 3).eval()
    with pytest.raises(ValueError, match=r"must return logits \(1, K\) .* shape \(1, 3, 14, 14\)"):
        explain(network)
    found = explain(lambda images: network(images).mean((2, 3)))
    assert found.scores[0.1].power.n == 20


def test_a_label_of_a_model_of_several_labels_is_a_model_of_two_classes():
    network = cnn(outputs=5).eval()
    several = torch.randint(2, (60, 5))
    text = r"images has 60 images, so its labels must have shape \(60,\), got \(60, 5\)"
    with pytest.raises(ValueError, match=text):
        explain(network, labels=several)

    def third_label(images):
        z = network(images)[:, 3:4]
        return torch.cat([torch.zeros_like(z), z], dim=1)

    labels = several[:, 3]
    found = explain(third_label, labels=labels)
    without = some_images()[labels == 0]
    assert network(found.stamp(without))[:, 3].mean() > network(without)[:, 3].mean()


ROWS = {
    "a convolutional network": test_any_network_without_a_setting,
    "a vision transformer, Swin, an MLP-Mixer": test_any_network_without_a_setting,
    "expects normalised images": test_normalised_images,
    "takes images with one channel": test_one_channel,
    "has its own head or classes": test_ones_own_head,
    "returns a tuple or a dict": test_output_picks_the_logits_of_a_tuple_or_dict,
    "has one output": test_one_output,
    "ends in a softmax or log-softmax": test_a_softmax_or_its_logarithm_at_the_end,
    "is wrapped in DataParallel, traced or scripted": test_other_forms_of_a_model,
    "has several labels per image": (
        test_a_label_of_a_model_of_several_labels_is_a_model_of_two_classes
    ),
    "detects or segments": (
        test_detection_and_segmentation_are_refused_unless_a_function_gives_one_logit_per_class
    ),
    "has no gradient": test_a_model_without_a_gradient_is_refused,
}


def test_each_row_of_the_page_has_a_test():
    _, table = re.split(r"\| your model \|.*\n\|---.*\n", PAGE.read_text())
    rows = re.findall(r"^\| (.*?) \|", table.partition("\n\n")[0], re.MULTILINE)
    assert len(rows) == len(ROWS)
    for row, start in zip(rows, ROWS):
        assert row.startswith(start)
