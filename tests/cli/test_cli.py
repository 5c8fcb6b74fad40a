"""The command line, with short searches on a part of the embedded images."""

import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch
import typer
from typer.testing import CliRunner

import captum_classpattern
from captum_classpattern import Pattern, cli
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images
from captum_classpattern.surveys.search import SurveySearch
from captum_classpattern.surveys.store import find_pattern_file

runner = CliRunner()
demo_module = import_module("captum_classpattern.cli.demo")  # the name is the command's, too


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Eight images a class and four rounds: what is written does not depend on them."""
    images = demo_images()

    def part(half):
        chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:8] for y in range(10)])
        return LabelledImages(half.images[chosen], half.labels[chosen])

    few = DemoImages(part(images.search), part(images.held_out))
    monkeypatch.setattr(captum_classpattern.demo, "demo_images", lambda: few)
    monkeypatch.setattr(demo_module, "ROUNDS", 4)


def test_version():
    result = runner.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == captum_classpattern.__version__


def test_help_and_version_load_nothing_slow():
    code = """
import sys
import captum_classpattern.cli
slow = ("torch", "torchvision", "captum", "matplotlib", "scipy", "numpy", "PIL", "jinja2")
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["demo", "search", "compare", "apply"])
def test_every_option_has_a_text(name):
    command = typer.main.get_command(cli.app).commands[name]
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.endswith("."), parameter.name
        assert "[" not in parameter.help, f"rich takes the brackets of {parameter.name} for markup"


def test_the_help_says_what_an_option_is_by_default():
    output = runner.invoke(cli.app, ["search", "--help"], env={"COLUMNS": "300"}).output
    for words in ("default, 0.05 and 0.01.", "[default: 4]", "default, 80.", "[default: auto]"):
        assert words in output


def test_without_a_command_it_says_what_there_is():
    assert "demo" in runner.invoke(cli.app, []).output


def interrupt(monkeypatch, at):
    """Ctrl+C in the scoring of a pattern, counted from 0; there are four per class."""
    scored, original = [], SurveySearch._score

    def score(self, *arguments):
        scored.append(1)
        if len(scored) == at + 1:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(SurveySearch, "_score", score)


def test_an_interrupted_demo_goes_on_and_writes_tables_verdicts_figures_and_patterns(
    tmp_path, monkeypatch
):
    out = tmp_path / "new" / "out"
    line = ["demo", "--no-comparison", "--out", str(out)]
    with monkeypatch.context() as patch:
        interrupt(patch, 9)
        result = runner.invoke(cli.app, line)
    assert result.exit_code == 130
    assert "Interrupted: the 4 patterns that were finished are in" in result.output
    assert str(out) in result.output.replace("\n", "")
    saved = sorted((out / "natural" / "patterns").glob("[0-9]_*"))
    assert [path.stem for path in saved] == [
        f"{name}_{kind}_{area}"
        for name in ("0_T-shirt", "1_Trouser")
        for kind in ("positive", "white")
        for area in (0.01, 0.05)
    ]
    for path in saved:
        Pattern.load(path)
    interrupted = json.loads((out / "results.json").read_text())
    assert not interrupted["complete"]
    assert len(interrupted["rows"]) == 4

    result = runner.invoke(cli.app, line)
    assert result.exit_code == 0, result.output
    written = json.loads((out / "results.json").read_text())
    assert written["complete"]
    assert len(written["rows"]) == 60
    assert written["rows"][:4] == interrupted["rows"]
    for name in ("natural", "backdoored", "robust"):
        assert f"{name} model" in result.output
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(list((out / name / "patterns").glob("[0-9]_*"))) == 40
        assert len(list((out / name / "patterns").glob("seen_*"))) == 1  # of all 40
    row = written["rows"][27]
    for area, scores in row["areas"].items():
        folder = out / row["model"] / "patterns"
        pattern = Pattern.load(find_pattern_file(folder, row["class"], row["canvas"], float(area)))
        assert pattern.info["class_name"] == row["class_name"]
        assert pattern.target == row["class"]
        assert pattern.info["search_power"] == scores["search_power"]
        assert pattern.info["settings"]["n_steps"] == 4
    for verdict in written["verdicts"]:
        assert verdict["text"][:60] in " ".join(result.output.split())
    assert f"{written['seconds']:.0f} s" in result.output


def test_ctrl_c_before_anything_is_finished(tmp_path, monkeypatch):
    interrupt(monkeypatch, 0)
    result = runner.invoke(cli.app, ["demo", "--no-comparison", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "no pattern was finished yet" in result.output
    assert "Power:" not in result.output


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    result = runner.invoke(cli.app, ["demo", "--no-comparison", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "file" in result.output
