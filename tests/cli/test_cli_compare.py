"""classpattern compare, and the comparison that ends the demo, on a part of the embedded images."""

import json
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from comparisons import SEARCH, linear_net
from comparisons import compared as small
from PIL import Image
from safetensors.torch import load_file, save_file

import captum_classpattern
from captum_classpattern import Pattern, predictive_power
from captum_classpattern._files import write_atomically
from captum_classpattern.cli.compare import (
    choose_canvases,
    print_comparison,
    write_comparison,
)
from captum_classpattern.cli.options import ComputeOptions, checkpoints_by_name
from captum_classpattern.comparison import RandomPixels, known_methods
from captum_classpattern.comparison.methods import NAMES
from captum_classpattern.demo import DATA, DemoImages, LabelledImages, demo_images, demo_models
from captum_classpattern.pages import report

demo_module = import_module("captum_classpattern.cli.demo")
compare_module = import_module("captum_classpattern.cli.compare")
ARCH = "captum_classpattern.demo.network:SmallResNet"


def part(half, each=8):
    chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:each] for y in range(10)])
    return LabelledImages(half.images[chosen], half.labels[chosen])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two checkpoints, and two files of images."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("natural", "robust"):
        save_file(load_file(DATA / f"{name}.safetensors"), folder / f"{name}.safetensors")
    for name, half in (("search", demo_images().search), ("held_out", demo_images().held_out)):
        few = part(half)
        pixels = (few.images * 255).round().byte().numpy().transpose(0, 2, 3, 1)
        np.savez(folder / f"{name}.npz", x=pixels, y=few.labels.numpy())
    return folder


def compare(inputs, out, *more):
    line = [
        "compare",
        str(inputs / "natural.safetensors"),
        f"other={inputs / 'robust.safetensors'}",
    ]
    line += ["--data", str(inputs / "search.npz"), "--held-out", str(inputs / "held_out.npz")]
    line += ["--arch", ARCH, "--mean", "0", "--std", "1", "--n-steps", "2", "--out", str(out)]
    return run([*line, *more])


@pytest.fixture(scope="module")
def compared(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "new"
    result = compare(
        inputs,
        out,
        "--classes",
        "1,8",
        "--methods",
        "ClassPattern, Saliency,RandomPixels",
        "--white",
    )
    assert result.exit_code == 0, result.output
    return out, result.output


def test_compare_writes_rows_report_figures_and_patterns(compared):
    out, _ = compared
    written = json.loads((out / "comparison.json").read_text())
    assert list(written["models"]) == ["natural", "other"]
    assert written["failures"] == []
    image_rows = {
        (r["model"], r["method"], r["kind"], r["class"])
        for r in written["rows"]
        if r["level"] == "image"
    }
    assert image_rows == {
        (model, method, kind, label)
        for model in ("natural", "other")
        for method in ("ClassPattern", "Saliency", "RandomPixels")
        for kind in ("positive", "white")
        for label in (1, 8)
    }
    assert "<html" in (out / "report.html").read_text()
    for name in ("curves", "side_by_side_natural", "side_by_side_other"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_pattern_has_its_reported_power(compared, inputs):
    out, _ = compared
    [row] = [
        r
        for r in json.loads((out / "comparison.json").read_text())["rows"]
        if (r["model"], r["method"], r["kind"], r["class"])
        == ("other", "ClassPattern", "positive", 8)
    ]
    [path] = (out / "patterns" / "other").glob("ClassPattern_*_8_0.05.safetensors")
    few = part(demo_images().held_out)
    power = predictive_power(demo_models()["robust"], Pattern.load(path), few, area=None)
    assert power.value == pytest.approx(row["power_0.05"], abs=1e-9)


def test_compare_prints_a_table_for_each_model_and_the_verdicts(compared):
    _, output = compared
    for words in ("natural model, positive canvases", "other model, positive canvases"):
        assert words in output
    assert "holds: All methods" in output
    assert "6 runs (3 methods on 2 models) gave maps" in " ".join(output.split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--classes", "x"], "--classes: 'x' is a name, but neither the model nor the images name"),
        (["--area", "2"], 'value "2.0" for --area. It is the share of the pixels, between 0 and 1'),
        (["--classes", "12"], "--classes: 12 is out of range: the model has 10 classes"),
    ],
)
def test_wrong_input_is_an_error_in_one_line(inputs, tmp_path, more, words):
    result = compare(inputs, tmp_path / "out", *more)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "Saliency,Magic"], "--methods: there is no method 'Magic'; there are Cl"),
        (["--classes", "3-1"], "--classes: the range 3-1 is empty: give 1-3"),
        (["--area", "0"], "--area. It is the share of the pixels"),
        (["--device", "nonsense"], "--device: nonsense can't be used here"),
        (["--mean", "x"], "--mean: it must be numbers"),
        (
            ["--precision", "half"],
            '"half" for --precision. Choose from: "auto", "full", "bf',
        ),
        (["--data", "nowhere"], "--data: nowhere does not exist"),
        (["--class-names", "nowhere"], "--class-names: there is no file nowhere"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(inputs, tmp_path, more, words):
    line = ["compare", "missing.pt", "--data", str(inputs / "search.npz"), *more]
    result = run([*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert words in result.output
    assert "missing.pt" not in result.output


def checkpoint(name, folder, class_names):
    """An embedded model in a checkpoint that names its classes."""
    content = {"net": load_file(DATA / f"{name}.safetensors"), "classes": class_names}
    torch.save(content, folder / f"{name}.pt")
    return str(folder / f"{name}.pt")


def class_folders(folder, *names):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        few = part(demo_images().search)
        for i, image in enumerate(few.images[few.labels == label]):
            Image.fromarray((image[0] * 255).round().byte().numpy()).save(
                folder / name / f"{i}.png"
            )
    return str(folder)


def test_classes_and_class_folders_by_name(tmp_path):
    names = ["top", "trouser", *map(str, range(2, 10))]
    line = ["compare", checkpoint("natural", tmp_path, names), "--arch", ARCH, "--mean", "0"]
    line += ["--std", "1", "--data", class_folders(tmp_path / "data", "Top", "Trouser")]
    line += ["--methods", "RandomPixels", "--classes", "Trouser", "--out", str(tmp_path / "out")]
    result = run(line)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {row["class"] for row in written["rows"]} == {1}
    assert written["class_names"] == names


def test_models_that_number_the_classes_differently_are_refused(tmp_path):
    names = ["top", "trouser", *map(str, range(2, 10))]
    models = [
        checkpoint("natural", tmp_path, names),
        checkpoint("robust", tmp_path, [names[1], names[0], *names[2:]]),
    ]
    line = ["compare", *models, "--arch", ARCH, "--mean", "0", "--std", "1"]
    line += ["--data", class_folders(tmp_path / "data", "top", "trouser")]
    result = run([*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert "the models number the classes differently: top is class 0 of " in output
    assert "natural.pt, but class 1 of " in output
    assert not (tmp_path / "out").exists()


def test_the_precision_reaches_the_search(inputs, tmp_path):
    more = ["--classes", "1", "--methods", "ClassPattern", "--precision", "full"]
    assert compare(inputs, tmp_path / "out", *more).exit_code == 0
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["settings"]["methods"]["ClassPattern"]["precision"] == "full"


def test_two_models_with_the_same_name_are_refused(inputs, tmp_path):
    natural = str(inputs / "natural.safetensors")
    line = ["compare", natural, natural, "--data", str(inputs / "search.npz"), "--arch", ARCH]
    result = run([*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "the models 'natural' and 'natural' would be written to the same" in result.output
    assert "give one another name, as in name=checkpoint" in result.output


def test_a_file_may_have_an_equals_sign_in_its_name(tmp_path):
    path = tmp_path / "epoch=1-step=2.pt"
    path.touch()
    assert checkpoints_by_name((str(path),)) == {"epoch=1-step=2": str(path)}
    assert checkpoints_by_name((f"new={path}",)) == {"new": str(path)}
    plain = ("a/old.pt", "torchvision:resnet18", "own=timm:resnet18")
    assert checkpoints_by_name(plain) == {
        "old": "a/old.pt",
        "resnet18": "torchvision:resnet18",
        "own": "timm:resnet18",
    }


def test_models_whose_files_would_have_the_same_name_are_refused():
    with pytest.raises(ValueError, match="the models 'a b' and 'a_b' would be written"):
        checkpoints_by_name(("a b=x.pt", "a_b=y.pt"))


def failing(model):
    raise RuntimeError("not [here]")


def test_if_no_method_gives_a_map_the_reasons_are_printed(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(captum_classpattern, "known_methods", lambda *a, **k: {"Bad[/b]": failing})
    result = compare(inputs, tmp_path / "out", "--classes", "1")
    assert result.exit_code == 1
    output = result.stdout
    assert "No method gave a map:" in output
    assert "Bad[/b] on the natural model: RuntimeError: not [here]" in output
    assert f"report.html and comparison.json are in {tmp_path / 'out'}." in output
    failure, _ = json.loads((tmp_path / "out" / "comparison.json").read_text())["failures"]
    assert failure["reason"] == "RuntimeError: not [here]"
    assert "not [here]" in (tmp_path / "out" / "report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.json", "report.html"
    ]  # fmt: skip


def test_brackets_in_names_are_not_markup(capsys):
    methods = {"Random[/i]": RandomPixels, "Bad[old]": failing}
    print_comparison(
        small(models={"m[old]": linear_net(), "a[/b]": linear_net(2)}, methods=methods)
    )
    output = capsys.readouterr().out
    for words in ("m[old] model, ", "a[/b] model, ", "Random[/i] ", "Bad[old] "):
        assert words in output


def test_a_verdict_is_printed_with_its_title(capsys):
    comparison = small(methods={"RandomPixels": RandomPixels})
    print_comparison(comparison)
    output = " ".join(capsys.readouterr().out.split())
    for verdict in comparison.verdicts():
        outcome = "holds" if verdict["holds"] else "FAILS"
        text = " ".join(verdict["text"].split())
        assert f"{outcome}: {verdict['title']}. {text}" in output


@pytest.mark.parametrize(("area", "columns"), [(0.06, 1), (0.1, 2)])
def test_no_column_is_repeated(area, columns, capsys):
    print_comparison(small(methods={"RandomPixels": RandomPixels}, area=area))
    lines = capsys.readouterr().out.splitlines()
    [head] = [line for line in lines if "method" in line and "passes" in line]
    assert head.count("%") == columns


def test_a_figure_has_the_same_rows_as_in_the_report(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "write_report_page", lambda *a, **k: drawn.extend(a[2]))
    write_comparison(
        small(canvases=SEARCH[:14], targets=[0] * 14, methods={"RandomPixels": RandomPixels}),
        tmp_path,
        "Many",
    )
    assert any("linear, the first 12 of 14" in picture.title for picture in drawn)
    written = {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert written == {picture.png for picture in drawn}


def test_a_figure_that_fails_leaves_the_report_and_the_patterns(tmp_path, monkeypatch):

    def fail(path, data):
        if path.suffix == ".png":
            raise OSError("no room")
        write_atomically(path, data)

    monkeypatch.setattr(compare_module, "write_atomically", fail)
    comparison = small(methods={"RandomPixels": RandomPixels})
    searched = [replace(r, control=False, searches=True) for r in comparison.records]
    with pytest.raises(OSError, match="no room"):
        write_comparison(replace(comparison, records=searched), tmp_path, "Full")
    assert {path.name for path in tmp_path.iterdir()} == {
        "comparison.json", "report.html", "patterns"
    }  # fmt: skip
    assert list((tmp_path / "patterns" / "linear").iterdir())


def test_images_without_labels_get_the_classes_that_the_first_model_predicts(inputs, tmp_path):
    for name in ("search", "held_out"):
        np.savez(tmp_path / f"{name}.npz", x=np.load(inputs / f"{name}.npz")["x"][::2])
    line = ["compare", str(inputs / "natural.safetensors"), "--arch", ARCH, "--mean", "0"]
    line += ["--std", "1", "--data", str(tmp_path / "search.npz"), "--methods", "RandomPixels"]
    line += ["--held-out", str(tmp_path / "held_out.npz"), "--out", str(tmp_path / "out")]
    result = run(line)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {row["class"] for row in written["rows"]} == set(range(10))


def test_the_batch_size_reaches_the_search(inputs, tmp_path):
    more = ["--classes", "1", "--methods", "ClassPattern", "--internal-batch-size", "3"]
    assert compare(inputs, tmp_path / "out", *more).exit_code == 0
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written["settings"]["methods"]["ClassPattern"]["internal_batch_size"] == 3


def test_a_white_canvas_is_chosen_for_the_class_of_a_trigger():
    few = part(demo_images().search)
    models = demo_models()
    canvases, targets, kinds = choose_canvases(models, few, range(10), n=2)
    assert canvases.shape == (21, 1, 28, 28)
    assert kinds == ["positive"] * 20 + ["white"]
    assert targets == [y for y in range(10) for _ in range(2)] + [
        models["backdoored"].trigger.target
    ]
    assert bool((canvases[-1] == 1).all())
    del models["backdoored"]
    assert choose_canvases(models, few, [3])[2] == ["positive"]


def test_a_method_from_a_module_of_the_working_folder(inputs, tmp_path, monkeypatch):
    """As the four of benchmarks/rivals from the root of the repository."""
    monkeypatch.chdir(Path(__file__).parents[2])
    monkeypatch.setattr(sys, "path", [*sys.path])
    names = "RandomPixels,benchmarks.rivals:UniversalPerturbation"
    more = ["--classes", "1", "--methods", names, "--budget", "160"]
    result = compare(inputs, tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert not written["failures"]
    assert written["settings"]["methods"]["UniversalPerturbation"] == {"budget": 160}
    assert {row["method"] for row in written["rows"]} == {"RandomPixels", "UniversalPerturbation"}
    refused = compare(inputs, tmp_path / "no", "--methods", "benchmarks.rivals:UniversalPath")
    assert refused.exit_code == 2 or refused.exit_code == 1
    assert "has no function or class 'UniversalPath'; did you mean Univers" in refused.output
    assert not (tmp_path / "no").exists()


def test_the_known_methods_are_those_of_the_library():
    images = part(demo_images().search)
    assert list(known_methods(images, names=NAMES)) == list(NAMES)
    with pytest.raises(ValueError, match="choose from") as refused:
        known_methods(images, names=["Magic"])
    [listed] = re.findall("choose from (.*?), or give", str(refused.value))
    assert set(listed.split(", ")) == set(NAMES)


def test_the_demo_ends_with_the_comparison(tmp_path, monkeypatch):
    images = demo_images()
    monkeypatch.setattr(
        captum_classpattern,
        "demo_images",
        lambda: DemoImages(part(images.search), part(images.held_out)),
    )
    monkeypatch.setattr(demo_module, "COMPARED_ROUNDS", 2)
    monkeypatch.setattr(demo_module, "COMPARED", ("ClassPattern", "RandomPixels"))
    names = captum_classpattern.demo.CLASS_NAMES
    monkeypatch.setattr(captum_classpattern.demo, "CLASS_NAMES", names[:2])
    demo_module._compare(tmp_path / "comparison", ComputeOptions())
    written = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert list(written["models"]) == ["natural", "backdoored", "robust"]
    assert {r["kind"] for r in written["rows"]} == {"positive", "white", "stamped"}
    assert (tmp_path / "comparison" / "report.html").exists()


def test_an_interrupted_comparison_writes_what_had_finished(inputs, tmp_path, monkeypatch):
    known = known_methods

    def stop(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        captum_classpattern, "known_methods", lambda *a, **k: {**known(*a, **k), "stop": stop}
    )
    result = compare(inputs, tmp_path / "out", "--classes", "1", "--methods", "Saliency")
    assert result.exit_code == 130
    assert "The methods that had finished are reported." in result.output
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {(row["model"], row["method"]) for row in written["rows"]} == {("natural", "Saliency")}
    assert "(interrupted)" in (tmp_path / "out" / "report.html").read_text()
