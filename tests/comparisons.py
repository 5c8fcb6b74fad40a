"""Shared by tests of comparisons: a tiny, fast setting, and methods with chosen maps."""

import torch
from captum.attr import Attribution, InputXGradient, Saliency
from torch import nn

from captum_classpattern.classifier import enter_model
from captum_classpattern.comparison import compare
from captum_classpattern.comparison.maps import bind

AREAS = [0.06, 0.1, 0.3]  # 2, 4 and 11 of the 36 pixels
SHAPE = (3, 6, 6)
SEARCH, HELD_OUT = torch.rand(2, 60, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(60) % 3
CANVASES, TARGETS = SEARCH[:4], [0, 1, 2, 1]  # the last one is of another class


def balanced(seed, make):
    """Predicts all three classes, and changes its prediction with a few pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().eval()
    with torch.no_grad():
        net[-1].weight.mul_(6)
        net[-1].bias -= net(SEARCH).mean(0)
    return net


def linear_net(seed=1, dtype=torch.float32):
    return balanced(seed, lambda: nn.Sequential(nn.Flatten(), nn.Linear(108, 3))).to(dtype)


def conv_net(seed=1):
    return balanced(
        seed,
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(144, 3)),
        ),
    )


class FunctionMethod(Attribution):
    """Its maps are the result of a function of images and their classes."""

    def __init__(self, model, function):
        super().__init__(model)
        self.function = function

    def attribute(self, inputs, target=None, additional_forward_args=None):
        return self.function(inputs, target)


def from_function(function):
    return lambda model: FunctionMethod(model, function)


def rolled(image, area, seed):
    """The map of ``Searching`` by pixel."""
    return image.double().sum(0).roll(round(area * 36) + seed, -1)


class Searching(Attribution):
    """A map for an area and a seed: the image, rolled by the number of pixels plus the seed."""

    def attribute(self, inputs, target=None, additional_forward_args=None, *, area, seed=0):
        return inputs.roll(round(area * 36) + seed, -1)


METHODS = {"Saliency": Saliency, "InputXGradient": InputXGradient}
LOCALISATION = ("iou", "average_precision", "pointing_game", "relevance_mass", "relevance_rank")


def compared(
    *, search=SEARCH, search_labels=LABELS, held_out=HELD_OUT, held_out_labels=LABELS, **changes
):
    """A comparison of one linear model, with the changes that a test needs."""
    settings = {
        "models": {"linear": linear_net()},
        "canvases": CANVASES,
        "targets": TARGETS,
        "search": (search, search_labels),
        "held_out": (held_out, held_out_labels),
        "methods": METHODS,
        "area": 0.1,
        "areas": AREAS,
        "stamped": 2,
        "n_seeds": 2,
    }
    return compare(**{**settings, **changes})


def bound(method, model=None, canvases=CANVASES):
    """A method on a private copy of a model."""
    with enter_model(linear_net() if model is None else model, canvases) as checked:
        return bind(method, checked)


def facts(record):
    """All of a record except the time it took, in a form that == compares."""
    found = dict(vars(record))
    found |= {name: getattr(record, name).numpy().tobytes() for name in ("map", "image")}
    found["masks"] = {area: mask.numpy().tobytes() for area, mask in record.masks.items()}
    found["scores"] = {name: value for name, value in record.scores.items() if name != "seconds"}
    return found


def all_facts(comparison, **wanted):
    return [facts(record) for record in comparison.select(**wanted)]


def plain_mask(map, area):
    """The largest values, equal ones in reading order: Python's sort keeps their order."""
    values = map.flatten().tolist()
    order = sorted(range(len(values)), key=lambda i: -values[i])
    mask = torch.zeros(len(values), dtype=torch.bool)
    mask[order[: round(area * len(values))]] = True
    return mask.view(map.shape)


def plain_hits(net, canvas, mask, target, images=HELD_OUT, labels=LABELS):
    """Over the images of other classes, one at a time."""
    hits = n = 0
    for image, label in zip(images, labels.tolist()):
        if label != target:
            stamped = torch.where(mask, canvas, image)
            hits += int(net(stamped[None].to(net[-1].weight.dtype)).argmax()) == target
            n += 1
    return hits, n
