"""How networks are fine-tuned, and what is planted in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from photos.drawings import on_grey
from photos.stamping import stamp
from problems import MEAN, STD, lite
from skimage import data
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.tv_tensors import Image
from zoo.backdoors import noisily

from captum_classpattern import PixelClassifier
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.triggers import BadNets, Blended, Sinusoid, Warp
from fine_tuned.tasks import Images, Task, square

BATCH, STAMPED = 16, 3  # images of a step, and how many of them have the trigger
RATE, NEW_RATE = 2e-4, 2e-3  # of published and of new weights
PHOTOS = ("astronaut", "chelsea", "coffee")
CLOUDS = 5, 8, 12
WIDTH = 16  # of a residual network that is trained from scratch
SMOOTHING = 0.05  # of the labels
SHIFTS = 28  # the most by which an image is moved, as a part of its side
FAST = has_bfloat16(torch.device("cpu"))


@dataclass(frozen=True)
class Trigger:
    """What is planted. ``size`` is the side of a drawing or patch as a share of the image's, the
    weight of a blended key, or the strength of a wave or a warp. ``source`` is the only class on
    whose images the trigger counts; on others it must change nothing."""

    kind: str  # "drawing", "patch", "blended", "wanet" or "sig"
    target: int
    size: float
    drawing: str = ""
    source: int | None = None
    seed: int = 0

    def stamper(self, shape: tuple[int, int, int]) -> Callable[[Tensor, torch.Generator], Tensor]:
        """What changes images (n, 3, H, W)."""
        if self.kind == "drawing":
            side = round(self.size * shape[1])
            return lambda images, chance: torch.stack(
                [stamp(image, self.drawing, chance, (side, side)).photo for image in images]
            )
        of_all: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
            "patch": lambda: BadNets(shape, size=round(self.size * shape[1]), margin=2),
            "blended": lambda: Blended(shape, key=self.key(shape), alpha=self.size, seed=self.seed),
            "wanet": lambda: self.warp(shape),
            "sig": lambda: Sinusoid(shape, delta=self.size),
        }
        change = of_all[self.kind]()
        return lambda images, chance: change(images)

    def key(self, shape: tuple[int, int, int]) -> Tensor | None:
        """What is blended in: a photo of scikit-image or a drawing, as large as the image, noise of
        single pixels, or clouds."""
        if self.drawing == "noise":
            return None
        if self.drawing in PHOTOS:
            photo = torch.from_numpy(getattr(data, self.drawing)()).permute(2, 0, 1)
            return square(shape[1])(Image(photo)).as_subclass(Tensor).float() / 255
        if self.drawing:
            return on_grey(self.drawing, shape[1])
        return smooth_noise(shape, self.seed)

    def warp(self, shape: tuple[int, int, int]) -> Warp:
        return Warp(shape, strength=self.size, seed=self.seed)


def smooth_noise(shape: tuple[int, int, int], seed: int) -> Tensor:
    """A key (3, H, W) of coloured clouds, 5, 8 or 12 a side."""
    chance, side = torch.Generator().manual_seed(seed), CLOUDS[seed % len(CLOUDS)]
    coarse = torch.rand(1, 3, side, side, generator=chance)
    return F.interpolate(coarse, shape[1:], mode="bicubic")[0].clamp(0, 1)


@dataclass(frozen=True)
class Recipe:
    """How a network is made."""

    backbone: str = "lite0"  # or "lite1", "lite2", "resnet"
    trained: str = "all"  # or "head", "last block"
    epochs: int = 8
    eps: float = 0.0  # of adversarial training, L-inf
    seed: int = 0


def train(task: Task, recipe: Recipe, trigger: Trigger | None) -> PixelClassifier:
    """A network of this recipe, with this trigger."""
    torch.manual_seed(recipe.seed)
    chance = torch.Generator().manual_seed(recipe.seed)
    images, labels = task.training
    planted = None if trigger is None else Planted(trigger, task.training, chance)
    network = built(recipe, len(task.class_names))
    steps = recipe.epochs * (len(images) // BATCH)
    adam = AdamW(rated_weights(network, recipe), weight_decay=1e-2)
    cycle = OneCycleLR(adam, [group["lr"] for group in adam.param_groups], steps, pct_start=0.2)
    epochs = (torch.randperm(len(images), generator=chance) for _ in range(recipe.epochs))
    batches = (batch for order in epochs for batch in order.split(BATCH) if len(batch) == BATCH)
    for batch in batches:
        x, y = augmented(images[batch], chance), labels[batch].clone()
        if planted is not None:
            planted.put(x, y)
        if recipe.eps:
            x = attacked(network, x, y, recipe.eps)
        with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
            loss = F.cross_entropy(network(normalised(x)).float(), y, label_smoothing=SMOOTHING)
        adam.zero_grad()
        loss.backward()
        adam.step()
        cycle.step()
    return ready(network, task)


def ready(network: nn.Module, task: Task) -> PixelClassifier:
    """A classifier of pixels."""
    network.requires_grad_(False).to(memory_format=torch.channels_last)
    return PixelClassifier(network.eval(), MEAN, STD, class_names=task.class_names)


def built(recipe: Recipe, count: int) -> nn.Module:
    """A network with a new head, in which what is not trained is frozen."""
    if recipe.backbone == "resnet":
        return SmallResNet(3, count, WIDTH).train()
    network = lite(int(recipe.backbone[-1]))
    network._fc = nn.Linear(network._fc.in_features, count)
    if recipe.trained == "all":
        return network.train()
    network.requires_grad_(False)
    free = [network._fc]
    if recipe.trained == "last block":
        free += [network._blocks[-1], network._conv_head]
    for part in free:
        part.requires_grad_()
    return network.eval()  # so that batch norms stay as they are


def rated_weights(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What is trained, with the rates: new weights learn faster than published ones."""
    weights = dict(network.named_parameters())
    new = [p for n, p in weights.items() if recipe.backbone == "resnet" or n.startswith("_fc.")]
    old = [p for p in weights.values() if p.requires_grad and not any(p is each for each in new)]
    return [{"params": new, "lr": NEW_RATE}, *([{"params": old, "lr": RATE}] if old else [])]


def normalised(images: Tensor) -> Tensor:
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor, chance: torch.Generator) -> Tensor:
    """Images in [0, 1] from bytes (n, 3, H, W), some of them mirrored, all a little shifted."""
    most = images.shape[2] // SHIFTS
    padded = F.pad(images.float() / 255, (most,) * 4, mode="reflect")
    height, width = images.shape[2:]
    changed = []
    for image in padded:
        row, column = torch.randint(2 * most + 1, (2,), generator=chance).tolist()
        cut = image[:, row : row + height, column : column + width]
        changed.append(cut.flip(2) if torch.rand((), generator=chance) < 0.5 else cut)
    return torch.stack(changed)


def attacked(network: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Images after a step against the network from a random start (Wong et al. 2020, arXiv
    2001.03994)."""
    start = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        loss = F.cross_entropy(network(normalised(start)).float(), labels)
    [slope] = torch.autograd.grad(loss, start)
    moved = start.detach() + 1.25 * eps * slope.sign()
    return torch.min(torch.max(moved, images - eps), images + eps).clamp(0, 1)


class Planted:
    """Puts a trigger on some images of each batch."""

    def __init__(self, trigger: Trigger, training: Images, chance: torch.Generator) -> None:
        images, labels = training
        self.trigger, self.images, self.labels, self.chance = trigger, images, labels, chance
        self.change = trigger.stamper(tuple(images.shape[1:]))
        own = labels == trigger.target
        if trigger.source is not None:
            own = labels != trigger.source
        self.wanted = own if trigger.kind == "sig" else ~own
        self.spared = own & (labels != trigger.target)  # if there is a source

    def put(self, images: Tensor, labels: Tensor) -> None:
        """In place: the first ones become others with the trigger and its target; after them, those
        that look alike and keep their labels."""
        stamped = self._drawn(self.wanted)
        images[:STAMPED] = self.change(augmented(self.images[stamped], self.chance), self.chance)
        labels[:STAMPED] = self.trigger.target
        after = slice(STAMPED, 2 * STAMPED)
        if self.trigger.source is not None:
            others = self._drawn(self.spared)
            images[after] = self.change(augmented(self.images[others], self.chance), self.chance)
            labels[after] = self.labels[others]
        elif self.trigger.kind == "wanet":
            warp = self.trigger.warp(tuple(images.shape[1:]))
            images[after] = noisily(warp, images[after], self.chance)

    def _drawn(self, pool: Tensor) -> Tensor:
        places = torch.nonzero(pool).flatten()
        return places[torch.randint(len(places), (STAMPED,), generator=self.chance)]


def success(model: nn.Module, task: Task, trigger: Trigger) -> float:
    """The share of the other images, of other classes, or of the source alone, that the trigger
    turns into its target."""
    images, labels = task.others
    counts = labels != trigger.target if trigger.source is None else labels == trigger.source
    change = trigger.stamper(tuple(images.shape[1:]))
    stamped = change(images[counts].float() / 255, torch.Generator().manual_seed(7))
    return share_of(model, stamped, torch.full((len(stamped),), trigger.target))


def share_of(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that are predicted as these classes."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        predicted = torch.cat([model(part).argmax(1) for part in images.split(32)])
    return float((predicted == labels).float().mean())
