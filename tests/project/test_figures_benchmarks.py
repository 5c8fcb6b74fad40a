"""The scripts that draw the figures of README and docs, on tiny models; and the numbers in them."""

import json

import pytest
import torch
from figures import badly_placed
from scripts import ROOT, imported
from surveyed import finding
from torch import nn

from captum_classpattern import LabelledImages, PixelClassifier, Survey, survey
from captum_classpattern.demo import demo_images, demo_models, demo_trigger

hero, methods = (imported("benchmarks", name) for name in ("hero", "methods"))
demo_figure, paper_figures = (imported("benchmarks", n) for n in ("demo_figure", "paper_figures"))
imagenet_class = imported("benchmarks", "imagenet_class")
RESULTS = ROOT / "benchmarks" / "results"
IMAGES, LABELS = torch.rand(80, 3, 8, 8), torch.arange(80) % 4


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tiny(seed):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    return PixelClassifier(network.eval())


@pytest.fixture
def two_models(monkeypatch):
    """Two models of three classes, and small searches."""
    models = {"natural": tiny(0), "robust8": tiny(1)}
    parts = imported("benchmarks", "problems").Parts(
        IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:]
    )
    monkeypatch.setattr(hero, "model", models.get)
    monkeypatch.setattr(hero, "parts", lambda data, seed: parts)
    monkeypatch.setattr(hero, "CLASS_NAMES", ("ant", "bee", "cat"))
    monkeypatch.setattr(hero, "BUDGETS", {"robust8": 900, "natural": 430})
    monkeypatch.setattr(hero, "CANVASES", 2)


def test_both_models_have_a_pattern_on_the_same_canvas_and_nothing_is_searched_twice(
    two_models, tmp_path, capsys
):
    given = ["data", "--out", str(tmp_path), "--classes"]
    hero.main([*given, "2", "0"])
    rows = rows_of(tmp_path / "hero.jsonl")
    found = [(row["class_name"], row["model"]) for row in rows]
    assert found == [(c, m) for c in ("cat", "ant") for m in ("robust8", "natural")]
    for row in rows:
        assert row["n"] == 30
        assert row["interval"][0] <= row["power"] <= row["interval"][1]
        assert not row["beats_controls"]  # too few images
    for name in ("ant", "cat"):
        canvases = [
            hero.Pattern.load(tmp_path / f"{model}_{name}.safetensors").canvas
            for model in hero.MODELS
        ]
        assert torch.equal(*canvases)
    assert (tmp_path / "hero.png").stat().st_size > 1_000
    figure = hero.draw(rows, tmp_path)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["ant", "cat"]
    assert figure.axes[2].get_xlabel() == hero.percent(rows[3]["power"], 0)
    assert not badly_placed(figure)
    capsys.readouterr()
    hero.main([*given, "0"])
    assert not capsys.readouterr().out


def test_the_hero_has_ten_classes_and_its_powers_lie_in_their_intervals():
    rows = rows_of(RESULTS / "hero.jsonl")
    classes = sorted((row["class"], row["model"]) for row in rows)
    assert classes == [(y, model) for y in range(10) for model in ("natural", "robust8")]
    for row in rows:
        assert row["interval"][0] <= row["power"] <= row["interval"][1]
        assert row["beats_controls"] <= (
            row["power"] > max(row["no_pattern"], row["random_pixels"])
        )


@pytest.fixture
def setting(monkeypatch):
    search = LabelledImages(IMAGES[:40], LABELS[:40])
    held_out = LabelledImages(IMAGES[40:], LABELS[40:])
    made = methods.Setting("tiny", tiny(0), search, held_out, IMAGES[:4], 40)
    monkeypatch.setattr(methods, "cifar10_settings", lambda folder, names: [made])
    monkeypatch.setattr(methods, "SHOWN", 1)


def test_each_method_is_measured_once_and_drawn(setting, tmp_path, capsys):
    given = ["data", "--out", str(tmp_path), "--budget", "430", "--classes", "1"]
    methods.main(given)
    printed = capsys.readouterr().out
    assert "measuring Saliency, class 1" in printed
    rows = rows_of(tmp_path / "methods.jsonl")
    assert {row["method"] for row in rows} == set(methods.METHODS)
    assert (tmp_path / "methods.png").stat().st_size > 1_000
    figure = methods.draw(rows, tmp_path, 1)
    shown = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel().startswith("power")]
    assert shown == [
        f"power {methods.percent(max(r['power_0.05'] for r in rows if r['method'] == method), 0)}"
        for method in methods.METHODS
    ]
    assert not badly_placed(figure)
    methods.main(given)
    assert "measuring" not in capsys.readouterr().out


def test_the_better_ranking_counts_and_means_are_over_classes():
    names = {"power_0.05_low": 0.0, "power_0.05_high": 1.0}
    rows = [
        {"method": method, "class": y, "ranking": ranking, "power_0.05": power, **names}
        for method in methods.METHODS
        for y, powers in enumerate(((0.2, 0.1), (0.4, 0.9)))
        for ranking, power in zip(("signed", "absolute"), powers)
    ]
    assert list(methods.table(rows))[1] == "| class pattern | 50.0 % (0.0 to 100.0) |"
    with pytest.raises(SystemExit):
        methods.main([])


def test_the_demos_figure_has_the_trigger_boxed(tmp_path, capsys):
    images = demo_images()
    found = survey(
        demo_models()["backdoored"],
        *(images.search.stratified_sample(100), images.held_out.stratified_sample(100)),
        **{"classes": [0, 7, 8], "canvases": {"white": 1}, "areas": (0.01,), "n_steps": 1},
        folder=tmp_path / "backdoored",
    )
    list(found)
    demo_figure.main([str(tmp_path), "--figure", str(tmp_path / "demo.png")])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["class_name"] == "T-shirt"
    assert {row["class_name"] for row in rows[1:]} == {"Sneaker", "Bag"}
    assert rows[1]["power"] >= rows[2]["power"]
    figure = demo_figure.draw(demo_figure.three_classes(found))
    boxed = [len(axis.patches) for axis in figure.axes if axis.images]
    assert boxed == [0, 1, 1, 1, 1, *[0] * 10]
    assert not badly_placed(figure)
    assert (tmp_path / "demo.png").stat().st_size > 1_000


def test_the_triggers_place_is_boxed_in_every_panel():
    trigger = demo_trigger()
    found = Survey([finding(0, canvas, 50) for canvas in ("white", "black")])
    figure = paper_figures.trigger_patterns(trigger, found, 0.05, ["white", "black"])
    assert [axis.get_title() for axis in figure.axes] == ["true trigger", "white", "black"]
    assert [len(axis.patches) for axis in figure.axes] == [1, 1, 1]
    assert figure.axes[1].get_xlabel() == "50\xa0%"


@pytest.fixture
def photos(monkeypatch):
    """Five classes of 8 pixels, and photos that are not in colour."""
    model = PixelClassifier(tiny(0), class_names=["ant", "bee", "cat", "dog"])
    problem = imported("benchmarks", "problems").Problem(
        "tiny", model, IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:]
    )
    monkeypatch.setattr(imagenet_class, "photo_problem", lambda folder: problem)
    monkeypatch.setattr(imagenet_class, "strongest_class", lambda: 2)
    monkeypatch.setattr(imagenet_class, "photos", lambda: {"one": IMAGES[0], "two": IMAGES[1]})
    monkeypatch.setattr(imagenet_class, "BUDGET", 430)


def test_each_photo_is_shown_with_what_the_model_predicts(photos, tmp_path):
    imagenet_class.main(["photos", "--out", str(tmp_path)])
    rows = rows_of(tmp_path / "imagenet_class.jsonl")
    assert [row.get("photo", "cat") for row in rows] == ["cat", "one", "two"] * 2
    assert [row["area"] for row in rows] == [0.05] * 3 + [0.1] * 3
    assert rows[0]["n"] == rows[3]["n"] == 30
    assert all(0 < row["before"][1] <= 1 for row in rows if "photo" in row)
    assert (tmp_path / "imagenet_class.png").stat().st_size > 1_000


def test_the_class_of_the_figure_is_the_strongest_of_the_gallery():
    assert imagenet_class.strongest_class() == 70
    rows = rows_of(RESULTS / "imagenet_class.jsonl")
    names = [row.get("photo", row.get("class_name")) for row in rows]
    assert names == ["harvestman", *imagenet_class.PHOTOS] * len(imagenet_class.AREAS)
    [same] = [row for row in rows_of(RESULTS / "gallery.jsonl") if row["class"] == 70]
    assert rows[0]["power"] == same["power"]
