"""The command line, with short searches on a part of the embedded images."""

import inspect
import json
import platform
import re
import subprocess
import sys
from functools import partial
from importlib import import_module
from typing import get_args, get_type_hints

import captum
import numpy
import pytest
import torch
import torchvision
from command_line import interrupt_searches, run
from rich.console import Console

import captum_classpattern
from captum_classpattern import Pattern, cli
from captum_classpattern.cli.options import ComputeOptions
from captum_classpattern.demo import DemoImages, LabelledImages, demo_images
from captum_classpattern.optimization import Learned
from captum_classpattern.optimization.settings import PRECISIONS
from captum_classpattern.scanning import families
from captum_classpattern.surveys.store import find_pattern_file

demo_module = import_module("captum_classpattern.cli.demo")  # the name is the command's, too


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Four images a class and four rounds: what is written does not depend on them."""
    images = demo_images()

    def part(half):
        chosen = torch.cat([torch.nonzero(half.labels == y).flatten()[:4] for y in range(10)])
        return LabelledImages(half.images[chosen], half.labels[chosen])

    few = DemoImages(part(images.search), part(images.held_out))
    monkeypatch.setattr(captum_classpattern, "demo_images", lambda: few)
    monkeypatch.setattr(demo_module, "ROUNDS", 4)
    monkeypatch.setattr(demo_module, "CANVASES", {"positive": 1, "white": 1})
    short = partial(Learned, rounds=1, soft_batch_size=1, batch_size=1)
    monkeypatch.setattr(families, "Learned", short)


def test_version():
    result = run(["--version"])
    assert result.exit_code == 0
    ours, *others, python = result.output.strip().splitlines()
    assert ours == f"captum_classpattern {captum_classpattern.__version__}"
    assert others == [f"{m.__name__} {m.__version__}" for m in (captum, torch, torchvision, numpy)]
    assert python.startswith(f"Python {platform.python_version()}, {platform.system()}")


def test_a_package_of_another_name_does_not_hide_the_versions(monkeypatch):
    monkeypatch.setattr(cli, "PACKAGES", ("no-such-package", "captum_classpattern"))
    unknown, ours, _ = run(["--version"]).output.strip().splitlines()
    assert unknown == "no-such-package of an unknown version"
    assert ours.endswith(captum_classpattern.__version__)


@pytest.mark.parametrize("line", [["--version"], ["--help"], ["search", "--help"]])
def test_help_and_version_load_nothing_slow(line):
    code = f"""
import sys
from captum_classpattern.cli import main
main({line})
slow = ("torch", "torchvision", "captum", "matplotlib", "scipy", "numpy", "PIL", "jinja2")
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


COMMANDS = ["demo", "search", "scan", "compare", "apply", "sweep", "reference", "gallery"]
ROW = re.compile(r"│ [* ]*(?P<names>[-A-Z]\S*( \S+)*) {2,}(?P<text>\S.*?) *│")


@pytest.fixture
def help_of(monkeypatch):
    """The text of each option of a command, by its name, as --help prints it."""
    monkeypatch.setattr(cli.app, "_console", Console(width=500))

    def texts(*command):
        rows = ROW.finditer(run([*command, "--help"]).stdout)
        return {row["names"].split()[0]: row["text"] for row in rows}

    return texts


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_sentence_and_shows_its_default(name, help_of):
    texts = help_of(name)
    shown = [a for a in cli.app[name].assemble_argument_collection() if a.show]
    assert {argument.names[0] for argument in shown} | {"--debug"} == set(texts)
    for argument in shown:
        text, _, _ = texts[argument.names[0]].partition(" [")
        assert re.fullmatch(r"[A-Z].* .*\.", text), text
        default = argument.field_info.default
        if default is None or default is False or default is inspect.Parameter.empty:
            assert "[default: " not in texts[argument.names[0]]
        else:
            assert f"[default: {default}]" in texts[argument.names[0]]


def test_what_an_option_takes_is_in_plain_words():
    printed = " ".join(run(["search", "--help"]).stdout.split())
    assert "--classes LIST " in printed
    assert "--output INDEX|NAME " in printed
    assert "--area SHARE " in printed
    assert "--data IMAGES " in printed
    assert "--out FOLDER " in printed


def test_defaults_that_depend_on_something_are_in_the_text(help_of):
    texts = help_of("search")
    assert "By default, 0.05 and 0.01." in texts["--area"]
    assert "By default, 7000 (in compare 3500)." in texts["--budget"]
    assert "[choices: auto, full, bfloat16]" in texts["--precision"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_can_be_parsed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_images").mkdir()
    examples = re.findall(r"^ +classpattern (.*\S)", run([name, "--help"]).stdout, re.MULTILINE)
    assert examples
    for line in examples:
        cli.app.parse_args(line, exit_on_error=False, print_error=False)


def test_options_are_in_panels_of_their_topic():
    printed = run(["compare", "--help"]).stdout
    more = ["More about the model", "More about the images", "More about the search"]
    assert panels_of(printed) == ["Arguments", "Options", *more, "More options"]


def panels_of(printed):
    return re.findall(r"╭─ ([\w ,]+) ─", printed)


def test_commands_are_in_panels():
    printed = run(["--help"]).stdout
    assert panels_of(printed) == ["Start here", "One model", "Many models", "More options"]
    assert [name for name in re.findall(r"│ (\w+) ", printed) if name in COMMANDS] == COMMANDS


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_into_80_columns(name, monkeypatch):
    monkeypatch.setattr(cli.app, "_console", Console(width=80))
    printed = run([*name.split(), "--help"]).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    assert max(map(len, lines)) <= 80
    start = lines.index("") + 1  # after the usage
    assert re.fullmatch(r"[A-Z].*\.", lines[start])  # what the command does, in one line
    assert lines[start + 2] == "For example:"
    if name:
        options = printed[printed.index("╭─ Options") :].splitlines()
        runs = "".join("x" if re.match("│ {8,}", line) else " " for line in options)
        assert max(map(len, runs.split()), default=0) <= 2  # an option has three lines at most


def test_the_most_used_options_come_first():
    printed = run(["search", "--help"]).stdout
    main = printed[: printed.index("More about the model")]
    assert re.findall(r"│ [* ]*(--[\w-]+)", main) == [
        *("--arch", "--mean", "--std", "--device", "--data", "--size", "--classes", "--area"),
        *("--out", "--resume", "--json"),
    ]


def test_the_choices_of_a_precision_are_those_of_the_search():
    hints = get_type_hints(ComputeOptions)
    assert get_args(hints["precision"]) == PRECISIONS


def test_without_a_command_the_commands_are_listed():
    output = run([]).output
    assert all(f"│ {name} " in output for name in COMMANDS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["serch"], 'Unknown command "serch". Did you mean "search"?'),
        (["demo", "--seeds", "1"], "Unknown option: --seeds. Did you mean --seed?"),
        (["demo", "--seed", "-1"], "Invalid value for --seed: it must be a whole number from 0"),
        (["demo", "--seed", "1.5"], "Invalid value for --seed: it must be a whole number from 0"),
        (["demo", "--seed", str(2**63)], "Invalid value for --seed: it must be a whole number"),
        (["search"], "CHECKPOINT is missing; see classpattern search --help"),
        (["search", "a.pt"], "--data is missing; see classpattern search --help"),
        (["search", "a.pt", "--data"], "--data needs a value; see classpattern search --help"),
        (["search", "a.pt", "b.pt", "--data", "."], "'b.pt' is one argument too many; see clas"),
        (["demo", "--out", "file/new"], "--out: file/new can't be written, because of "),
        (["apply", "missing", "missing.png", "--out", "out"], "missing"),
    ],
)
def test_wrong_input_is_one_line_on_stderr(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    result = run(line)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .*\n", result.stderr)
    assert message in result.stderr


def test_of_an_option_that_is_given_twice_the_last_value_counts(tmp_path):
    twice = ["--seed", "1", "--mean", "1", "--seed", "2", "--mean", "0.5,0.25"]
    line = ["search", "a.pt", "--data", str(tmp_path), *twice, "--area", "0.1", "--area", "0.2"]
    _, bound, _ = cli.app.parse_args(line)
    assert bound.arguments["searches"].seed == 2
    assert bound.arguments["model"].mean == [0.5, 0.25]
    assert bound.arguments["searches"].area == [0.1, 0.2]  # can be given several times


@pytest.mark.parametrize("line", [["--debug", "apply"], ["apply", "--debug"]])
def test_debug_shows_the_traceback(line, tmp_path):
    code = "from captum_classpattern.cli import main; main()"
    line = [*line, "missing.safetensors", "missing.png", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback (most recent call last):" in done.stderr
    assert "FileNotFoundError: " in done.stderr


def test_an_interrupted_demo_keeps_its_patterns_and_continues(tmp_path, monkeypatch):
    out = tmp_path / "new" / "out"
    line = ["demo", "--no-comparison", "--out", str(out)]
    with monkeypatch.context() as patch:
        interrupt_searches(patch, after=2)
        result = run(line)
    assert result.exit_code == 130
    assert f"Interrupted: the 4 finished patterns are in {out};" in result.output
    saved = sorted((out / "natural" / "patterns").glob("[0-9]_*"))
    assert [path.stem for path in saved] == [
        f"{name}_{kind}_{area}"
        for name in ("0_T-shirt", "1_Trouser")
        for kind in ("positive", "white")
        for area in (0.01, 0.05)
    ]
    for path in saved:
        Pattern.load(path)
    first = json.loads((out / "results.json").read_text())
    assert not first["complete"]
    assert len(first["rows"]) == 4

    again = run(line)
    assert again.exit_code == 0, again.output
    assert f"Continuing the unfinished demo in {out}." in again.output
    written = json.loads((out / "results.json").read_text())
    assert written["rows"][:4] == first["rows"]
    check_the_demo(out, written, again.output)

    for more in ([], ["--seed", "1"]):  # a finished demo, and one with other options
        with monkeypatch.context() as patch:
            searched = interrupt_searches(patch, after=0)
            result = run([*line, *more])
        assert result.exit_code == 130
        assert "Continuing" not in result.output
        assert searched == [list(range(10))]


def check_the_demo(out, written, output):
    """Tables, verdicts, figures and patterns."""
    assert written["complete"]
    assert len(written["rows"]) == 60
    for name in ("natural", "backdoored", "robust"):
        assert f"{name} model" in output
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
        rounds = 4 if float(area) == 0.05 else 3  # the smaller area starts from the larger one
        assert pattern.info["settings"]["n_steps"] == rounds
    words = " ".join(output.split())
    for verdict in written["verdicts"]:
        assert verdict["text"][:60] in words
    assert f"{written['seconds']} s" in output
    for name in ("natural", "backdoored", "robust"):
        found = json.loads((out / "scan" / name / "scan.json").read_text())
        assert f"{name} model, {found['verdict']}: " in output
        assert found["reason"][:40] in words


def test_a_folder_of_other_results_is_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"rows": []}')
    result = run(["demo", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "results.json is not from a demo: pass another --out" in result.output


def test_ctrl_c_before_anything_is_finished(tmp_path, monkeypatch):
    interrupt_searches(monkeypatch, after=0)
    result = run(["demo", "--no-comparison", "--out", str(tmp_path)])
    assert result.exit_code == 130
    assert "no pattern was finished yet" in result.output
    assert "Power:" not in result.output


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    result = run(["demo", "--no-comparison", "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "Invalid value for --out: it must be a folder, but" in result.output
