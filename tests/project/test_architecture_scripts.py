"""benchmarks/architectures.py: a run on tiny networks goes on where it stopped; parts by hand."""

import math

import pytest
import torch
from refusals import refusal
from scripts import ROOT, change, finishes, imported, read_rows, write_fashion_mnist
from torch import nn
from torch.nn import functional as F

from captum_classpattern import LabelledImages

architectures, figure, models, one_cycle, rows_of, tables = imported(
    *("benchmarks", "architectures", "architecture_figure", "architecture_models", "one_cycle"),
    *("architecture_rows", "architecture_tables"),
)
pytestmark = pytest.mark.script


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Few images with bars, and four linear networks."""
    for name in list(models.NETWORKS):
        monkeypatch.delitem(models.NETWORKS, name)
    for name in ("linear", "shallow", "resnet", "distilled"):
        monkeypatch.setitem(models.NETWORKS, name, models.linear_network)
    change(monkeypatch, architectures, SEARCH=150, HELD_OUT=110)
    return write_fashion_mnist(tmp_path, 300, 260, bars=True)


def test_one_command_measures_all_and_continues(data, tmp_path, capsys, snapshot):
    out, png = tmp_path / "out", tmp_path / "figure.png"
    given = [str(data), "--out", str(out), "--seeds", "2", "--epochs", "1", "--budget", "560"]

    def lost(row):
        of_linear = (row.get("network"), row.get("tested")) == ("linear", None)
        return of_linear or row.get("tested") == "shallow"

    path = out / "rows.jsonl"
    said, rows, _ = finishes(architectures.main, [*given, "--figure", str(png)], path, lost, capsys)
    assert said == [
        *(f"searching linear_{n}, search seed {m}" for n, m in ((0, 0), (0, 1), (1, 0))),
        *(f"testing all patterns on shallow_{n}" for n in (0, 1)),
    ]
    assert png.stat().st_size > 10_000
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("settings", "model", "pattern", "transfer")] == [
        1, 8, 12 * 20, 8 * 8 * 2,
    ]  # fmt: skip
    patterns = [row for row in rows if row["kind"] == "pattern"]
    assert {int(rows_of.unpacked(row["mask"]).sum()) for row in patterns} == {39}
    places = {(row["class"], row["image"]) for row in patterns if row["canvas"] == "positive"}
    assert len(places) == 10  # the same canvases for all
    assert all(image < 150 and image % 10 == target for target, image in places)
    own = {
        (row["network"], row["seed"], row["canvas"]): row["powers"]
        for row in rows
        if row["kind"] == "transfer"
        and (row["network"], row["seed"]) == (row["tested"], row["tested_seed"])
    }
    for row in patterns:  # a pattern has on its own model the power that it was found with
        if row["search_seed"] == 0:
            of_model = own[row["network"], row["seed"], row["canvas"]]
            assert of_model[str(row["class"])] == row["power"]
    text = refusal(lambda: architectures.main([*given, "--budget", "1300"]))
    assert text.replace(str(out), "OUT") == snapshot


@pytest.mark.parametrize("name", list(models.NETWORKS))
def test_each_network_classifies_and_learns(name):
    torch.manual_seed(0)
    network = models.NETWORKS[name]()
    logits = network(torch.rand(4, 1, 28, 28))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert name in rows_of.LABELS


def test_the_loss_of_distillation_by_hand():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).bfloat16().float()
    x, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 2])
    soft = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    logits = network[1].bias.expand(2, 3)
    warm = (logits / 4).log_softmax(1)
    expected = 0.9 * 16 * -(soft * warm).sum(1).mean() + 0.1 * F.cross_entropy(logits, y)
    found = models.distillation(network, x, y, soft)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_cycle_shows_each_image_once_per_epoch():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], 0.5)
    batches, rates = [], []

    def loss_of(batch):
        batches.append(batch)
        rates.append(optimizer.param_groups[0]["lr"])
        return weight.sum()

    torch.manual_seed(0)
    one_cycle.fit(optimizer, loss_of, 3 * one_cycle.BATCH + 5, 4)
    assert len(batches) == 12
    for epoch in range(4):
        seen = torch.cat(batches[3 * epoch : 3 * epoch + 3])
        assert len(seen.unique()) == 3 * one_cycle.BATCH
    assert 0.4 < max(rates) <= 0.5
    assert rates[0] == pytest.approx(0.5 / 25)
    assert rates[-1] < rates[0]


class Logits(nn.Module):
    """The first two pixels of an image."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_the_canvas_is_the_image_of_median_confidence_that_all_models_know():
    def flipped(x):
        return torch.stack([x.flatten(1)[:, 0], 0.5 * torch.ones(len(x))], dim=1)

    shades = [(0.9, 0.1), (0.4, 0.2), (0.6, 0.5), (0.7, 0.2), (0.1, 0.9), (0.3, 0.6), (0.2, 0.7)]
    images = torch.zeros(8, 1, 1, 3)
    images[:, 0, 0, :2] = torch.tensor([*shades, (0.45, 0.2)])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    pair = {"a": Logits(), "b": flipped}
    white, positive, *others = architectures.choose_canvases(pair, LabelledImages(images, labels))
    assert (white.kind, white.target, white.image) == ("white", 0, None)
    assert bool((white.pixels == 1).all())
    # the second model takes images 1 and 7 for the other class; the least confident image of the
    # others is number 2, then 3, then 0
    assert (positive.kind, positive.target, positive.image) == ("positive", 0, 3)
    assert torch.equal(positive.pixels, images[3])
    assert [(canvas.target, canvas.image) for canvas in others] == [(1, None), (1, 6)]


def test_the_held_out_images_have_no_copy_of_a_search_image(data, monkeypatch):
    images, labels = models.load_split(data, "t10k")
    images[155] = images[3]
    change(monkeypatch, architectures, load_split=lambda folder, name: (images, labels))
    found = architectures.images_of(data)
    assert torch.equal(found.search.images, images[:150])
    assert torch.equal(found.held_out.images[:6], images[[150, 151, 152, 153, 154, 156]])
    assert len(found.held_out) == 109  # of 110 that are left
    monkeypatch.setattr(architectures, "HELD_OUT", 20)
    assert len(architectures.images_of(data).held_out) == 20


def test_imitation_by_hand():
    def student(x):  # does not know the second image
        return x.flatten(1) * torch.tensor([[1.0], [0.0]])

    images = torch.tensor([[4.0, 0.0], [0.0, 8.0]]).view(2, 1, 1, 2)
    found = architectures.imitation(student, Logits(), images)
    assert found["same_as_teacher"] == 0.5  # a tie goes to the first class
    p = 1 / (1 + math.exp(-2))
    divergence = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert found["divergence"] == pytest.approx(divergence / 2, rel=1e-5)
    same = architectures.imitation(Logits(), Logits(), images)
    assert same == {"same_as_teacher": 1.0, "divergence": pytest.approx(0.0, abs=1e-7)}


@pytest.fixture(scope="module")
def of_two():
    """The committed rows of two networks."""
    rows = read_rows(ROOT / "benchmarks" / "results" / "architectures.jsonl")
    names = {"linear", "mlp", None}
    return [row for row in rows if {row.get("network"), row.get("tested"), None} <= names]


def test_the_figure_has_the_numbers_of_the_tables(of_two):
    drawn = figure.draw(of_two)
    assert len(drawn.axes) == 3 * len(figure.SHOWN) + 2
    shown = [text.get_text() for text in drawn.axes[-2].texts]
    found = rows_of.Found(of_two, "white")
    rows = [*tables.matrix(found, found.powers, "{:.0%}".format, random=True)][1:]
    cells = [cell for row in rows for cell in row.strip("| ").split(" | ")[1:]]
    assert shown == [cell.replace("%", "\xa0%") for cell in cells]
    assert "two searches on one model: 0." in drawn.texts[0].get_text()
    assert "\nrandom masks: 0.03" in drawn.texts[0].get_text()
