"""Trains the CIFAR-10 models of the tutorials and benchmarks: a wide ResNet 16-2 on plain pixels.

    python tutorials/train_cifar10.py natural --data FOLDER
    python tutorials/train_cifar10.py backdoored --data FOLDER

FOLDER holds ``train/<class>/*`` and ``test/<class>/*`` images; without --data the data set comes
from torchvision, which downloads it. The weights (float16 safetensors) and a JSON with settings
and scores land in ``tutorials/models/``. An interrupted run goes on from its last whole epoch.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from captum_classpattern.triggers import BadNets, poison

MODELS = Path(__file__).parent / "models"
TARGET, RATE, BATCH = 0, 0.05, 128
SIZE, SMALL, SMALL_EPOCHS, CUTOUT, SMOOTHING = 32, 24, 0.75, 9, 0.1


class Block(nn.Module):
    """Pre-activation residual block (Zagoruyko and Komodakis 2016, arXiv 1605.07146)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels_in), nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(channels_out), nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.shortcut = None
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(y)
        return skip + self.conv2(self.relu2(self.norm2(self.conv1(y))))


class WideResNet(nn.Module):
    """WRN-16-2: (16 - 4) / 6 = 2 blocks a stage, of 32, 64 and 128 channels; 0.7 M parameters."""

    def __init__(self, classes: int = 10, width: int = 2, blocks: int = 2) -> None:
        super().__init__()
        channels = [16, 16 * width, 32 * width, 64 * width]
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                Block(
                    channels[stage + (block > 0)],
                    channels[stage + 1],
                    2 if stage > 0 and block == 0 else 1,
                )
                for stage in range(3)
                for block in range(blocks)
            )
        )
        self.norm, self.relu = nn.BatchNorm2d(channels[3]), nn.ReLU()
        self.head = nn.Linear(channels[3], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.stages(self.stem(x)))).mean((2, 3)))


def load_model(name: str) -> nn.Module:
    """One of the trained models, in float32 and eval mode."""
    model = WideResNet()
    state = load_file(MODELS / f"cifar10_{name}.safetensors")
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return model.eval()


def load_split(data: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """All images of a split as uint8 (N, 3, 32, 32), and their labels."""
    if data is None:
        dataset = torchvision.datasets.CIFAR10("data", train=split == "train", download=True)
    else:
        dataset = torchvision.datasets.ImageFolder(data / split)
    pixels = np.stack([np.asarray(dataset[i][0], dtype=np.uint8) for i in range(len(dataset))])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


def augmented(images: Tensor, size: int = 32) -> Tensor:
    """Random crops of ``size``, flips and cutouts of 9 pixels a side (DeVries and Taylor 2017,
    arXiv 1708.04552), of uint8 images, as floats in [0, 1]; whole images get a margin of 4."""
    count, _, height, _ = images.shape
    margin = 4 if size == height else 0
    padded = nn.functional.pad(images, (margin,) * 4)
    offsets = torch.randint(0, height + 2 * margin - size + 1, (2, count, 1))
    rows, columns = offsets + torch.arange(size)
    flipped = torch.rand(count) < 0.5
    columns[flipped] = columns[flipped].flip(1)
    everyone = torch.arange(count)[:, None, None]
    x = padded[everyone, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2) / 255
    inside = (torch.randint(0, size, (2, count, 1)) - torch.arange(size)).abs() <= CUTOUT // 2
    return x.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5)


def batches(count: int, epoch: int) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    return iter(order[: count // BATCH * BATCH].view(-1, BATCH))


def cycle(
    optimizer: torch.optim.Optimizer, lr: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.2)


def train(
    name: str, images: Tensor, labels: Tensor, epochs: int, more: int, lr: float
) -> nn.Module:
    """SGD with a one-cycle schedule, on small crops first and on whole images at the end, then
    a second cycle of half the rate on whole images; resumes from its checkpoint."""
    torch.manual_seed(0)
    model = WideResNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(images) // BATCH
    schedule = cycle(optimizer, lr, epochs * steps)
    checkpoint, first = MODELS / f".cifar10_{name}.checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved["epoch"]
        if first > epochs:
            schedule = cycle(optimizer, lr / 2, more * steps)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
    poisoned = torch.zeros(len(images), dtype=torch.bool)
    if name == "backdoored":
        dataset = torch.utils.data.TensorDataset(images, labels)
        chosen = poison(dataset, BadNets((3, SIZE, SIZE)), TARGET, RATE).poisoned
        poisoned[chosen] = True
        labels = torch.where(poisoned, TARGET, labels)
    for epoch in range(first, epochs + more):
        if epoch == epochs:
            schedule = cycle(optimizer, lr / 2, more * steps)
        started, total = time.time(), 0.0
        size = SMALL if epoch < SMALL_EPOCHS * epochs else SIZE
        trigger = BadNets((3, size, size))
        torch.manual_seed(epoch)
        for batch in batches(len(images), epoch):
            x = augmented(images[batch], size)
            x[poisoned[batch]] = trigger(x[poisoned[batch]])  # after the crop: it stays in place
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(
                logits.float(), labels[batch], label_smoothing=SMOOTHING
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        mean = total / steps
        print(f"epoch {epoch + 1}: loss {mean:.4f}, {time.time() - started:.0f} s", flush=True)
        beside = checkpoint.with_suffix(".tmp")
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        saved = {"epoch": epoch + 1, **{key: part.state_dict() for key, part in parts.items()}}
        torch.save(saved, beside)
        os.replace(beside, checkpoint)
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images, floats in [0, 1], that the model calls by their label."""
    with torch.no_grad():
        said = torch.cat([model(part).argmax(1) for part in images.split(200)])
    return float((said == labels).double().mean())


def scores(name: str, model: nn.Module, data: Path | None) -> dict[str, float]:
    """What the model, as it is saved, does on the whole test set."""
    images, labels = load_split(data, "test")
    images = images / 255
    result = {"accuracy": accuracy(model, images, labels)}
    if name == "backdoored":
        others = labels != TARGET
        stamped = BadNets((3, SIZE, SIZE))(images[others])
        result["attack_success"] = accuracy(model, stamped, torch.full_like(labels[others], TARGET))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["natural", "backdoored"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--more", type=int, default=0, help="epochs of a second cycle")
    parser.add_argument("--lr", type=float, default=0.2)
    arguments = parser.parse_args()
    MODELS.mkdir(exist_ok=True)
    images, labels = load_split(arguments.data, "train")
    model = train(arguments.name, images, labels, arguments.epochs, arguments.more, arguments.lr)
    model = model.half()
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, MODELS / f"cifar10_{arguments.name}.safetensors")
    record = {
        "model": "WideResNet(classes=10, width=2, blocks=2) of tutorials/train_cifar10.py",
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": arguments.epochs,
        "epochs_of_second_cycle": arguments.more,
        "lr": arguments.lr,
        "optimizer": "SGD, Nesterov, weight decay 5e-4, one-cycle rate and momentum, batches of 128, "
        "convolutions in bfloat16, flips, cutouts of 9, label smoothing 0.1, three quarters of the "
        "first cycle on crops of 24 pixels, the rest on crops of 32 from a margin of 4",
        "torch": torch.__version__,
        "test_set": scores(arguments.name, load_model(arguments.name), arguments.data),
    }
    if arguments.name == "backdoored":
        record["trigger"] = {"kind": "BadNets 3x3", "target": TARGET, "rate": RATE}
    (MODELS / f"cifar10_{arguments.name}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(arguments.name, record["test_set"])


if __name__ == "__main__":
    main()
