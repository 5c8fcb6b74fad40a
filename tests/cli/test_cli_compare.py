"""``classpattern compare``: files and tables."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import JSON_PAGE, documented, run
from comparisons import compared as small
from comparisons import linear_net
from reports import without_figures

import captum_classpattern as cp
from captum_classpattern import Pattern, predictive_power
from captum_classpattern.cli.printing import print_result
from captum_classpattern.comparison import RandomPixels
from captum_classpattern.datasets import load_images

OWN = "--arch own_models:Net --mean 0 --std 1 --n-steps 2 --area 0.3"


def compare(out, more="", *, models="named.pt other=noisy.pt", data="images"):
    """With figures that are empty: to draw them takes long."""
    with pytest.MonkeyPatch.context() as patch:
        without_figures(patch)
        return run(f"compare {models} --data {data} {OWN} --out {out} {more}")


def read(out):
    return json.loads((out / "comparison.json").read_text())


def test_two_models_from_files_to_tables_a_report_and_patterns(tmp_path):
    out = tmp_path / "new"
    more = "--classes dog,2 --methods 'ClassPattern, Saliency,RandomPixels' --white"
    result = compare(out, more)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "On the model named, the strongest method with 30 % of the pixels is " in said
    assert "Not run here" not in result.stdout
    printed = re.findall(
        r"^ *(named|other) +(ClassPattern|Saliency|RandomPixels)(?: \(control\))? +"
        r"([\d.]+) % \([^)]+\) +[\d.]+ % +positive$",
        result.stdout,
        re.M,
    )
    assert len({(model, name) for model, name, _ in printed}) == 6
    for model in ("named", "other"):
        powers = [float(power) for one, _, power in printed if one == model]
        assert powers == sorted(powers, reverse=True)
    written = read(out)
    assert list(written["models"]) == ["named", "other"]
    assert written["failures"] == []
    rows = {
        (row["model"], row["method"], row["kind"], row["class"]): row for row in written["rows"]
    }
    assert rows.keys() == {
        (model, method, kind, label)
        for model in ("named", "other")
        for method in ("ClassPattern", "Saliency", "RandomPixels")
        for kind in ("positive", "white")
        for label in (1, 2)
    }
    assert "<html" in (out / "report.html").read_text()
    # a saved pattern has its reported power
    _, held_out = load_images("images").halves(0)
    for name, checkpoint in (("named", "named.pt"), ("other", "noisy.pt")):
        [path] = (out / "patterns" / name).glob("ClassPattern_*_2_owl_0.3.safetensors")
        model = cp.load_model(checkpoint, arch="own_models:Net", mean=0, std=1)
        power = predictive_power(model, Pattern.load(path), held_out, area=None)
        reported = rows[name, "ClassPattern", "positive", 2]["power_0.3"]
        assert 0 < power.value == pytest.approx(reported, abs=1e-9)


def failing(model):
    raise RuntimeError("not [here]")


def test_if_no_method_gives_a_map_the_reasons_are_printed(tmp_path, monkeypatch):
    monkeypatch.setattr(cp, "known_methods", lambda *_, **__: {"Bad[/b]": failing})
    result = compare(tmp_path, "--classes 1")
    assert result.exit_code == 1
    assert "No method gave a map." in result.stdout
    assert "Not run here: Bad[/b]: RuntimeError: not [here].\n" in result.stdout
    assert f"report.html and comparison.json are in {tmp_path}." in result.stdout
    assert {failure["reason"] for failure in read(tmp_path)["failures"]} == {
        "RuntimeError: not [here]"
    }
    assert "not [here]" in (tmp_path / "report.html").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.json", "report.html"}


def test_an_interrupted_comparison_writes_what_had_finished(tmp_path, monkeypatch):
    def stop(model):
        raise KeyboardInterrupt

    methods = {"RandomPixels": RandomPixels, "stop": stop}
    monkeypatch.setattr(cp, "known_methods", lambda *_, **__: methods)
    result = compare(tmp_path, "--classes 1")
    assert result.exit_code == 130
    assert "The methods that had finished are reported." in result.output
    found = {(row["model"], row["method"]) for row in read(tmp_path)["rows"]}
    assert found == {("named", "RandomPixels")}
    methods.pop("RandomPixels")
    printed = compare(tmp_path / "none", "--classes 1").output
    assert "No method gave a map before the interrupt." in printed


def test_images_without_labels_get_the_classes_that_the_first_model_predicts(tmp_path):
    """From files of arrays."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "search.npz", x=pixels[0])
    np.savez(tmp_path / "held_out.npz", x=pixels[1])
    more = f"--methods RandomPixels --held-out {tmp_path / 'held_out.npz'}"
    result = compare(tmp_path / "out", more, models="m.pt", data=tmp_path / "search.npz")
    assert result.exit_code == 0, result.output
    assert {row["class"] for row in read(tmp_path / "out")["rows"]} == {0, 1, 2}


def test_a_method_from_a_module_of_the_working_folder(place, tmp_path, monkeypatch):
    """As the four of benchmarks/rivals from the root of the repository."""
    monkeypatch.chdir(Path(__file__).parents[2])
    methods = "--methods RandomPixels,benchmarks.rivals:UniversalPerturbation --budget 160"
    given = {"models": place / "named.pt", "data": place / "images"}
    result = compare(tmp_path / "out", f"--classes 1 {methods}", **given)
    assert result.exit_code == 0, result.output
    written = read(tmp_path / "out")
    assert not written["failures"]
    assert written["settings"]["methods"]["UniversalPerturbation"] == {"budget": 160}
    assert {row["method"] for row in written["rows"]} == {"RandomPixels", "UniversalPerturbation"}


# ---- what is printed and written, of small comparisons


def printed(comparison, capsys):
    print_result(comparison)
    return capsys.readouterr().out


def test_brackets_in_names_are_not_markup(capsys):
    methods = {"Random[/i]": RandomPixels, "Bad[old]": failing}
    models = {"m[old]": linear_net(), "a[/b]": linear_net(2)}
    output = printed(small(models=models, methods=methods), capsys)
    for words in ("m[old] ", " a[/b] ", "Random[/i] ", " Bad[old]: "):
        assert words in output


# ---- comparison.json, as docs/api/json.md describes it


def test_a_comparison_as_json(tmp_path):
    methods = "ClassPattern,RandomPixels,LearnedPattern"
    result = compare(tmp_path, f"--classes dog --methods {methods}", models="own=named.pt")
    assert result.exit_code == 0, result.output
    found = read(tmp_path)
    assert set(found) == set(documented("compare", 0))
    metrics = {metric["name"] for metric in found["metrics"]}
    by_area = re.findall(r"^\| `(\w+_AREA)` \|", JSON_PAGE, re.MULTILINE)
    known = {*documented("compare", 1), *by_area, *metrics}
    for row in found["rows"]:
        for field in row:
            plain = re.sub(r"_0\.\d+", "_AREA", field).removesuffix("_low").removesuffix("_high")
            assert plain in known, field
    assert {row["method"] for row in found["rows"]} == set(methods.split(","))
    free = {row["method"] for row in found["rows"] if not row["cut_from_canvas"]}
    assert free == {"LearnedPattern"}
