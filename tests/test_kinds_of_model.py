"""Each row of the table "Does it work on my model?" in docs/bring_your_own_model.md."""

import functools
import warnings
from collections import OrderedDict

import pytest
import torch
from refusals import refusals
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

import captum_classpattern as cp

SIDE, CLASSES = 16, 3
LABELS = torch.arange(60) % CLASSES


def some_images(count=60):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def cnn(outputs=CLASSES):
    torch.manual_seed(0)
    before = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*before, nn.Linear(4 * 7 * 7, outputs)).eval()


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


NET = cnn()


@pytest.fixture(autouse=True)
def untrained():
    """These models only guess, and their weights are the same in each run."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*close to guessing")
        yield


def search(model, labels=LABELS, target=1):
    """The pattern of a white canvas, which starts twice, and that of an image."""
    canvases = torch.cat([torch.ones(1, 3, SIDE, SIDE), some_images(1)])
    settings = {"area": 0.1, "n_steps": 3, "precision": "full"}
    return cp.ClassPattern(model, some_images(), labels).search(canvases, target, **settings)


def assert_same(found, others):
    for one, other in zip(found, others, strict=True):
        assert torch.equal(one.mask > 0, other.mask > 0)
        assert one.info["search_power"] == other.info["search_power"]


def margin(model, images):
    """How far the class is above the best other one, on average."""
    logits = model(images).detach()
    return float((logits[:, 1] - logits[:, [0, 2]].amax(1)).mean())


IN_CI = [pytest.param(make, marks=pytest.mark.script) for make in (swin, mixer)]


@pytest.mark.parametrize("make", [cnn, vit, *IN_CI])
def test_any_network_without_a_setting(make):
    """The pattern's pixels raise the class more than random ones of the same canvas."""
    model, others = make().eval(), some_images()[LABELS != 1]
    for pattern in search(model):
        mask, canvas = pattern.topk(0.1).mask, pattern.canvas
        assert int(mask.sum()) == 26
        random = [mask.flatten()[torch.randperm(SIDE**2)].view_as(mask) for _ in range(10)]
        levels = [margin(model, m * canvas + (1 - m) * others) for m in (mask, *random)]
        assert levels[0] > max(levels[1:])


# ---- the same classifier in another form


MEAN_AND_STD = {"mean": (0.25, 0.5, 0.75), "std": (0.5, 0.25, 0.125)}


def of_normalised_images():
    """The network after a layer that undoes the mean and std."""
    undo = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        undo.weight.copy_(torch.diag(torch.tensor(MEAN_AND_STD["std"])).view(3, 3, 1, 1))
        undo.bias.copy_(torch.tensor(MEAN_AND_STD["mean"]))
    return nn.Sequential(undo, *NET).eval()


class ModelOutput(OrderedDict):
    """Like the outputs of transformers: keys, attributes and indices."""

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else [*self.values()][key]

    def __getattr__(self, name):
        return self[name]


class Returning(nn.Module):
    """A network with its output in another form."""

    def __init__(self, form, network=NET):
        super().__init__()
        self.network, self.form, self.training = network, form, False

    def forward(self, images):
        return self.form(self.network(images))


class NoLength(Returning):
    """As a compiled network, which has no truth either."""

    def __len__(self):
        raise TypeError("no length")


class InFloat8(Returning):
    """Its first parameter is a scale of one byte, as quantisation stores them."""

    def __init__(self):
        super().__init__(lambda logits: logits)
        one = torch.ones(1).to(torch.float8_e4m3fn)
        self.scale = nn.Parameter(one, requires_grad=False)

    def forward(self, images):
        return super().forward(images * self.scale.to(images.dtype))


class InPlace(nn.Module):
    """Normalises its images in place."""

    def __init__(self, network):
        super().__init__()
        self.network, self.training = network, False

    def forward(self, images):
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in MEAN_AND_STD.values())
        return self.network(images.sub_(mean).div_(std))


A_LIST = Returning(lambda logits: [logits.sum(), logits])
HUGGING_FACE = Returning(lambda logits: ModelOutput(logits=logits))
SAME = {
    "a softmax": lambda: nn.Sequential(NET, nn.Softmax(1)).eval(),
    "a log-softmax": lambda: nn.Sequential(NET, nn.LogSoftmax(1)).eval(),
    "DataParallel": lambda: nn.DataParallel(NET).eval(),
    "traced": lambda: torch.jit.trace(NET, some_images()[:2]),
    "scripted": lambda: torch.jit.script(NET),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(NET)),
    "a partial": lambda: functools.partial(NET),
    "no length": lambda: NoLength(lambda logits: logits),
    "a scale in float8": InFloat8,
    "normalised in place": lambda: InPlace(of_normalised_images()),
    "a function": lambda: lambda images: NET(images),
    "a method": lambda: NET.forward,
    "a list": lambda: cp.PixelClassifier(A_LIST, output=-1),
    "Hugging Face": lambda: cp.PixelClassifier(HUGGING_FACE, output="logits"),
    "normalised images": lambda: cp.PixelClassifier(of_normalised_images(), **MEAN_AND_STD),
    "class names": lambda: cp.PixelClassifier(NET, class_names=["ant", "bee", "cat"]),
}


@pytest.mark.filterwarnings("ignore:the model's outputs are all", "ignore:.*torch.jit")
@pytest.mark.parametrize("case", SAME)
def test_the_same_classifier_in_another_form(case):
    assert_same(search(SAME[case](), target="bee" if case == "class names" else 1), search(NET))


# ---- a function makes it such a classifier


def two_columns(z):
    return torch.cat([torch.zeros_like(z), z], dim=1)


def two_shares(z):
    p = z.sigmoid()
    return torch.cat([1 - p, p], dim=1)


ONE_OUTPUT, FIVE_LABELS, MAP = cnn(outputs=1), cnn(outputs=5), nn.Conv2d(3, CLASSES, 3).eval()
SEVERAL = torch.randint(2, (60, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("column", "labels"),
    [(ONE_OUTPUT, LABELS % 2), (lambda images: FIVE_LABELS(images)[:, 3:4], SEVERAL[:, 3])],
    ids=["one output", "several labels"],
)
def test_one_logit_makes_two_classes(column, labels):
    found = search(lambda images: two_columns(column(images)), labels=labels)
    without = some_images()[labels == 0]
    assert column(found[0].topk(0.1).stamp(without)).mean() > column(without).mean()
    with pytest.warns(cp.Notice, match="look like probabilities"):
        shares = search(lambda images: two_shares(column(images)), labels=labels)
    assert_same(shares, found)


def test_segmentation_by_the_mean_logit_of_each_class():
    found = search(lambda images: MAP(images).mean((2, 3)))
    assert [int(pattern.mask.count_nonzero()) for pattern in found] == [26, 26]


REFUSALS = {
    "a list": lambda: search(A_LIST),
    "Hugging Face": lambda: search(HUGGING_FACE),
    "one output": lambda: search(ONE_OUTPUT, labels=LABELS % 2),
    "several labels": lambda: search(FIVE_LABELS, labels=SEVERAL),
    "detection": lambda: search(Returning(lambda flat: [{"boxes": flat}], nn.Flatten().eval())),
    "segmentation": lambda: search(MAP),
    "no_grad": lambda: search(torch.no_grad()(lambda images: NET(images))),
    "classes": lambda: search(
        lambda images: nn.functional.one_hot(NET(images).argmax(1), CLASSES).float()
    ),
    "NumPy": lambda: search(lambda images: torch.from_numpy(NET(images).detach().numpy())),
}


@pytest.mark.filterwarnings("ignore:the model's outputs are all >= 0 and sum to 1")  # of classes
def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot
