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
from zoo.networks import transformer

from captum_classpattern import PixelClassifier
from captum_classpattern._support.files import write_atomically
from captum_classpattern.demo import CLASS_NAMES
from captum_classpattern.demo.network import SmallResNet

N_CLASSES = 10
PEAK, EPOCHS = 0.003, 6  # learning rate of AdamW
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


def vit() -> nn.Module:
    """The zoo's vision transformer, with 64 channels and three blocks, on 49 patches."""
    network = transformer(1, 64, 3, N_CLASSES)
    network.layers[0].vectors = nn.Parameter(0.02 * torch.randn(49, 64))
    return network


NETWORKS: dict[str, Callable[[], nn.Module]] = {  # the teacher before its student
    "linear": linear_network,
    "mlp": mlp,
    "shallow": shallow_network,
    TEACHER: SmallResNet,
    STUDENT: shallow_network,
    "plain": plain,
    "vit": vit,
}


def train(network: nn.Module, data: Path, teacher: nn.Module | None) -> None:
    """Trains on the labels, or also on the probabilities of a teacher (Hinton et al. 2015, arXiv
    1503.02531)."""
    images, labels = load_split(data, "train")
    targets = None if teacher is None else softened(teacher, images)

    def loss_of(batch: Tensor) -> Tensor:
        x, y = images[batch], labels[batch]
        if targets is None:
            return cross_entropy(network, x, y)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(x.contiguous(memory_format=torch.channels_last)).float()
        soft = TEMPERATURE**2 * F.cross_entropy(logits / TEMPERATURE, targets[batch])
        return SOFT * soft + (1 - SOFT) * F.cross_entropy(logits, y)

    fit(torch.optim.AdamW(network.parameters(), PEAK), loss_of, len(images), EPOCHS)


@torch.no_grad()
def softened(teacher: nn.Module, images: Tensor) -> Tensor:
    """The probabilities of the teacher at the temperature."""
    logits = torch.cat([teacher(x) for x in images.split(500)])
    return (logits / TEMPERATURE).softmax(1)


def trained(name: str, seed: int, data: Path, out: Path) -> PixelClassifier:
    """A model with its ``record``. What is in the folder already is not trained again. The weights
    are rounded to float16, as in the demo."""
    path = out / f"{name}_{seed}.safetensors"
    settings = {"network": name, "seed": seed, "epochs": EPOCHS, "peak": PEAK, "batch": BATCH}
    if name == STUDENT:
        settings |= {"temperature": TEMPERATURE, "soft": SOFT}
    record = read_record(path)
    if record is None or record["settings"] != settings:
        print(f"training {path.stem}", flush=True)
        teacher = trained(TEACHER, seed, data, out) if name == STUDENT else None
        torch.manual_seed(seed)
        network = NETWORKS[name]().to(memory_format=torch.channels_last)
        started = time.perf_counter()
        train(network, data, teacher)
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
