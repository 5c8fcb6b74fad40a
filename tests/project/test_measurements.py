"""The scripts that measure many methods or seeds: a run finishes what is missing, and
the tables are what the rows say."""

import re

import pytest
import torch
from refusals import refusal
from scripts import change, finishes, imported, read_rows, tiny_problem
from torch import nn

from captum_classpattern import LabelledImages

compare_methods, gallery, quantus, stability = imported(
    *("benchmarks", "compare_methods", "gallery", "quantus_metrics", "stability")
)
pytestmark = pytest.mark.script


# ---- compare_methods.py

CUT = ["ClassPattern", "Saliency", "BestRandomMask", "RandomPixels"]


@pytest.fixture
def three_classes(monkeypatch):
    """Replaces the loader of the images, and the demo's models. Returns what was asked for."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    found = tiny_problem("natural", 3, (1, 6, 6), 120, network=network, own_labels=True)
    images, labels = (torch.cat(parts) for parts in (found[2::2], found[3::2]))
    asked = []

    def load_images(source, **settings):
        asked.append((source, settings["limit"], settings["channels"]))
        return LabelledImages(images, labels)

    models = {"natural": found.model}
    change(monkeypatch, compare_methods, load_images=load_images, demo_models=lambda: models)
    return asked


def test_methods_are_compared_on_the_same_canvases(three_classes, tmp_path, capsys):
    out, methods = tmp_path / "results" / "rows.jsonl", [*CUT, *compare_methods.FREE]
    given = ["--fashion-mnist", "root", "--out", str(out), "--budget", "500", "--methods", *methods]

    def lost(row):
        return row["method"] == "RandomPixels"

    said, rows, tables = finishes(compare_methods.main, given, out, lost, capsys)
    assert said == ["measuring RandomPixels, demo, natural"]
    assert {*three_classes} == {("torchvision:FashionMNIST", 200, 1)}
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    assert {row["model"] for row in rows} == {"demo, natural"}
    for row in rows:
        assert (row["method"] in compare_methods.FREE) == ("own_form" in row)
        if row["method"] in ("BestRandomMask", "NeuralCleanse", "UniversalPatch"):
            assert 450 <= row["passes"] * 3 / len({r["class"] for r in rows}) <= 500
    for method in (*methods, "*no pattern*"):
        name = compare_methods.NAMES.get(method, method)
        assert any(line.startswith(f"| {name} |") for line in tables)


def test_a_method_that_fails_stops_the_run(three_classes, snapshot):
    [setting] = compare_methods.demo_settings("root")
    assert refusal(lambda: compare_methods.measure(setting, "UniversalPatch", 20)) == snapshot


# ---- stability.py


def test_stability_takes_the_models_of_its_plans(tmp_path, monkeypatch):
    images = torch.zeros(4, 3, 32, 32), torch.arange(4)
    change(monkeypatch, stability, cifar10_parts=lambda folder, seed, count: (*images, *images))
    found = list(stability.problems_of(tmp_path))
    assert [problem.name for problem in found] == [
        "CIFAR-10, natural", "CIFAR-10, robust8", "CIFAR-10, natural_short",
    ]  # fmt: skip
    assert found[0].model(images[0]).shape == (4, 10)
    assert [problem.name for problem in stability.problems_of(None)] == ["demo, natural"]


def test_stability_searches_scores_and_continues(tmp_path, capsys, monkeypatch):
    plan = stability.Plan
    plans = (
        plan("a", "positive", 2, (2,)),
        plan("a", "white", 1),
        plan("a", "second positive", 1),
        plan("b", "white", 1),
        plan("unknown", "white", 4),
        plan("a", "positive", 2, long=1),
    )
    problems = [tiny_problem(name, 5, (1, 10, 10), 150) for name in ("a", "b")]
    change(monkeypatch, stability, GROUP=2, PLANS=plans, NETWORKS=("a", "b"))
    shown = (("a", "positive", 1), ("a", "positive", 3))
    change(monkeypatch, stability, SHOWN=shown, problems_of=lambda folder: problems)
    out, figure = tmp_path / "results" / "rows.jsonl", tmp_path / "stability.png"

    def lost(row):
        return stability.key_of(row) == ("a", "positive", "consensus", 2, 0)

    given = ["--out", str(out), "--figure", str(figure)]
    said, rows, _ = finishes(stability.main, given, out, lost, capsys)
    [again] = said
    assert again.startswith("a, positive, consensus 0: ")
    # single and long searches, a consensus, and random pixels of the four studies
    assert len(rows) == 5 * ((2 + 1 + 1 + 1) + 3 * (1 + 1))
    assert {(row["images"], len(row["pixels"]), len(row["weights"])) for row in rows} == {
        (120, 5, 5)
    }
    singles = [row for row in rows if row["kind"] == "one search" and row["canvas"] == "positive"]
    [passes] = {row["passes"] for row in singles}
    assert {row["passes"] for row in rows if row["kind"] == "consensus"} == {2 * passes}
    long = [row["passes"] for row in rows if row["kind"] == "one long search"]
    assert all(1.5 * passes < each <= 2 * passes for each in long)
    assert figure.stat().st_size > 5_000


# ---- quantus_metrics.py


def test_metrics_of_quantus_are_measured_once(tmp_path, capsys, monkeypatch):
    pytest.importorskip("quantus", exc_type=ImportError)  # OpenCV needs libGL
    problem = tiny_problem("demo, natural", 5, (1, 28, 4))
    change(monkeypatch, quantus, demo_problems=lambda: [problem], NOISY=1)
    out = tmp_path / "results" / "rows.jsonl"

    def lost(row):
        return (row["metric"], row["method"]) in (
            ("predictive power", "ClassPattern"),
            ("RandomLogit", "two random masks"),
        )

    said, rows, _ = finishes(quantus.main, ["--out", str(out), "--steps", "1"], out, lost, capsys)
    assert said == ["predictive power of ClassPattern", "RandomLogit of two random masks"]
    by_name = {(row["metric"], row["method"]): row["values"] for row in rows}
    assert len(by_name) == len(rows) == 6 * 3 + 3 * 2
    assert {len(values) for values in by_name.values()} == {5}
    # a map with a fixed seed ignores the class, the model and the canvas
    assert by_name["RandomLogit", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MPRT", "random pixels"] == pytest.approx([1] * 5)
    assert by_name["MaxSensitivity", "random pixels"] == [0] * 5
    # two masks of k pixels with s common ones: sqrt(2 (k - s) / k), with k = 6 of 112 pixels
    possible = [(2 * (6 - s) / 6) ** 0.5 for s in range(7)]
    for value in by_name["MaxSensitivity", "two random masks"]:
        assert min(abs(value - each) for each in possible) < 1e-4


# ---- gallery.py


def test_the_gallery_its_picture_and_its_tables(tmp_path, capsys, monkeypatch):
    problem = tiny_problem(
        "tiny", 10, (3, 16, 16), 20, class_names=[f"name {y}" for y in range(10)]
    )
    settings = {"N_CLASSES": 10, "ROWS": 1, "COLUMNS": 2}
    change(monkeypatch, gallery, photo_problem=lambda folder: problem, **settings)
    given = ["--photos", "photos", "--out", str(tmp_path), "--every", "4", "--budget", "430"]
    gallery.main(given)
    printed = capsys.readouterr().out
    assert "| classes searched | 3 |" in printed
    rows = read_rows(tmp_path / "rows.jsonl")
    assert sorted(row["class"] for row in rows) == [0, 4, 8]
    powers = [row["power"] for row in rows]
    assert powers == sorted(powers, reverse=True)
    assert (tmp_path / "strongest.png").stat().st_size > 1_000
    pages = sorted(path.name for path in (tmp_path / "site" / "models").glob("*/*.html"))
    assert pages == ["0_name_0.html", "4_name_4.html", "8_name_8.html"]
    assert re.search(r"\nA class takes \d+ s of one worker; 1,000 take \d+ hours\.\n", printed)
    patterns = [*tmp_path.glob("sweep/*/patterns/*")]
    written = [path.stat().st_mtime_ns for path in patterns]
    gallery.main(given)  # searches nothing again
    assert capsys.readouterr().out == printed
    assert [path.stat().st_mtime_ns for path in patterns] == written
    gallery.main(["--rows", str(tmp_path / "rows.jsonl")])
    assert printed.startswith(capsys.readouterr().out)
