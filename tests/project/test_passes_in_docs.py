"""The passes that docs/compare.md names are those of the methods, and of recorded searches."""

import json
import re
import warnings

import pytest
import torch
from scripts import ROOT
from torch import nn

import captum_classpattern as cp
from captum_classpattern.comparison import METRICS
from captum_classpattern.comparison.methods import DEFAULT

PAGE = (ROOT / "docs" / "compare.md").read_text()
ROWS = ROOT / "benchmarks" / "results" / "rivals.jsonl"


class Net(nn.Module):
    """Without a layer for which LRP has no rule, such as Flatten."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU())
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.features(images).mean((2, 3)))


def table():
    """Passes by method, as the page has them."""
    [section] = re.findall(r"^## Which methods\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and re.fullmatch(r"[\d,.]+", cells[2]):
            found |= dict.fromkeys(re.findall(r"\w+", cells[0]), float(cells[2].replace(",", "")))
    return found


def recorded():
    """Passes by method, of the recorded searches on the demo's natural model."""
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    searches = (row for row in rows if row["model"] == "demo, natural" and "passes" in row)
    return {row["method"]: row["passes"] for row in searches}


@pytest.fixture(scope="module")
def measured():
    """Passes by method, on images of 28 x 28 pixels; they do not depend on the network."""
    torch.manual_seed(0)
    net = Net().eval()
    images = torch.rand(90, 1, 28, 28)
    labels = torch.arange(90) % 3
    known = recorded()
    names = [name for name in table() if name not in known]
    search = (images[:60], labels[:60])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cp.compare(
            {"net": net},
            images[:1],
            [1],
            search=search,
            held_out=(images[60:], labels[60:]),
            methods=cp.known_methods(*search, names=names),
            areas=[0.05],
            class_images=1,
            n_seeds=1,
            metrics=[metric for metric in METRICS if metric.name == "passes"],
        )
    assert not found.failures
    return {row.method: row.scores["passes"] for row in found.records if row.level == "image"}


def test_the_passes_are_those_of_the_methods(measured):
    named, known = table(), recorded()
    [controls] = re.findall("The controls</summary>(.*?)</details>", PAGE, re.DOTALL)
    assert {name for name in DEFAULT if f"| {name} |" not in controls} <= set(named)
    for method, passes in named.items():
        expected = known.get(method, measured.get(method))
        assert passes == pytest.approx(expected, abs=0.05), method
