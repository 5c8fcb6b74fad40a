"""The command line, with short searches on a part of the embedded images."""

import json
from importlib import import_module

import pytest
import torch
from typer.testing import CliRunner

import captum_classpattern
from captum_classpattern import Pattern, cli
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images
from captum_classpattern.survey import survey

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
    monkeypatch.setattr(demo_module, "demo_images", lambda: few)
    monkeypatch.setattr(demo_module, "ROUNDS", 4)


def test_version():
    result = runner.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == captum_classpattern.__version__


def test_without_a_command_it_says_what_there_is():
    assert "demo" in runner.invoke(cli.app, []).output


def test_demo_writes_tables_verdicts_figures_and_patterns(tmp_path):
    result = runner.invoke(
        cli.app, ["demo", "--no-comparison", "--out", str(tmp_path / "new" / "out")]
    )
    assert result.exit_code == 0, result.output
    out = tmp_path / "new" / "out"
    written = json.loads((out / "results.json").read_text())
    assert written["complete"]
    assert len(written["rows"]) == 60
    for name in ("natural", "backdoored", "robust"):
        assert f"{name} model" in result.output
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(list((out / "patterns" / name).iterdir())) == 40
    row = written["rows"][27]
    for area, scores in row["areas"].items():
        name = f"{row['class']}_{row['canvas']}_{area}.safetensors"
        pattern = Pattern.load(out / "patterns" / row["model"] / name)
        assert pattern.target == row["class"]
        assert pattern.info["search_power"] == scores["search_power"]
        assert pattern.info["settings"]["n_steps"] == 4
    for verdict in written["verdicts"]:
        assert verdict["text"][:60] in " ".join(result.output.split())
    assert f"{written['seconds']:.0f} s" in result.output


def test_ctrl_c_leaves_the_finished_patterns_and_says_so(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        for count, finding in enumerate(survey(*args, **kwargs)):
            if count == 3:
                raise KeyboardInterrupt
            yield finding

    monkeypatch.setattr(demo_module, "survey", interrupted)
    result = runner.invoke(cli.app, ["demo", "--no-comparison", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "Interrupted: the 3 patterns that were finished are in" in result.output
    assert str(tmp_path / "patterns") in result.output.replace("\n", "")
    saved = sorted((tmp_path / "patterns" / "natural").iterdir())
    assert [path.stem for path in saved] == [
        f"{kind}_{area}"
        for kind in ("0_positive", "0_white", "1_positive")
        for area in (0.01, 0.05)
    ]
    for path in saved:
        Pattern.load(path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert not written["complete"]
    assert len(written["rows"]) == 3


def test_ctrl_c_before_anything_is_finished(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_module, "survey", interrupted)
    result = runner.invoke(cli.app, ["demo", "--no-comparison", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "no pattern was finished yet" in result.output
    assert "Power:" not in result.output


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    result = runner.invoke(cli.app, ["demo", "--no-comparison", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "file" in result.output
