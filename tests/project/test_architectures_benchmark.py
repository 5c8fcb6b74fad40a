"""benchmarks/architectures.py on tiny networks, and its tables by hand."""

import gzip
import json
import math

import numpy as np
import pytest
import torch
from scripts import ROOT, imported
from torch import nn
from torch.nn import functional as F

from captum_classpattern import LabelledImages

architectures = imported("benchmarks", "architectures")
models = imported("benchmarks", "architecture_models")
rows_of = imported("benchmarks", "architecture_rows")
figure = imported("benchmarks", "architecture_figure")
tables = imported("benchmarks", "architecture_tables")
one_cycle = imported("benchmarks", "one_cycle")
ROWS = ROOT / "benchmarks" / "results" / "architectures.jsonl"
TINY = ("linear", "shallow", "resnet", "distilled")


@pytest.fixture
def data(tmp_path):
    """Files like those of Fashion-MNIST: a bright row for each class, with noise."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 300), ("t10k", 260)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = generator.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        pixels[np.arange(count), labels] += 120
        for name, header, values in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            content = gzip.compress(bytes(header) + values.tobytes())
            (tmp_path / f"{split}-{name}-ubyte.gz").write_bytes(content)
    models.split.cache_clear()
    yield tmp_path
    models.split.cache_clear()


@pytest.fixture
def tiny(monkeypatch):
    """Four linear networks, and few images."""
    for name in list(models.NETWORKS):
        monkeypatch.delitem(models.NETWORKS, name)
    for name in TINY:
        monkeypatch.setitem(models.NETWORKS, name, models.linear_network)
    monkeypatch.setattr(architectures, "SEARCH", 150)
    monkeypatch.setattr(architectures, "HELD_OUT", 110)


def test_one_command_measures_all_and_continues(data, tiny, tmp_path, capsys, monkeypatch):
    out, png = tmp_path / "out", tmp_path / "figure.png"
    given = [str(data), "--out", str(out), "--seeds", "2", "--epochs", "1", "--budget", "700"]
    architectures.main([*given, "--figure", str(png)])
    printed = capsys.readouterr().out
    counts = [printed.count(text) for text in ("training ", "searching ", "testing all ")]
    assert counts == [8, 12, 8]
    found = printed[printed.index("\n### Power") :]
    assert png.stat().st_size > 10_000
    rows = rows_of.read_rows(out / "rows.jsonl")
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("settings", "model", "pattern", "transfer")] == [
        1, 8, 12 * 20, 8 * 8 * 2,
    ]  # fmt: skip
    patterns = [row for row in rows if row["kind"] == "pattern"]
    masks = [rows_of.unpacked(row["mask"]) for row in patterns]
    assert {int(mask.sum()) for mask in masks} == {39}
    places = {(row["class"], row["image"]) for row in patterns if row["canvas"] == "positive"}
    assert len(places) == 10  # the same canvases for all
    assert all(image < 150 and image % 10 == target for target, image in places)
    for row in patterns:  # a pattern has on its own model the power that it was found with
        if row["search_seed"] == 0:
            [same] = [
                r
                for r in rows
                if r["kind"] == "transfer"
                and r["network"] == r["tested"] == row["network"]
                and r["seed"] == r["tested_seed"] == row["seed"]
                and r["canvas"] == row["canvas"]
            ]
            assert same["powers"][str(row["class"])] == row["power"]

    path = out / "rows.jsonl"
    kept = [row for row in rows if (row.get("network"), row.get("tested")) != ("linear", None)]
    kept = [row for row in kept if row.get("tested") != "shallow"]
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))  # as if interrupted
    architectures.main(given)
    again = capsys.readouterr().out
    assert again.count("searching linear") == 3
    assert again.count("testing all patterns on shallow") == 2
    assert again.count("training ") + again.count("searching ") + again.count("testing ") == 5
    assert again[again.index("\n### Power") :].rstrip() == found.rstrip()

    monkeypatch.setattr(models, "train", None)
    monkeypatch.setattr(architectures, "search", None)
    monkeypatch.setattr(architectures, "transferred", None)
    architectures.main(given)  # nothing is made twice
    assert capsys.readouterr().out.rstrip() == found.rstrip()
    architectures.main(["--rows", str(path)])
    assert capsys.readouterr().out.rstrip() == found.rstrip()
    with pytest.raises(ValueError, match=r"was measured with .* not .* choose another folder$"):
        architectures.main([*given, "--budget", "1300"])


def test_data_or_rows_are_needed(capsys):
    with pytest.raises(SystemExit):
        architectures.main([])
    assert "DATA or --rows is needed" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(models.NETWORKS))
def test_each_network_classifies_and_learns(name):
    torch.manual_seed(0)
    network = models.NETWORKS[name]()
    images = torch.rand(4, 1, 28, 28)
    assert network(images).shape == (4, 10)
    network(images).square().sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert name in rows_of.LABELS


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    block = models.TransformerBlock(8, 2).eval()
    for weight in (*block.mlp[2].parameters(),):
        nn.init.zeros_(weight)  # only the attention is left
    plain = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad():
        plain.in_proj_weight.copy_(block.to_qkv.weight)
        plain.in_proj_bias.copy_(block.to_qkv.bias)
        plain.out_proj.load_state_dict(block.out.state_dict())
        x = torch.rand(3, 5, 8)
        normed = block.norm1(x)
        torch.testing.assert_close(block(x), x + plain(normed, normed, normed)[0])


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


class Fixed(nn.Module):
    """Logits that are the first two pixels of an image."""

    def forward(self, x):
        return x.flatten(1)[:, :2]


def test_the_canvas_is_the_image_of_median_confidence_that_all_models_know():
    def flipped(x):
        return torch.stack([x.flatten(1)[:, 0], 0.5 * torch.ones(len(x))], dim=1)

    shades = [(0.9, 0.1), (0.4, 0.2), (0.6, 0.5), (0.7, 0.2), (0.1, 0.9), (0.3, 0.6), (0.2, 0.7)]
    images = torch.zeros(8, 1, 1, 3)
    images[:, 0, 0, :2] = torch.tensor([*shades, (0.45, 0.2)])
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    pair = {"a": Fixed(), "b": flipped}
    white, positive, *others = architectures.choose_canvases(pair, LabelledImages(images, labels))
    assert (white.kind, white.target, white.image) == ("white", 0, None)
    assert bool((white.pixels == 1).all())
    # the second model takes images 1 and 7 for the other class; the least confident image of the
    # others is number 2, then 3, then 0
    assert (positive.kind, positive.target, positive.image) == ("positive", 0, 3)
    assert torch.equal(positive.pixels, images[3])
    assert [(canvas.target, canvas.image) for canvas in others] == [(1, None), (1, 6)]


def test_the_held_out_images_have_no_copy_of_a_search_image(data, tiny, monkeypatch):
    images, _ = models.split(data, "t10k")
    images[155] = images[3]
    found = architectures.images_of(data)
    assert torch.equal(found.search.images, images[:150])
    assert torch.equal(found.held_out.images[:6], images[[150, 151, 152, 153, 154, 156]])
    assert len(found.held_out) == 109  # of 110 that are left
    monkeypatch.setattr(architectures, "HELD_OUT", 20)
    assert len(architectures.images_of(data).held_out) == 20


def test_imitation_by_hand():
    class Logits(nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, x):
            return self.logits[: len(x)]

    teacher, model = Logits([[4.0, 0.0], [0.0, 8.0]]), Logits([[4.0, 0.0], [0.0, 0.0]])
    found = architectures.imitation(model, teacher, torch.zeros(2, 1, 1, 1))
    assert found["same_as_teacher"] == 0.5  # a tie goes to the first class
    p = 1 / (1 + math.exp(-2))
    divergence = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert found["divergence"] == pytest.approx(divergence / 2, rel=1e-5)
    same = architectures.imitation(teacher, teacher, torch.zeros(2, 1, 1, 1))
    assert same == {"same_as_teacher": 1.0, "divergence": pytest.approx(0.0, abs=1e-7)}


def test_masks_are_packed_without_loss():
    torch.manual_seed(0)
    for share in (0.0, 0.05, 0.5, 1.0):
        mask = (torch.rand(1, 28, 28) < share).float()
        assert torch.equal(rows_of.unpacked(rows_of.packed(mask)), mask)
    corner = torch.zeros(1, 28, 28)
    corner[0, 0, :4] = 1
    assert rows_of.packed(corner) == "f"


def mask_at(*places):
    """Packed: ten of these tens of pixels."""
    mask = torch.zeros(784)
    for place in places:
        mask[10 * place : 10 * place + 10] = 1
    return rows_of.packed(mask.view(1, 28, 28))


def made_up(canvas):
    """Two seeds of four networks and five classes. The mask of seed s is the tens s and s + 1 of
    pixels; a second search finds other pixels. Patterns of the network number n have a power of
    n / 10 on others, more by their class, and 0.5 on their own network's."""
    rows = []
    names = ("linear", "shallow", "distilled", "resnet")
    for n, network in enumerate(names):
        for seed in (0, 1):
            rows.append({
                "kind": "model", "network": network, "seed": seed, "parameters": 7850,
                "accuracy": 0.8 + 0.1 * seed, "seconds": 1, "same_as_teacher": 0.9,
                "divergence": 0.25 * n,
            })  # fmt: skip
            for y in range(5):
                row = {
                    "kind": "pattern", "network": network, "seed": seed, "canvas": canvas,
                    "class": y, "power": 0.5 + 0.1 * seed, "images": 100, "no_pattern": 0.02,
                    "random_pixels": 0.01 * n, "beats_controls": y > 0,
                }  # fmt: skip
                rows.append({**row, "search_seed": 0, "mask": mask_at(seed, seed + 1)})
                if seed == 0:
                    rows.append({**row, "search_seed": 1, "power": 9.0, "mask": mask_at(5, 6)})
            for tested, tested_seed in ((t, s) for t in names for s in (0, 1)):
                powers = {str(y): 0.1 * n + 0.01 * (y - 2) for y in range(5)}
                if tested == network:
                    powers = dict.fromkeys(powers, 0.5 if seed != tested_seed else 0.7)
                elif seed == tested_seed:
                    powers = dict.fromkeys(powers, 0.6 if network == "distilled" else 0.3)
                rows.append({
                    "kind": "transfer", "network": network, "seed": seed, "tested": tested,
                    "tested_seed": tested_seed, "canvas": canvas, "powers": powers,
                })  # fmt: skip
    return rows


@pytest.fixture
def found():
    return rows_of.Found(made_up("white"), "white")


def test_the_powers_by_hand(found):
    assert [*tables.power_table(found)][1:3] == [
        "| linear | 7,850 | 85.0% (80.0 to 90.0) | 55.0% (55.0 to 55.0) | 0.0% | 2.0% | 8 of 10 |",
        "| shallow CNN, alone | 7,850 | 85.0% (80.0 to 90.0) | 55.0% (55.0 to 55.0) | 1.0% | 2.0% "
        "| 8 of 10 |",
    ]


def test_what_is_shared_by_hand(found):
    linear, shallow, *_, random = [*tables.sharing_table(found)][1:]
    cells = [cell.split(" (")[0] for cell in linear.strip("| ").split(" | ")]
    # two masks of 20 pixels share 10 with another seed, none with another search
    assert cells == ["linear", "55.0%", "50.0%", "0.0%", "20.0%", "0.00", "0.33", "0.33"]
    # the students are one architecture: others are linear (0 %) and the teacher (30 %)
    cells = [cell.split(" (")[0] for cell in shallow.strip("| ").split(" | ")]
    assert cells[3:5] == ["10.0%", "15.0%"]
    assert random.startswith("| random pixels | 1.5% (1.5 to 1.5) |")
    assert random.endswith("| 0.013 | 0.013 | 0.013 |")  # 20 / (2 * 784 - 20)


def test_the_matrices_by_hand(found):
    powers = [*tables.matrix(found, found.powers, "{:.0%}".format, random=True)]
    assert powers[1:] == [
        "| linear | 50% | 0% | 0% | 0% |",
        "| shallow CNN, alone | 10% | 50% | 10% | 10% |",
        "| shallow CNN, distilled | 20% | 20% | 50% | 20% |",
        "| ResNet | 30% | 30% | 30% | 50% |",
        "| random pixels | 0% | 1% | 2% | 3% |",
    ]
    ious = [*tables.matrix(found, found.ious, "{:.2f}".format)]
    assert ious[1:][0] == "| linear | 0.33 | 0.33 | 0.33 | 0.33 |"


def test_distillation_by_hand(found):
    lines = [*tables.distillation_table([found])][1:]
    assert lines == [
        "|  | accuracy | 85.0% | 85.0% | 0.0% |",
        "|  | predictions equal to the teacher's | 90.0% | 90.0% | 0.0% |",
        "|  | divergence from the teacher's probabilities | 0.250 | 0.500 | 0.250 |",
        "| white | its patterns on itself | 55.0% | 55.0% | 0.0% (0.0 to 0.0) |",
        "| white | its patterns on the teacher | 30.0% | 60.0% | 30.0% (30.0 to 30.0) |",
        "| white | its patterns on other architectures | 10.0% | 20.0% | 10.0% (10.0 to 10.0) |",
        "| white | the teacher's patterns on it | 30.0% | 30.0% | 0.0% (0.0 to 0.0) |",
        "| white | IoU with the teacher's masks | 1.00 | 1.00 | 0.000 (0.000 to 0.000) |",
    ]


def test_shapes_by_hand(found):
    *lines, random = [*tables.shape_table([found])][1:]
    cells = [cell.split(" (")[0] for cell in lines[0].strip("| ").split(" | ")]
    # 20 pixels in a row: 20 edges below and one beside; or 10 to 29: 8 with one row above, too
    first, second = torch.zeros(28, 28), torch.zeros(28, 28)
    first.view(-1)[:20] = 1
    second.view(-1)[10:30] = 1
    expected = [
        float(m.diff(dim=0).abs().sum() + m.diff(dim=1).abs().sum()) / 784 for m in (first, second)
    ]
    assert cells[:2] == ["linear", f"{sum(expected) / 2:.3f}"]
    assert cells[3] == "1.5"  # 10 to 27 and 28 to 29 don't touch
    pieces = float(random.strip("| ").split(" | ")[3])
    assert 15 < pieces < 20  # 20 random pixels are nearly all alone


def test_the_figure_has_a_row_of_masks_for_each_network_and_for_random_pixels(found):
    drawn = figure.draw(made_up("white"))
    shown = [y for y in figure.SHOWN if y < 5]
    assert len(drawn.axes) == 5 * len(shown) + 2
    texts = [text.get_text() for text in drawn.axes[-2].texts]
    assert texts[:4] == ["50\xa0%", "0\xa0%", "0\xa0%", "0\xa0%"]
    assert texts[-4:] == ["0\xa0%", "1\xa0%", "2\xa0%", "3\xa0%"]
    assert (
        "two searches on one model: 0.00 to 0.00\nrandom masks: 0.01" in drawn.texts[0].get_text()
    )


def test_the_page_has_the_tables_of_the_committed_rows(capsys):
    architectures.main(["--rows", str(ROWS)])
    page = (ROOT / "docs" / "architectures.md").read_text()
    found = [part for part in capsys.readouterr().out.split("\n\n") if part.startswith("|")]
    assert len(found) == 10
    for table in found:
        assert table.strip() in page
