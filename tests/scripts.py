"""The scripts beside the package, as the tests import and run them, and tiny problems for them."""

import gzip
import importlib
import json
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from captum_classpattern import PixelClassifier

ROOT = Path(__file__).parent.parent


def imported(folder, *names):
    """One or several modules of a folder of the repository, whose neighbours they find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / folder)
        modules = [importlib.import_module(name) for name in names]
    return modules if names[1:] else modules[0]


def change(monkeypatch, module, **values):
    """Gives a module other settings or functions."""
    for name, value in values.items():
        monkeypatch.setattr(module, name, value)


def tiny_network(channels=3, size=32, classes=10):
    """A network whose predictions on noise are about even over its classes."""
    centred = nn.BatchNorm2d(channels)
    centred.running_mean.fill_(0.5)
    patches = nn.Conv2d(channels, 8, 4, 4, bias=False)
    head = nn.Linear(8 * (size // 4) ** 2, classes, bias=False)
    return nn.Sequential(centred, patches, nn.Tanh(), nn.Flatten(), head)


def tiny_problem(name, n_classes, shape, count=100, *, network=None, own_labels=False, **more):
    """A random network that says all of its classes, with half of its noise images held out. With
    own labels, it classifies all of them correctly."""
    torch.manual_seed(0)
    images, labels = torch.rand(2 * count, *shape), torch.arange(2 * count) % n_classes
    network = network or nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), n_classes))
    with torch.no_grad():
        network.eval()[-1].bias -= network(images).mean(0)
        labels = network(images).argmax(1) if own_labels else labels
    parts = images[:count], labels[:count], images[count:], labels[count:]
    return imported("benchmarks", "problems").Problem(
        name, PixelClassifier(network, **more), *parts
    )


def noise(channels, size, per_class, classes=10, bars=False):
    """Random uint8 images of some classes, and their labels. With bars, they are dark, with a
    bright bar for each class, which a mirror does not move."""
    shape = (classes * per_class, channels, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels, height = torch.arange(classes).repeat(per_class), size // classes
    if bars:
        images //= 3
        for image, y in zip(images, labels):
            image[:, height * y : height * (y + 1)] += 150
    return images, labels


def write_fashion_mnist(folder, train, test, **more):
    """Files like those of Fashion-MNIST, of so many noise images."""
    torch.manual_seed(0)
    for split, count in (("train", train), ("t10k", test)):
        parts = noise(1, 28, -(-count // 10), **more)
        for name, header, values in zip(("images-idx3", "labels-idx1"), (16, 8), parts):
            content = gzip.compress(bytes(header) + values[:count].byte().numpy().tobytes())
            (folder / f"{split}-{name}-ubyte.gz").write_bytes(content)
    return folder


def write_cifar10(folder, per_class=10, classes=10, **more):
    """A folder with the layout of CIFAR-10, of noise images."""
    torch.manual_seed(0)
    for split in ("train", "test"):
        for i, (image, y) in enumerate(zip(*noise(3, 32, per_class, classes, **more))):
            path = folder / split / str(int(y)) / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            torchvision.io.write_png(image, str(path))
    return folder


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tables_of(printed):
    """The header of each Markdown table, and its number of rows."""
    tables = []
    for before, line in pairwise(["", *printed.split("\n")]):
        if line.startswith("|") and not before.startswith("|"):
            tables.append([line, -1])  # the separator line is not a row
        elif line.startswith("|"):
            tables[-1][1] += 1
    return [tuple(table) for table in tables]


def progress_and_tables(capsys):
    """What a script has said while it worked, and the tables that it printed then."""
    printed, said = (text.splitlines() for text in capsys.readouterr())
    work = [*takewhile(lambda line: line and not line.startswith("|"), printed)]
    return [*said, *work], printed[len(work) :]


def finishes(main, given, out, lost, capsys):
    """Runs a script, and again after some rows were lost, as if it had been interrupted: it makes
    only these, and prints the same tables; and once more, when there is nothing to do. Returns
    what it said the second time, the rows, and the tables."""
    main(given)
    _, tables = progress_and_tables(capsys)
    rows = read_rows(out)
    kept = [row for row in rows if not lost(row)]
    assert len(kept) < len(rows)
    write_rows(out, kept)
    main(given)
    said, again = progress_and_tables(capsys)
    assert again == tables
    assert sorted(map(str, read_rows(out))) == sorted(map(str, rows))
    main(given)
    assert progress_and_tables(capsys) == ([], tables)
    return said, rows, tables
