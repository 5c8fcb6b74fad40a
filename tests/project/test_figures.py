"""The scripts that draw the figures of README and docs, on tiny models."""

import json

import pytest
import torch
from figures import badly_placed
from matplotlib.text import Text
from scripts import change, imported, read_rows, tiny_problem
from torch import nn

from captum_classpattern import LabelledImages, survey
from captum_classpattern.demo import demo_images, demo_models

demo_figure, hero, imagenet_class, methods, problems = imported(
    "benchmarks", "demo_figure", "hero", "imagenet_class", "methods", "problems"
)
pytestmark = pytest.mark.script
NAMES = ("ant", "bee", "cat", "dog")


def tiny(seed=0):
    """Four classes of images of 8 x 8 pixels."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4))
    return tiny_problem("tiny", 4, (3, 8, 8), 40, network=network, class_names=NAMES)


@pytest.fixture
def two_models(monkeypatch):
    """Two models and small searches."""
    models = {"natural": tiny(0).model, "robust8": tiny(1).model}
    parts, passes = problems.Parts(*tiny()[2:]), {hero.CHOOSER: 900, hero.FOLLOWER: 430}
    change(monkeypatch, hero, model=models.get, parts=lambda data, seed: parts)
    change(monkeypatch, hero, CLASS_NAMES=NAMES[:3], PASSES=passes, CANVASES=2)


def test_both_models_have_a_pattern_on_the_same_canvas_and_nothing_is_searched_twice(
    two_models, tmp_path, capsys, monkeypatch
):
    given, file = ["data", "--out", str(tmp_path), "--classes"], tmp_path / "hero.jsonl"
    hero.main([*given, "2", "0"])
    rows = read_rows(file)
    found = [(row["class_name"], row["model"]) for row in rows]
    assert found == [(name, model) for name in ("cat", "ant") for model in ("robust8", "natural")]
    for row in rows:
        assert row["n"] == 30
        assert row["interval"][0] <= row["power"] <= row["interval"][1]
        assert not row["beats_controls"]  # too few images
    for name in ("ant", "cat"):
        files = [tmp_path / f"{model}_{name}.safetensors" for model in hero.MODELS]
        assert torch.equal(*(hero.Pattern.load(each).canvas for each in files))
    assert (tmp_path / "hero.png").exists()
    figure = hero.draw(rows, tmp_path)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["ant", "cat"]
    assert figure.axes[2].get_xlabel() == hero.percent(rows[3]["power"], 0)
    assert not badly_placed(figure)
    capsys.readouterr()
    monkeypatch.delattr(hero, "ClassPattern")
    hero.main([*given, "0"])
    assert not capsys.readouterr().out
    file.unlink()
    hero.main([*given, "2", "0"])  # the saved patterns are scored again
    assert read_rows(file) == rows


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


def test_each_method_is_drawn_by_its_better_ranking(monkeypatch, tmp_path):
    _, model, *parts = tiny()
    search, held_out = LabelledImages(*parts[:2]), LabelledImages(*parts[2:])
    setting = methods.Setting("tiny", model, search, held_out, search.images[:4], 30)
    change(monkeypatch, methods, cifar10_settings=lambda folder, names: [setting], TARGET=1)
    drawn, draw = [], methods.draw

    def keep(*given):
        drawn.append((given, draw(*given)))
        return drawn[0][1]

    change(monkeypatch, methods, draw=keep)
    methods.main(["data", "--out", str(tmp_path), "--budget", "430"])
    [((canvas, rows, maps), figure)] = drawn
    assert read_rows(tmp_path / "methods.jsonl") == rows
    assert (tmp_path / "methods.png").exists()
    assert torch.equal(canvas, search.images[1])
    assert {row["class"] for row in rows} == {1}
    assert list(dict.fromkeys(row["method"] for row in rows)) == [*maps] == [*methods.METHODS]
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "automobile" in texts
    assert "dog" not in texts
    best = (
        max(row["power_0.05"] for row in rows if row["method"] == name) for name in methods.METHODS
    )
    shown = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel().startswith("power")]
    assert shown == [f"power {methods.percent(power, 0)}" for power in best]
    assert not badly_placed(figure)


def test_the_demos_figure_has_the_trigger_boxed(tmp_path, capsys):
    images = demo_images()
    found = survey(
        demo_models()["backdoored"],
        *(part.stratified_sample(100) for part in (images.search, images.held_out)),
        **{"classes": [0, 7, 8], "canvases": {"white": 1}, "areas": (0.01,), "n_steps": 1},
        folder=tmp_path / "backdoored",
    )
    list(found)
    demo_figure.main([str(tmp_path), "--figure", str(tmp_path / "demo.png")])
    first, *others = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["class_name"] == "T-shirt"
    assert {row["class_name"] for row in others} == {"Sneaker", "Bag"}
    assert others[0]["power"] >= others[1]["power"]
    figure = demo_figure.draw(demo_figure.three_classes(found))
    boxed = [len(axis.patches) for axis in figure.axes if axis.images]
    assert boxed == [0, 1, 1, 1, 1, *[0] * 10]
    assert not badly_placed(figure)
    assert (tmp_path / "demo.png").exists()


def test_each_photo_is_shown_with_what_the_model_predicts(monkeypatch, tmp_path):
    problem, drawn, png = tiny(), [], imagenet_class.figure_png
    photos = {"one": problem.images[0], "two": problem.images[1]}
    change(monkeypatch, imagenet_class, photo_problem=lambda folder: problem, BUDGET=430)
    change(monkeypatch, imagenet_class, strongest_class=lambda: 2, photos=lambda: photos)
    change(
        monkeypatch, imagenet_class, figure_png=lambda *args: drawn.append(args[0]) or png(*args)
    )
    imagenet_class.main(["photos", "--out", str(tmp_path)])
    rows = read_rows(tmp_path / "imagenet_class.jsonl")
    assert [row.get("photo", "cat") for row in rows] == ["cat", "one", "two"] * 2
    assert [row["area"] for row in rows] == [0.05] * 3 + [0.1] * 3
    assert rows[0]["n"] == rows[3]["n"] == 30
    assert all(0 < row["before"][1] <= 1 for row in rows if "photo" in row)
    [figure] = drawn
    assert (tmp_path / "imagenet_class.png").exists()
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels[:3]] == ["cat", "one", "two"]
    caption, percent = imagenet_class.caption, imagenet_class.percent
    expected = ["white canvas", *(caption(row["before"]) for row in rows[1:3])]
    for about, *stamped in (rows[:3], rows[3:]):
        expected.append(f"turns {percent(about['power'], 0)} of 30 photos")
        expected += [caption(row["after"]) for row in stamped]
    assert [axis.get_xlabel().replace("\n", " ") for axis in panels] == expected
    assert not badly_placed(figure)
