"""The scripts that draw the figures of README and docs, on tiny models; and the numbers in them."""

import json

import pytest
import torch
from figures import badly_placed
from matplotlib.text import Text
from scripts import ROOT, imported
from surveyed import finding
from torch import nn

from captum_classpattern import LabelledImages, PixelClassifier, Survey, survey
from captum_classpattern.demo import demo_images, demo_models, demo_trigger
from captum_classpattern.surveys import Scores

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
    """Two models of four classes, three of which have a name, and small searches."""
    models = {"natural": tiny(0), "robust8": tiny(1)}
    parts = imported("benchmarks", "problems").Parts(
        IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:]
    )
    monkeypatch.setattr(hero, "model", models.get)
    monkeypatch.setattr(hero, "parts", lambda data, seed: parts)
    monkeypatch.setattr(hero, "CLASS_NAMES", ("ant", "bee", "cat"))
    monkeypatch.setattr(hero, "PASSES", {hero.CHOOSER: 900, hero.FOLLOWER: 430})
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
    assert (tmp_path / "hero.png").exists()
    figure = hero.draw(rows, tmp_path)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["ant", "cat"]
    assert figure.axes[2].get_xlabel() == hero.percent(rows[3]["power"], 0)
    assert not badly_placed(figure)
    capsys.readouterr()
    hero.main([*given, "0"])
    assert not capsys.readouterr().out


def test_without_rows_the_saved_patterns_are_scored_again(two_models, monkeypatch, tmp_path):
    given = ["data", "--out", str(tmp_path), "--classes", "1"]
    hero.main(given)
    file = tmp_path / "hero.jsonl"
    rows = rows_of(file)
    file.unlink()
    monkeypatch.delattr(hero, "ClassPattern")
    hero.main(given)
    assert rows_of(file) == rows


def test_the_controls_are_those_of_a_survey(two_models):
    """On fewer than 300 images; the canvas of the next class is chosen as there."""
    model, parts = hero.model("natural"), hero.parts("data", hero.SEED)
    [found] = survey(
        model,
        (parts.images, parts.labels),
        (parts.held_out, parts.held_out_labels),
        **{"classes": [1], "canvases": {"white": 1}, "areas": (hero.AREA,), "n_steps": 1},
    )
    assert hero.score(found.pattern, "natural", parts) == found.scores[hero.AREA]


def test_the_hero_has_ten_classes_and_its_powers_lie_in_their_intervals():
    rows = rows_of(RESULTS / "hero.jsonl")
    classes = sorted((row["class"], row["model"]) for row in rows)
    assert classes == [(y, model) for y in range(10) for model in ("natural", "robust8")]
    for row in rows:
        assert row["interval"][0] <= row["power"] <= row["interval"][1]
        assert row["beats_controls"] == Scores.from_dict(row).beats_controls


@pytest.fixture
def setting(monkeypatch):
    search = LabelledImages(IMAGES[:40], LABELS[:40])
    held_out = LabelledImages(IMAGES[40:], LABELS[40:])
    made = methods.Setting("tiny", tiny(0), search, held_out, IMAGES[:4], 30)
    monkeypatch.setattr(methods, "cifar10_settings", lambda folder, names: [made])
    monkeypatch.setattr(methods, "TARGET", 1)


def test_each_method_is_drawn_by_its_better_ranking(setting, monkeypatch, tmp_path):
    drawn, draw = [], methods.draw

    def keep(*given):
        drawn.append((given, draw(*given)))
        return drawn[0][1]

    monkeypatch.setattr(methods, "draw", keep)
    methods.main(["data", "--out", str(tmp_path), "--budget", "430"])
    [((canvas, rows, maps), figure)] = drawn
    assert rows_of(tmp_path / "methods.jsonl") == rows
    assert (tmp_path / "methods.png").exists()
    assert torch.equal(canvas, IMAGES[1])
    assert {row["class"] for row in rows} == {1}
    assert list(dict.fromkeys(row["method"] for row in rows)) == [*maps] == [*methods.METHODS]
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "automobile" in texts
    assert "dog" not in texts
    shown = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel().startswith("power")]
    assert shown == [
        f"power {methods.percent(max(r['power_0.05'] for r in rows if r['method'] == method), 0)}"
        for method in methods.METHODS
    ]
    assert not badly_placed(figure)


def test_the_figure_of_methods_is_of_the_dog_alone():
    rows = rows_of(RESULTS / "methods.jsonl")
    assert {row["class"] for row in rows} == {methods.TARGET}
    assert methods.CLASS_NAMES[methods.TARGET] == "dog"
    assert {row["method"] for row in rows} == set(methods.METHODS)


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
    assert (tmp_path / "demo.png").exists()


def test_the_triggers_place_is_boxed_in_every_panel():
    trigger = demo_trigger()
    found = Survey([finding(0, canvas, 50) for canvas in ("white", "black")])
    figure = paper_figures.trigger_patterns(trigger, found, 0.05, ["white", "black"])
    assert [axis.get_title() for axis in figure.axes] == ["true trigger", "white", "black"]
    assert [len(axis.patches) for axis in figure.axes] == [1, 1, 1]
    assert figure.axes[1].get_xlabel() == "50\xa0%"


@pytest.fixture
def photos(monkeypatch):
    """Four classes of images of 8 x 8 pixels, and two photos."""
    model = PixelClassifier(tiny(0), class_names=["ant", "bee", "cat", "dog"])
    problem = imported("benchmarks", "problems").Problem(
        "tiny", model, IMAGES[:40], LABELS[:40], IMAGES[40:], LABELS[40:]
    )
    monkeypatch.setattr(imagenet_class, "photo_problem", lambda folder: problem)
    monkeypatch.setattr(imagenet_class, "strongest_class", lambda: 2)
    monkeypatch.setattr(imagenet_class, "photos", lambda: {"one": IMAGES[0], "two": IMAGES[1]})
    monkeypatch.setattr(imagenet_class, "BUDGET", 430)


def test_each_photo_is_shown_with_what_the_model_predicts(photos, monkeypatch, tmp_path):
    drawn, png = [], imagenet_class.figure_png
    monkeypatch.setattr(
        imagenet_class, "figure_png", lambda *given: drawn.append(given[0]) or png(*given)
    )
    imagenet_class.main(["photos", "--out", str(tmp_path)])
    rows = rows_of(tmp_path / "imagenet_class.jsonl")
    assert [row.get("photo", "cat") for row in rows] == ["cat", "one", "two"] * 2
    assert [row["area"] for row in rows] == [0.05] * 3 + [0.1] * 3
    assert rows[0]["n"] == rows[3]["n"] == 30
    assert all(0 < row["before"][1] <= 1 for row in rows if "photo" in row)
    [figure] = drawn
    assert (tmp_path / "imagenet_class.png").exists()
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels[:3]] == ["cat", "one", "two"]
    captions = [axis.get_xlabel().replace("\n", " ") for axis in panels]
    assert captions[0] == "white canvas"
    assert captions[1:3] == [imagenet_class.caption(row["before"]) for row in rows[1:3]]
    for first, (about, *stamped) in ((3, rows[:3]), (6, rows[3:])):
        share = imagenet_class.percent(about["power"], 0)
        assert captions[first] == f"turns {share} of 30 photos"
        assert captions[first + 1 : first + 3] == [
            imagenet_class.caption(row["after"]) for row in stamped
        ]
    assert not badly_placed(figure)


def test_the_class_of_the_figure_is_the_strongest_of_the_gallery():
    assert imagenet_class.strongest_class() == 70
    rows = rows_of(RESULTS / "imagenet_class.jsonl")
    names = [row.get("photo", row.get("class_name")) for row in rows]
    assert names == ["harvestman", *imagenet_class.PHOTOS] * len(imagenet_class.AREAS)
    [same] = [row for row in rows_of(RESULTS / "gallery.jsonl") if row["class"] == 70]
    assert rows[0]["power"] == same["power"]


def test_every_script_is_in_a_document():
    pages = [ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    named = "".join(page.read_text(encoding="utf-8") for page in pages)
    scripts = [p for p in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in p.read_text()]
    assert len(scripts) > 20
    missing = [path.name for path in scripts if f"benchmarks/{path.name}" not in named]
    assert not missing
