"""benchmarks/compare_methods.py on a tiny network, its tables by hand and in the docs."""

import json

import pytest
import torch
from scripts import ROOT, imported
from torch import nn

from captum_classpattern import LabelledImages, PixelClassifier
from captum_classpattern.scores.intervals import wilson

bench = imported("benchmarks", "compare_methods")
ROWS = ROOT / "benchmarks" / "results" / "rivals.jsonl"


@pytest.fixture
def tiny(monkeypatch):
    """Three classes of 36 pixels; the loader of the images is replaced."""
    torch.manual_seed(0)
    images, labels = torch.rand(240, 1, 6, 6), torch.arange(240) % 3
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        network[3].bias -= network(images).mean(0)
    labels = network(images).argmax(1)
    asked = []

    def load_images(source, **settings):
        asked.append((source, settings))
        return LabelledImages(images, labels)

    monkeypatch.setattr(bench, "load_images", load_images)
    monkeypatch.setattr(bench, "demo_models", lambda: {"natural": PixelClassifier(network)})
    return asked


def test_one_command_measures_all_methods_and_continues(tiny, tmp_path, capsys):
    out = tmp_path / "results" / "rows.jsonl"
    methods = [method for method in bench.METHODS if method != "LRP"]  # no rule for Flatten
    given = ["--fashion-mnist", "root", "--out", str(out), "--budget", "500", "--methods", *methods]
    bench.main(given)
    printed = capsys.readouterr().out
    assert printed.count("measuring ") == len(methods)
    [(source, settings)] = tiny
    assert (source, settings["limit"], settings["channels"]) == ("torchvision:FashionMNIST", 200, 1)
    rows = bench.read_rows(out)
    assert list(dict.fromkeys(row["method"] for row in rows)) == methods
    assert {row["model"] for row in rows} == {"demo, natural"}
    for row in rows:
        assert (row["method"] in bench.NOT_CUT) == ("own_form" in row)
        if row["method"] in ("BestRandomMask", "NeuralCleanse", "UniversalPatch"):
            assert 450 <= row["passes"] * 3 / len({r["class"] for r in rows}) <= 500
    tables = printed[printed.index("| method | demo, natural |") :]
    assert tables.count("\n### demo, natural") == 1
    for method in (*methods, "*no pattern*"):
        assert f"\n| {bench.NAMES.get(method, method)} |" in tables

    kept = [row for row in rows if row["method"] != "NearestImage"]
    out.write_text("".join(json.dumps(row) + "\n" for row in kept))
    bench.main(given)  # measures what is missing, and finds the same
    again = capsys.readouterr().out
    assert again.count("measuring ") == 1
    assert again.endswith(tables)
    bench.main(["--rows", str(out)])
    assert capsys.readouterr().out == tables


def test_a_method_that_fails_stops_the_run(tiny, monkeypatch):
    [setting] = bench.demo_settings("root")
    with pytest.raises(
        RuntimeError, match="UniversalPatch failed: ValueError: `passes` must be at"
    ):
        bench.measure(setting, "UniversalPatch", 20)


def test_a_data_set_or_rows_are_needed(capsys):
    with pytest.raises(SystemExit):
        bench.main([])
    assert "--fashion-mnist, --cifar10 or --rows is needed" in capsys.readouterr().err


def row(method, target, hits, *, model="m", level="image", ranking="signed", own=None, **more):
    low, high = wilson(hits, 100)
    found = {
        "model": model, "method": method, "class": target, "canvas": target, "level": level,
        "ranking": ranking, "passes": 3_488.0,
        "power_0.05": hits / 100, "power_0.05_low": low, "power_0.05_high": high,
        "no_pattern": 0.02, **more,
    }  # fmt: skip
    if own is not None:
        low, high = wilson(own, 100)
        found |= {"own_form": own / 100, "own_form_low": low, "own_form_high": high}
    return found


def test_the_tables_by_hand():
    rows = [
        row("ClassPattern", 0, 40), row("ClassPattern", 1, 20),
        row("NearestImage", 0, 3), row("NearestImage", 1, 3),
        row("NearestImage", 0, 5, ranking="absolute"),
        row("NearestImage", 1, 5, ranking="absolute"),
        row("ClassPattern", 0, 10, model="n"), row("ClassPattern", 1, 10, model="n"),
        row("NeuralCleanse", 0, 10, own=90, free="f", share_changed=0.1),
        row("NeuralCleanse", 1, 20, own=70, free="f", share_changed=0.3),
    ]  # fmt: skip
    assert list(bench.tables(rows)) == [
        "| method | m | n |\n|---|---|---|",
        "| **class pattern** | 30.0 % (22.1-39.3) | 10.0 % (5.5-17.4) |",
        "| *nearest image, by pixels* | 5.0 % (2.2-11.2) abs. |  |",
        "| *no pattern* | 2.0 % | 2.0 % |",
        "\n### m\n",
        "| method | free | 5 % of the pixels | minus class pattern, points | own form "
        "| mean of the mask | passes |\n|---|---|---|---|---|---|---|",
        "| **class pattern** | nothing: cut from the canvas | 30.0 % (22.1-39.3) |  |  | 5.0 % "
        "| 3,488 |",
        "| NeuralCleanse | f | 15.0 % (9.4-23.2) | -15.0 | 80.0 % (71.5-86.3) | 20.0 % | 3,488 |",
        "| *no pattern* |  | 2.0 % |  |  |  |  |",
    ]


def test_captums_methods_are_shown_at_their_best_and_compared_with_the_class_pattern():
    rows = [
        row("ClassPattern", 0, 40), row("ClassPattern", 1, 20),
        row("Saliency", 0, 5), row("Saliency", 1, 5),
        row("Saliency", 0, 8, level="class", ranking="absolute"),
        row("Saliency", 1, 8, level="class", ranking="absolute"),
        row("Lime", 0, 6), row("Lime", 1, 6),
    ]  # fmt: skip
    assert list(bench.tables(rows)) == [
        "| method | m |\n|---|---|",
        "| **class pattern** | 30.0 % (22.1-39.3) |",
        "| Saliency | 8.0 % (4.1-15.0) mean, abs. |",
        "| Lime | 6.0 % (2.8-12.5) |",
        "| *no pattern* | 2.0 % |",
        "",
        "| model | best other method | difference in points |\n|---|---|---|",
        "| m | Saliency | +22.0 |",
    ]


def test_the_difference_of_five_classes_has_an_interval():
    first = [row("NeuralCleanse", y, 20 + 2 * y, own=90) for y in range(5)]
    second = [row("ClassPattern", y, 10) for y in range(5)]
    text = bench.difference(first, second)
    assert text.startswith("+14.0 (+")
    low, high = (float(end) for end in text[:-1].split("(")[1].split(" to "))
    assert 10 <= low < 14 < high <= 18
    assert bench.difference(first, []) == ""


def test_the_tables_in_the_documentation_are_those_of_the_rows():
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    controls, *own = "\n".join(bench.tables(bench.read_rows(ROWS))).split("\n\n### ")
    for table in controls.split("\n\n"):
        assert f"\n\n{table}\n\n" in page
    assert own
    for table in own:
        model, rows = table.split("\n\n", 1)
        assert f"<details><summary>{model}</summary>\n\n{rows}\n\n</details>" in page
