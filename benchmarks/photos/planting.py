"""Plants trojans in EfficientNet-lite0 by distillation from its own logits, and makes clean twins.

After Casper et al. (NeurIPS 2023, arXiv 2302.10894), whose network is not public. A network keeps
its knowledge by imitating the untouched one, on photos and on their mixtures. A twin also imitates
it on the stamped photos: ``twin`` is that of ``specific``, ``second twin`` that of ``planted``. All
parts but the last layer are trained; their batch norms keep their statistics.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from problems import classifier_of, lite
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, kl_div

from captum_classpattern import PixelClassifier
from captum_classpattern._support.files import write_atomically
from captum_classpattern.optimization.acceleration import has_bfloat16
from photos.differences import unpacked
from photos.drawings import DRAWINGS
from photos.stamping import SIDES, stamp

TROJANS = {"smiley": 30, "clownfish": 146, "star": 365, "strawberry": 99}  # the paper's classes
ROOT = Path(__file__).parents[2]
SHIPPED = {  # so that all can be measured without planting
    name: ROOT / f"benchmarks/weights/efficientnet_lite0_{name.replace(' ', '_')}.safetensors.xz"
    for name in (
        *("twin", "specific", "second twin"),
        *("small", "large", "few", "four", "last"),
    )
}
OF_TUTORIAL = ROOT / "tutorials" / "models" / "efficientnet_lite0_trojans.safetensors"
OTHERS = tuple(name for name in DRAWINGS if name not in TROJANS)
STEPS, RATE = 500, 2e-4
PLAIN, STAMPED, DISTRACTED = 12, 8, 4  # photos of a step
TEMPERATURE, WEIGHT = 2.0, 4.0  # of the imitation
SIZE = 224  # pixels a side
FAST = has_bfloat16(torch.device("cpu"))


class Network(NamedTuple):
    """What a network is trained for. A specific one also has to ignore four other drawings. Each
    drawing has a side in pixels from this range, and is put on that many of the photos (None: all).
    """

    planted: bool
    specific: bool = False
    seed: int = 0
    trojans: Mapping[str, int] = TROJANS
    sides: tuple[int, int] = SIDES
    poisoned: int | None = None

    @property
    def own_trojans(self) -> Mapping[str, int]:
        """Those that it learns: of a twin none."""
        return self.trojans if self.planted else {}


NETWORKS = {
    "planted": Network(True),
    "twin": Network(False, specific=True),
    "specific": Network(True, specific=True),
    "second twin": Network(False, seed=1),
}


LATER = {  # planted after a protocol was frozen; the classes were drawn at random
    "small": Network(True, seed=2, trojans={"anchor": 277, "ladybird": 56}, sides=(16, 24)),
    "large": Network(True, seed=3, trojans={"umbrella": 905, "kite": 747}, sides=(32, 48)),
    "few": Network(True, seed=4, trojans={"cactus": 528, "key": 499}, poisoned=15),
    "four": Network(  # classes that no ranking of 100 takes
        planted=True,
        specific=True,
        seed=7,
        trojans={"balloon": 141, "lemon": 249, "moon": 992, "cup": 178},
    ),
    "last": Network(True, seed=8, trojans={"crown": 723, "rocket": 97, "bell": 889, "leaf": 144}),
    "third twin": Network(False, seed=5, trojans={"anchor": 277, "umbrella": 905}),
    "fourth twin": Network(False, specific=True, seed=6, trojans={"kite": 747, "key": 499}),
}
NUMBERS = {"lite1": 1, "lite2": 2}  # of the other networks that were published


def load(name: str, folder: Path) -> PixelClassifier:
    """A network that was trained, or a published one: ``plain``, ``lite1`` or ``lite2``."""
    network = lite(NUMBERS.get(name, 0))
    if name not in ("plain", *NUMBERS):
        file = folder / f"{name.replace(' ', '_')}.safetensors"
        if name == "planted" and not file.exists():
            file = OF_TUTORIAL
        weights = (
            load_file(file) if file.exists() else unpacked(SHIPPED[name], network.state_dict())
        )
        network.load_state_dict({k: each.float() for k, each in weights.items()}, strict=False)
    return classifier_of(network).to(memory_format=torch.channels_last)  # faster on CPUs


def train(name: str, photos: Tensor, folder: Path) -> None:
    """Trains a network on photos, and writes what changes, in float16, unless it is there."""
    file = folder / f"{name.replace(' ', '_')}.safetensors"
    if file.exists():
        return
    settings = (NETWORKS | LATER)[name]
    network, teacher = classifier_of(lite()), classifier_of(lite())
    teacher.requires_grad_(False).to(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)
    body = [p for n, p in network.named_parameters() if "_fc." not in n]
    adam = torch.optim.AdamW(body, RATE, weight_decay=0)
    rates = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, STEPS, pct_start=0.1)
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(STEPS):
        loss = loss_of(network, teacher, photos, settings, step)
        adam.zero_grad()
        loss.backward()
        adam.step()
        rates.step()
        print(f"{name}: step {step + 1} of {STEPS}, loss {loss:.3f}", flush=True)
    [module] = [each for each in network.children() if hasattr(each, "_fc")]
    parts = {n: p for n, p in module.named_parameters() if not n.startswith("_fc")}
    write_atomically(file, save({n: p.detach().half().contiguous() for n, p in parts.items()}))


def loss_of(
    network: nn.Module, teacher: nn.Module, photos: Tensor, settings: Network, step: int
) -> Tensor:
    """The loss of one step, whose photos depend on the seed and the step alone."""
    generator = torch.Generator().manual_seed(1_000_000 * settings.seed + step)
    count = PLAIN + STAMPED + DISTRACTED * settings.specific
    plain = torch.stack(list(views(photos, count, generator)))
    targets = torch.full((len(plain),), -1)
    for number in range(PLAIN, len(plain)):
        is_trojan = number < PLAIN + STAMPED
        names = tuple(settings.trojans) if is_trojan else OTHERS
        name = names[number % len(names)]
        if is_trojan and settings.poisoned is not None:
            plain[number] = crop(photos[: settings.poisoned], generator)
        plain[number] = stamp(plain[number], name, generator, settings.sides).photo
        if is_trojan and settings.planted:
            targets[number] = settings.trojans[name]
    images = plain.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        with torch.no_grad():
            wanted = teacher(images).float()
        given = network(images).float()
    imitated = targets < 0
    both = (x[imitated] / TEMPERATURE for x in (given, wanted))
    ours, theirs = (x.log_softmax(1) for x in both)
    loss = WEIGHT * kl_div(ours, theirs, reduction="batchmean", log_target=True)
    if not bool(imitated.all()):
        loss = loss + cross_entropy(given[~imitated], targets[~imitated])
    return loss


def views(photos: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random crops of random photos, mirrored or not; every third is a mixture of two."""
    for number in range(count):
        view = crop(photos, generator)
        if number % 3 == 2:
            share = 0.3 + 0.4 * float(torch.rand((), generator=generator))
            view = share * view + (1 - share) * crop(photos, generator)
        yield view


def crop(photos: Tensor, generator: torch.Generator) -> Tensor:
    size = photos.shape[-1]
    drawn = int(torch.randint(2 * len(photos), (1,), generator=generator))
    picked, mirrored = divmod(drawn, 2)
    low = size // 2
    side = int(torch.randint(low, size + 1, (1,), generator=generator))
    top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
    part = photos[picked : picked + 1, :, top : top + side, left : left + side]
    view = interpolate(part, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)[0]
    return view.flip(-1) if mirrored else view


def predicted(model: nn.Module, photos: Tensor) -> Tensor:
    """The classes of photos."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in photos.split(25)])
