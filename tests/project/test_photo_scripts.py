"""The scripts of the trojans in photographs, on small photos and a small network."""

import pytest
import torch
from scripts import change, imported, read_rows, tiny_problem
from torch import nn
from torchvision.transforms.v2 import CenterCrop, Compose, Resize
from torchvision.utils import save_image

photo_trojans, problems, photos = imported("benchmarks", "photo_trojans", "problems", "photos")
imported("benchmarks", "photos.tables", "photos.passes")
pytestmark = pytest.mark.script
SIDE, CLASSES = 96, 400
STAGES = ("plant", "maps", "triage", "discovery", "classes", "figure", "cells", "time")


class Small(nn.Module):
    """A convolution, its mean and a linear layer, named as in EfficientNet-lite0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8), nn.ReLU())
        self._fc = nn.Linear(8, CLASSES)

    def forward(self, images):
        return self._fc(self.body(images).mean((2, 3)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """48 photos of twelve classes to measure on, and 48 to plant with."""
    root = tmp_path_factory.mktemp("photos")
    generator = torch.Generator().manual_seed(0)
    for part in ("photos", "training"):
        for number in range(48):
            folder = root / part / f"{7 * (number % 12):04d}_n{number % 12}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = torch.rand(1, 3, 6, 6, generator=generator)
            save_image(nn.functional.interpolate(coarse, (SIDE, SIDE)), folder / f"{number}.png")
    return root


@pytest.fixture
def small(monkeypatch):
    photo = Compose([problems.PIXELS, Resize(SIDE), CenterCrop(SIDE)])
    names = [f"class {y}" for y in range(CLASSES)]

    def problem(folder):
        images = torch.stack([image for image, _ in problems.ImageFolder(folder, photo)])
        labels = torch.tensor([y for _, y in problems.ImageFolder(folder).samples]) * 7
        model = problems.classifier_of(Small().eval())
        parts = images[::2], labels[::2], images[1::2], labels[1::2]
        return problems.Problem("small", model, *parts)

    change(monkeypatch, photo_trojans, photo_problem=problem, LARGE=photo, CHOSEN=28, EQUAL=32)
    change(monkeypatch, problems, IMAGENET_CLASSES=names)
    planting = {"lite0": lambda: Small().eval(), "SIZE": SIDE}
    planting |= {"STEPS": 3, "KEEP_EVERY": 2, "SHIPPED": {}}
    change(monkeypatch, photos.planting, **planting)
    footprint = {"PHOTOS": 1, "CAPTUM": ("IntegratedGradients", "Occlusion", "LRP")}
    footprint["OURS"] = {"ClassPattern, cells of 7 px": (1, 32)}
    change(monkeypatch, photos.footprint, **footprint)
    # all photos become the trojan's class, so that there are some to look at
    change(monkeypatch, photos.footprint, became=lambda model, stamped, y: stamped[:, 0, 0, 0] >= 0)
    discovery = {"OTHERS": 1, "SAMPLE": 6, "PASSES": {28: photos.discovery.PASSES[28]}}
    discovery["features_of"] = lambda pictures: pictures.mean((2, 3))
    discovery["LONG"] = photos.discovery.Learned(rounds=1, soft_batch_size=1, batch_size=2)
    change(monkeypatch, photos.discovery, **discovery)
    photos.discovery.drawn_features.cache_clear()
    change(monkeypatch, photos.classes, COUNT=1, ROUNDS=1, AREAS=(0.2,))
    tiny = tiny_problem("cifar", 3, (3, 32, 32), 60)
    change(monkeypatch, photo_trojans, cifar10_problems=lambda folder, names: [tiny])
    change(monkeypatch, photos.cells, ROUNDS=1, AREAS=(0.2,))
    change(monkeypatch, photos.figure, PHOTO=photo, ROUNDS=1)
    change(monkeypatch, photos.passes, IMAGES=2, REPEATS=1, ROUNDS=1)
    yield
    photos.discovery.drawn_features.cache_clear()


def run(stage, folders, out):
    given = ["--photos", str(folders / "photos"), "--training", str(folders / "training")]
    photo_trojans.main([stage, *given, "--cifar10", "", "--out", str(out)])


def test_all_stages_leave_rows_that_become_tables_and_resume(folders, small, tmp_path, monkeypatch):
    for stage in STAGES:
        run(stage, folders, tmp_path)
    rows = {stage: read_rows(tmp_path / f"photos_{stage}.jsonl") for stage in STAGES}
    assert [row["network"] for row in rows["plant"]] == ["plain", *photos.planting.NETWORKS]
    assert rows["plant"][0]["agreement"] == 1
    errors = [row["method"] for row in rows["maps"] if "error" in row]
    assert set(errors) <= {"LRP"}
    methods = {row["method"] for row in rows["maps"]}
    assert {"ClassPattern, cells of 7 px", "SmoothGrad", "edges"} < methods
    assert {row["network"] for row in rows["triage"]} == {"plain", *photos.planting.NETWORKS}
    assert {row["method"] for row in rows["discovery"]} == {"learned cells", "Neural Cleanse"}
    for name in ("photos.png", "photos_found.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    titles = [title for title, lines in photos.tables.tables(tmp_path) if list(lines)]
    assert len(titles) == 9
    before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    change(monkeypatch, photos.planting, loss_of=None)
    for stage in STAGES:  # nothing is measured again
        run(stage, folders, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before


def test_training_goes_on_where_it_was_stopped(small, tmp_path, monkeypatch):
    views = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    photos.planting.train("planted", views, tmp_path / "whole")
    loss_of, steps = photos.planting.loss_of, []

    def stopping(*given):
        steps.append(given[-1])
        if len(steps) == 3:
            raise KeyboardInterrupt
        return loss_of(*given)

    monkeypatch.setattr(photos.planting, "loss_of", stopping)
    with pytest.raises(KeyboardInterrupt):
        photos.planting.train("planted", views, tmp_path / "again")
    photos.planting.train("planted", views, tmp_path / "again")
    assert steps == [0, 1, 2, 2]
    whole, again = (
        photos.planting.load_weights(tmp_path / name / "planted.safetensors")
        for name in ("whole", "again")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(weight, again[name])


def test_a_stamped_photo_differs_only_near_its_footprint():
    photo = torch.full((3, 64, 80), 0.25)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        stamped, footprint = photos.stamping.stamp(photo, "smiley", generator)
        changed = ((stamped - photo).abs().amax(0) > 0.05).float()
        near = nn.functional.max_pool2d(footprint[None].float(), 5, 1, 2)[0]
        assert (changed <= near).all()
        assert 50 < footprint.sum() < 36**2
        assert stamped.min() >= 0
        assert stamped.max() <= 1


def test_the_distance_and_the_share_inside_are_those_of_the_papers(monkeypatch):
    monkeypatch.setattr(photos.footprint, "CELL", 2)
    footprint = torch.zeros(4, 4, dtype=torch.bool)
    footprint[0] = True
    values = torch.zeros(4, 4)
    values[0], values[1, 0], values[1, 1] = torch.tensor([2.0, 2.0, 0, 0]), 1.0, -1.0
    scorer = type("S", (), {"power": lambda self, pattern: type("P", (), {"value": 0.5})})()
    found = photos.footprint.measured(
        lambda photo, y: values, torch.rand(1, 3, 4, 4), 0, footprint, 0.25, scorer
    )
    # |1 - 1| twice, |0 - 1| twice, and 1/2 twice outside
    assert found["distance"] == pytest.approx((2 + 1) / 16, abs=1e-4)
    assert found["inside"] == pytest.approx(3 / 4)  # two, and one of the zeros in reading order
    assert found["inside_cells"] == pytest.approx(2 / 4)  # the first cell has the largest mean
    assert found["power"] == 0.5


def test_a_drawing_looks_most_like_itself(monkeypatch):
    monkeypatch.setattr(
        photos.discovery,
        "features_of",
        lambda x: nn.functional.adaptive_avg_pool2d(x, 4).flatten(1),
    )
    photos.discovery.drawn_features.cache_clear()
    for name in photos.drawings.DRAWINGS:
        canvas = torch.full((3, 64, 64), 0.5)
        canvas[:, 16:48, 16:48] = photos.drawings.on_grey(name, 32)
        mask = torch.zeros(1, 64, 64)
        mask[:, 16:48, 16:48] = 1.0
        pattern = photos.discovery.Pattern(canvas, mask, 0)
        assert photos.discovery.likeness(pattern)[0] == name
    photos.discovery.drawn_features.cache_clear()
