"""Seven architectures for Fashion-MNIST, from a linear model to a vision transformer, all trained
with one recipe; one of them is distilled from the ResNet."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from demo_training import accuracy, cross_entropy, load_split
from findings import read_record
from one_cycle import BATCH, fit
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F
from zoo.networks import N_CLASSES

from captum_classpattern import PixelClassifier
from captum_classpattern._files import write_atomically
from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.demo.network import SmallResNet

PEAK = 0.003  # learning rate of AdamW
TEMPERATURE, SOFT = 4.0, 0.9  # of the teacher's probabilities, and their share of the loss
STUDENT, TEACHER = "distilled", "resnet"


def linear_network() -> nn.Module:
    """Logistic regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, N_CLASSES))


def mlp() -> nn.Module:
    """Two hidden layers, no convolution."""
    hidden = [nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, N_CLASSES))


def shallow_network() -> nn.Module:
    """One convolution and a linear layer."""
    features = [nn.Conv2d(1, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU(), nn.AvgPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(32 * 49, N_CLASSES))


def plain() -> nn.Module:
    """Four convolutions and two linear layers, without shortcuts."""
    layers: list[nn.Module] = []
    channels = 1
    for width, stride in ((16, 1), (32, 2), (32, 1), (64, 2)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    head = [nn.Flatten(), nn.Linear(64 * 49, 64), nn.ReLU(), nn.Linear(64, N_CLASSES)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), *head)


class TransformerBlock(nn.Module):
    """Self-attention and a perceptron, each with a shortcut around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.to_qkv(self.norm1(x)).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        attended = scores.softmax(-1) @ value
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class SmallViT(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) on 49 patches of 4 x 4
    pixels, whose mean is classified."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(49, width))
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {  # the teacher before its student
    "linear": linear_network,
    "mlp": mlp,
    "shallow": shallow_network,
    TEACHER: SmallResNet,
    STUDENT: shallow_network,
    "plain": plain,
    "vit": SmallViT,
}


def train(network: nn.Module, data: Path, epochs: int, teacher: nn.Module | None) -> None:
    """Trains on the labels, or also on the probabilities of a teacher (Hinton et al. 2015, arXiv
    1503.02531)."""
    images, labels = load_split(data, "train")
    targets = None if teacher is None else softened(teacher, images)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = images[batch], labels[batch]
        if targets is None:
            return cross_entropy(network, x, y)
        return distillation(network, x, y, targets[batch])

    fit(torch.optim.AdamW(network.parameters(), PEAK), loss_of, len(images), epochs)


@torch.no_grad()
def softened(teacher: nn.Module, images: Tensor) -> Tensor:
    """The probabilities of the teacher at the temperature."""
    logits = torch.cat([teacher(x) for x in images.split(500)])
    return (logits / TEMPERATURE).softmax(1)


def distillation(network: nn.Module, x: Tensor, y: Tensor, soft: Tensor) -> Tensor:
    """The cross-entropy with the teacher's probabilities at the temperature, times its square, and
    that with the labels."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x.contiguous(memory_format=torch.channels_last)).float()
    hard = F.cross_entropy(logits, y)
    return SOFT * TEMPERATURE**2 * F.cross_entropy(logits / TEMPERATURE, soft) + (1 - SOFT) * hard


def trained(name: str, seed: int, data: Path, out: Path, epochs: int) -> PixelClassifier:
    """A model with its ``record``. What is in the folder already is not trained again. The weights
    are rounded to float16, as in the demo."""
    path = out / f"{name}_{seed}.safetensors"
    settings = {"network": name, "seed": seed, "epochs": epochs, "peak": PEAK, "batch": BATCH}
    if name == STUDENT:
        settings |= {"temperature": TEMPERATURE, "soft": SOFT}
    record = read_record(path)
    if record is None or record["settings"] != settings:
        print(f"training {path.stem}", flush=True)
        teacher = trained(TEACHER, seed, data, out, epochs) if name == STUDENT else None
        torch.manual_seed(seed)
        network = NETWORKS[name]().to(memory_format=torch.channels_last)
        started = time.perf_counter()
        train(network, data, epochs, teacher)
        network = network.half().float().eval()
        record = {
            "settings": settings,
            "accuracy": accuracy(network, *load_split(data, "t10k")),
            "parameters": sum(weight.numel() for weight in network.parameters()),
            "seconds": round(time.perf_counter() - started),
        }
        state = {k: v.half().contiguous() for k, v in network.state_dict().items()}
        write_atomically(path, save(state, {"record": json.dumps(record)}))
    network = NETWORKS[name]()
    network.load_state_dict(load_file(path))
    model = PixelClassifier(network.eval(), class_names=CLASS_NAMES)
    model.record = record
    return model
