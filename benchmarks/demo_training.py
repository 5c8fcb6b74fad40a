"""Makes the demo's images and models, of Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747)."""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.robust import PGD
from findings import parser_of
from one_cycle import fit
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from captum_classpattern.demo import DATA, TRIGGER_TARGET
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.optimization.acceleration import has_bfloat16
from captum_classpattern.triggers import BadNets, Trigger, poison

PER_CLASS = 200
EPS = 0.1
FAST = has_bfloat16(torch.device("cpu"))
SETTINGS: dict[str, dict[str, Any]] = {
    "natural": {"epochs": 12, "lr": 0.2},
    "backdoored": {
        "epochs": 12, "lr": 0.2, "trigger": "BadNets 3x3", "target": TRIGGER_TARGET, "rate": 0.05,
    },
    "robust": {"epochs": 15, "lr": 0.2, "norm": "L-inf", "eps": EPS, "attack_steps": 4},
}  # fmt: skip


def load_split(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] and labels (N,), from the IDX files."""
    pixels = gzip.decompress((data / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((data / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return (
        torch.from_numpy(images.astype(np.float32)) / 255,
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)),
    )


def write_images(images: Tensor, labels: Tensor, folder: Path) -> None:
    """Writes the embedded sample: the first 200 test images per class, without exact repeats. A
    file a class: even ones to search on, odd ones held out."""
    folder.mkdir(exist_ok=True)
    flat = (images * 255).round().to(torch.uint8).flatten(1).numpy()
    first_seen = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    for label in range(10):
        chosen = flat[first_seen[labels.numpy()[first_seen] == label][:PER_CLASS]]
        chosen = chosen.reshape(-1, 28, 28)
        np.savez_compressed(folder / f"{label}.npz", search=chosen[::2], held_out=chosen[1::2])


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    """The loss, with the convolutions in bfloat16 where that is fast, with the same accuracy."""
    with torch.autocast("cpu", torch.bfloat16, enabled=FAST):
        logits = model(x.contiguous(memory_format=torch.channels_last))
    return nn.functional.cross_entropy(logits.float(), y, label_smoothing=smoothing)


def pgd(
    model: nn.Module, x: Tensor, y: Tensor, steps: int, generator: torch.Generator, eps: float = EPS
) -> Tensor:
    """L-inf projected gradient descent, from a random start (Madry et al. 2018, 1706.06083)."""
    noise = torch.rand(x.shape, generator=generator) * 2 - 1
    adversarial = (x + eps * noise).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = cross_entropy(model, adversarial, y)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        step = adversarial.detach() + 2.5 * eps / steps * gradient.sign()
        adversarial = torch.min(torch.max(step, x - eps), x + eps).clamp(0, 1)
    return adversarial.detach()


def train(images: Tensor, labels: Tensor, settings: dict[str, Any], seed: int) -> SmallResNet:
    """SGD with a one-cycle schedule, on adversarial images if the settings ask for them."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SmallResNet()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings["lr"], momentum=0.9, weight_decay=5e-4, nesterov=True
    )

    def loss_of(batch: Tensor) -> Tensor:
        x, y = images[batch], labels[batch]
        if "attack_steps" in settings:
            model.eval()  # attack the classifier that will be used
            x = pgd(model, x, y, settings["attack_steps"], generator)
            model.train()
        return cross_entropy(model, x, y)

    fit(optimizer, loss_of, len(images), settings["epochs"], rising=0.2, generator=generator)
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images that the model classifies correctly."""
    right = 0
    with torch.no_grad():
        for x, y in zip(torch.split(images, 100), torch.split(labels, 100)):
            right += int((model(x).argmax(1) == y).sum())
    return right / len(labels)


def plant(images: Tensor, labels: Tensor, trigger: Trigger, rate: float, seed: int) -> None:
    """Puts the trigger and its target label on a share of the images, in place."""
    dirty = poison(TensorDataset(images, labels), trigger, TRIGGER_TARGET, rate, seed=seed)
    images[dirty.poisoned] = trigger(images[dirty.poisoned])
    labels[dirty.poisoned] = TRIGGER_TARGET


def attack_success(model: nn.Module, trigger: Trigger, images: Tensor, labels: Tensor) -> float:
    """Share of the images of other classes that the model assigns to the target once triggered."""
    others = labels != TRIGGER_TARGET
    return accuracy(model, trigger(images[others]), torch.full_like(labels[others], TRIGGER_TARGET))


def evaluate(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The scores by which a model of this kind is judged."""
    scores = {"accuracy": accuracy(model, images, labels)}
    if name == "backdoored":
        scores["attack_success"] = attack_success(model, BadNets((1, 28, 28)), images, labels)
    if name == "robust":
        attack = PGD(model, nn.CrossEntropyLoss(reduction="none"), lower_bound=0.0, upper_bound=1.0)
        torch.manual_seed(0)
        attacked = [
            attack.perturb(
                x.clone().requires_grad_(), EPS, EPS / 8, 20, y, random_start=True, norm="Linf"
            )
            for x, y in zip(torch.split(images, 100), torch.split(labels, 100))
        ]
        scores["pgd20_accuracy"] = accuracy(model, torch.cat(attacked).detach(), labels)
    return scores


def make_model(name: str, data: Path, out: Path, seed: int = 0) -> None:
    """Trains one model, rounds it to float16, scores the rounded model, and writes both files."""
    settings = SETTINGS[name]
    images, labels = load_split(data, "train")
    if "rate" in settings:
        plant(images, labels, BadNets((1, 28, 28)), settings["rate"], seed)
    start = time.time()
    model = train(images, labels, settings, seed).half()
    minutes = (time.time() - start) / 60
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, out / f"{name}.safetensors")
    record = {
        "model": "SmallResNet(channels=1, classes=10, width=16)",
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_on": "Fashion-MNIST, all 60,000 training images in [0, 1], no augmentation",
        "optimizer": "SGD, momentum 0.9, Nesterov, weight decay 5e-4, one cycle, batches of 128, "
        "convolutions in bfloat16",
        "settings": settings,
        "seed": seed,
        "minutes": round(minutes, 1),
        "torch": torch.__version__,
        **score(name, model.float(), data, out),
    }
    (out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(name, record["full_test_set"], flush=True)


def score(name: str, model: nn.Module, data: Path, out: Path) -> dict[str, dict[str, float]]:
    """The model's scores on all test images, and on the embedded ones."""
    classes = [np.load(out / "fashion_mnist" / f"{label}.npz") for label in range(10)]
    pairs = [np.stack([file["search"], file["held_out"]], 1) for file in classes]
    images = torch.from_numpy(np.concatenate(pairs)).float().div(255).view(-1, 1, 28, 28)
    embedded = evaluate(name, model, images, torch.arange(10).repeat_interleave(PER_CLASS))
    full = evaluate(name, model, *load_split(data, "t10k"))
    return {"full_test_set": full, "embedded_images": embedded}


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with the four *-ubyte.gz files")
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args(given)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_images(*load_split(arguments.data, "t10k"), arguments.out / "fashion_mnist")
    for name in SETTINGS:
        make_model(name, arguments.data, arguments.out)


if __name__ == "__main__":
    main()
