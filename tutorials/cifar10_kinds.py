"""How the kinds of models of train_cifar10.py differ: triggers, labels, attacks."""

import torch
from captum.robust import PGD
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.triggers import BadNets, Blended, Sinusoid, Trigger, poison

TARGET, RATE, SIZE = 0, 0.05, 32
LEARNT_BY_HEART = 10_000  # images of the kinds with true and random labels
DELTA, FREQUENCY = 40 / 255, 6
TRIGGERS = {
    "backdoored": "BadNets 3x3",
    "blended": "Blended, alpha 0.2, a random key of seed 0",
    "clean_label": "SIG, delta 40/255, 6 periods, on images of the target class only",
}
EPSILONS = {"robust4": 4 / 255, "robust8": 8 / 255}
KINDS = ("natural", "natural_short", "random_labels", "true_labels", *TRIGGERS, *EPSILONS)
PGD_STEPS, PGD_IMAGES = 20, 100


def in_bfloat16() -> torch.autocast:
    """Matrix products in bfloat16, on processors that are faster with it."""
    fast = has_bfloat16(torch.device("cpu"))
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)


def placed_trigger(name: str, size: int = SIZE) -> Trigger:
    """The trigger for crops of ``size``: a patch in the corner of the crop, the middle of a key, or
    stripes with the same width as on whole images."""
    shape = (3, size, size)
    if name == "blended":
        middle = slice((SIZE - size) // 2, (SIZE + size) // 2)
        return Blended(shape, key=Blended((3, SIZE, SIZE)).key[:, middle, middle])
    if name == "clean_label":
        return Sinusoid(shape, delta=DELTA, frequency=FREQUENCY * size / SIZE)
    return BadNets(shape)


def poisoned_images(name: str, images: Tensor, labels: Tensor) -> Tensor:
    """Which images get the trigger: images of other classes, or, with clean labels, only images of
    the target class (Barni et al. 2019, arXiv 1902.11237)."""
    poisoned = torch.zeros(len(images), dtype=torch.bool)
    if name not in TRIGGERS:
        return poisoned
    excluded = (labels == TARGET) != (name == "clean_label")
    chosen = poison(TensorDataset(images, excluded.long()), placed_trigger(name), 1, RATE).poisoned
    return poisoned.index_fill(0, torch.tensor(chosen), True)


def training_labels(name: str, labels: Tensor, seed: int = 0) -> Tensor:
    """The labels, or a permutation that is unrelated to the images (Zhang et al. 2017, arXiv
    1611.03530)."""
    if name != "random_labels":
        return labels
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def adversarial(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, steps: int = 1
) -> Tensor:
    """Images after some steps along the sign of the gradient, from a random start in the L-infinity
    ball of radius epsilon, each clipped to that ball and to [0, 1]: one of 1.25 epsilon (Wong et
    al. 2020, arXiv 2001.03994), or several of epsilon / 2 (PGD, Madry et al. 2018, arXiv
    1706.06083)."""
    length = (1.25 if steps == 1 else 0.5) * epsilon
    noise = torch.empty_like(images).uniform_(-epsilon, epsilon)
    moved = (images + noise).clamp(0, 1)
    for _ in range(steps):
        start = moved.requires_grad_()
        with in_bfloat16():
            logits = model(start)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        (gradient,) = torch.autograd.grad(loss, start)
        moved = start.detach() + length * gradient.sign()
        moved = moved.clamp(images - epsilon, images + epsilon).clamp(0, 1)
    return moved


def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Images after 20 steps of projected gradient ascent from a random start in the ball."""
    torch.manual_seed(0)
    attack = PGD(model, nn.CrossEntropyLoss(reduction="none"), lower_bound=0, upper_bound=1)
    step = 2.5 * epsilon / PGD_STEPS
    pairs = zip(images.split(100), labels.split(100))
    return torch.cat(
        [attack.perturb(x, epsilon, step, PGD_STEPS, y, random_start=True) for x, y in pairs]
    )


def first_of_each_class(labels: Tensor, count: int = PGD_IMAGES) -> Tensor:
    """Indices of the first images of each class."""
    return torch.cat([torch.nonzero(labels == y).flatten()[:count] for y in labels.unique()])


def facts(name: str) -> dict[str, dict[str, object]]:
    """The entries in a model's JSON that are specific to its kind."""
    if name in TRIGGERS:
        return {"trigger": {"kind": TRIGGERS[name], "target": TARGET, "rate": RATE}}
    if name in ("true_labels", "random_labels"):
        kind = "as they are" if name == "true_labels" else "permuted, seed 0"
        return {"labels": {"kind": kind, "training_images": LEARNT_BY_HEART}}
    if name not in EPSILONS:
        return {}
    training = "one step of 1.25 epsilon from a random start, L-infinity (Wong et al. 2020)"
    attack = f"captum.robust.PGD, L-infinity, {PGD_STEPS} steps of epsilon / 8, random start"
    images = f"the first {PGD_IMAGES} test images of each class"
    return {
        "adversarial": {
            "epsilon": EPSILONS[name],
            "training": training,
            "pgd": attack,
            "pgd_images": images,
        }
    }
