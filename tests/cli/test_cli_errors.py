"""What a user mistypes, and what the command line says about it."""

import ast
import inspect
import json
import os
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from command_line import run
from PIL import Image
from torch import nn

import captum_classpattern as cp
from captum_classpattern._validation import Notice
from captum_classpattern.cli import _options
from captum_classpattern.cli.compare import compare as compare_command
from captum_classpattern.cli.errors import plain_errors, with_options
from captum_classpattern.cli.options import BatchOptions, ComputeOptions, SurveyOptions

OPTIONS = {"--arch", "--num-classes", "--trust-pickle", "--on-error", "--output"}


class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean((2, 3)))


class Pair(Net):
    def forward(self, images):
        return images, super().forward(images)


NET = f"{__name__}:Net"
PLAIN = ("--mean", "0", "--std", "1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint without and one with names of its classes, one that is a pickle, and images."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    torch.save(Net().state_dict(), folder / "m.pt")
    torch.save({"net": Net().state_dict(), "classes": ["cat", "dog", "owl"]}, folder / "named.pt")
    torch.save(Net(), folder / "whole.pt")
    for data, names in (("images", "cat dog owl"), ("foxes", "cat dog fox"), ("two", "cat dog")):
        for name in names.split():
            (folder / data / name).mkdir(parents=True)
            for i in range(4):
                pixels = torch.randint(0, 256, (8, 8, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(folder / data / name / f"{i}.png")
    (folder / "empty").mkdir()
    (folder / "done").mkdir()
    (folder / "done" / "results.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", [*sys.path])


def search(*more, checkpoint="m.pt", data="images", out="new"):
    return run(["search", checkpoint, "--data", data, "--out", out, *more])


WRONG = [  # checkpoint, options, data, what is said
    ("missing.pt", (), "images", "there is no checkpoint file at missing.pt"),
    ("resnet18", (), "images", "for torchvision's pretrained network, give torchvision:resnet18"),
    ("m.pt", (), "images", "does not say for which network: pass --arch, the network: a name of t"),
    (
        "m.pt",
        ("--arch", "resnet19"),
        "images",
        "there is no network 'resnet19' in torchvision or timm; did you mean resnet18 or ",
    ),
    (
        "m.pt",
        ("--arch", "my_nets.Net"),
        "images",
        "no network 'my_nets.Net' in torchvision or timm; for a function of your own, give my_n",
    ),
    (
        "m.pt",
        ("--arch", "nowhere:Net"),
        "images",
        "--arch nowhere:Net: there is no module 'nowhere'; run this in the folder that has it, or",
    ),
    (
        "m.pt",
        ("--arch", "my_nets.py:Net"),
        "images",
        "--arch my_nets.py:Net: 'my_nets.py' is not a module: give package.module:name, such",
    ),
    (
        "m.pt",
        ("--arch", f"{__name__}:Nett"),
        "images",
        f"--arch {__name__}:Nett: {__name__} has no function or class 'Nett'; did you mean Net?",
    ),
    (
        "m.pt",
        ("--arch", NET, "--num-classes", "5"),
        "images",
        "m.pt does not fit into Net; weights of another shape: 2 (head.weight (3, 4) instead of "
        "(5, 4), ...). Check --arch and --num-classes (--debug lists all)",
    ),
    (
        "m.pt",
        ("--arch", "resnet18", *PLAIN),
        "images",
        "m.pt does not fit into ResNet; weights missing: 102 (conv1.weight, ...); unexpected: 4 "
        "(conv.weight, ...). Check --arch and --num-classes (--debug lists all)",
    ),
    (
        "m.pt",
        ("--arch", NET, "--mean", "128", "--std", "1"),
        "images",
        "--mean must be in units where pixels lie in [0, 1], got [128.0]: divide it by 255",
    ),
    (
        "m.pt",
        ("--arch", NET, "--mean", "0.5"),
        "images",
        "--mean is given, but not --std, which the source does not say either: pass both",
    ),
    (
        "m.pt",
        ("--arch", NET, *PLAIN, "--size", "2"),
        "images",
        "trained on? load_images has --size and channels for that; otherwise look for the error",
    ),
    (
        "m.pt",
        ("--arch", f"{__name__}:Pair", *PLAIN),
        "images",
        "got a tuple: say which part holds the logits, such as --output -1 or --output logits (",
    ),
    (
        "m.pt",
        ("--arch", NET, *PLAIN, "--output", "3"),
        "images",
        "--output 3 is given, but the model returned one Tensor of shape (1, 3): leave out --",
    ),
    ("m.pt", ("--arch", NET, *PLAIN), "empty", "empty has no images: looked for .bmp, "),
    (
        "m.pt",
        ("--arch", NET, *PLAIN),
        ".",
        "have no images directly in them",
    ),
    (
        "m.pt",
        ("--arch", NET, *PLAIN),
        "two",
        "the model has 3 classes and no names for them: give the names of the model's classes in "
        "their order (--class-names), or number the folders, such as 3_dog",
    ),
    (
        "named.pt",
        ("--arch", NET, *PLAIN),
        "foxes",
        "the model has no class 'fox'; there are cat, dog, owl. Rename the folders, or give the",
    ),
    (
        "named.pt",
        ("--arch", NET, *PLAIN, "--classes", "dgo"),
        "images",
        "--classes: the model has no class 'dgo': did you mean dog?",
    ),
    (
        "named.pt",
        ("--arch", NET, *PLAIN, "--held-out", "images"),
        "images",
        "are copies of images of images: nothing is left to hold out; give other images",
    ),
    (
        "whole.pt",
        (),
        "images",
        "Only if you trust the file as you would trust a program, pass --tr",
    ),
    (
        "torchvision:resnet19",
        (),
        "images",
        "there is no network 'torchvision:resnet19' in torchvision; did you mean resnet18 or",
    ),
    ("timm:resnet19", (), "images", "there is no network 'timm:resnet19' in timm; did you mean"),
    (
        "torchvision:resnet18",
        ("--arch", "resnet18"),
        "images",
        "comes with its network and classes: leave out --arch, --num-classes and --format, which",
    ),
    (
        "m.pt",
        ("--arch", NET, *PLAIN),
        "torchvision:CIFAR10",
        "torchvision:CIFAR10 is not in data, or is incomplete: give the --root that has it, or --",
    ),
    ("m.pt", ("--format", "plane"), "images", "--format must be one of backdoorbench, trojanzoo, "),
    ("m.pt", ("--format", "trojanzoo"), "images", "the layout of trojanzoo: leave out --format"),
    ("m.pt", ("--out", "done"), "images", "done holds results already: pass --resume to continue"),
    ("m.pt", ("--out", "m.pt/x"), "images", "--out: m.pt/x can't be written, because of "),
]


@pytest.mark.parametrize(("checkpoint", "more", "data", "words"), WRONG)
def test_what_is_wrong_is_said_in_the_words_of_the_options(checkpoint, more, data, words, place):
    result = search(*more, checkpoint=checkpoint, data=data)
    assert result.exit_code == 2
    assert result.stdout == ""
    [line] = [line for line in result.stderr.splitlines() if not line.startswith("Note: ")]
    assert line.startswith("Error: ")
    assert words in line
    assert "`" not in line
    assert not (place / "new").exists()


def test_errors_of_json_leave_stdout_empty():
    for command in (["search", "m.pt"], ["compare", "m.pt"], ["scan", "m.pt", "--references", "x"]):
        result = run([*command, "--data", "images", "--arch", "resnet19", "--json"])
        assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (
            ["search", "m.pt", "--arch", "resnet18", *PLAIN],
            "missing: conv1.weight, bn1.weight, bn1.",
        ),
        (["search", "m.pt", "--arch", "resnet19"], "Networks of torchvision: alexnet, "),
        (["compare", "m.pt", "--methods", "Salency"], "Choose from ClassPattern, IntegratedGradi"),
    ],
)
def test_debug_lists_all(line, listed):
    short, whole = (run([*line, "--data", "images", *more]) for more in ((), ("--debug",)))
    assert (short.exit_code, whole.exit_code) == (2, 2)
    assert short.stderr.endswith(" (--debug lists all)\n")
    assert len(short.stderr) < 300
    assert listed not in short.stderr
    assert listed in whole.stderr
    assert "Traceback (most recent call last):" in whole.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    result = search("--arch", NET, out=str(tmp_path / "new"))
    assert f"{tmp_path / 'new'} can't be written, because of {tmp_path}" in result.stderr


def test_an_error_of_the_system_is_in_words(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "new/patterns")

    monkeypatch.setattr(cp, "survey", full)
    result = search("--arch", NET, *PLAIN, checkpoint="named.pt")
    text = "Error: new/patterns can't be read or written: No space left on device\n"
    assert (result.exit_code, result.stderr) == (2, text)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("pass `arch`, or `num_classes=10`", "pass --arch, or --num-classes 10"),
        ("only if `trust_pickle=True`", "only if --trust-pickle"),
        ("skip them (`on_error='skip'`)", "skip them (--on-error skip)"),
        ("`output=-1`, not `folder`", "--output -1, not folder"),
        ("a folder `with spaces`", "a folder `with spaces`"),
        ("nothing", "nothing"),
    ],
)
def test_arguments_become_options(message, said):
    assert with_options(message, OPTIONS) == said


@pytest.mark.filterwarnings("default")
def test_warnings_have_the_words_of_the_options(capsys):
    with plain_errors(False, OPTIONS):
        warnings.warn("pass `num_classes`", Notice, stacklevel=1)
        warnings.warn("pass `arch`", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "Note: pass --num-classes\nWarning: pass --arch\n"


def test_the_checkpoints_of_the_tests_are_as_they_should_be(place, monkeypatch):
    """A command without a mistake comes to the search."""
    started = []

    def survey(*_, **__):
        started.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(cp, "survey", survey)
    assert search("--arch", NET, *PLAIN, checkpoint="named.pt").exit_code == 130
    assert started
    assert json.loads((place / "done" / "results.json").read_text()) == {}


# ---- the library names arguments so that the command line can print options

ROOT = Path(__file__).parents[2] / "captum_classpattern"
CODE = re.compile(r"`[^`]*`|\w+\([^)]*\)")  # in backticks, or a call


def messages(tree):
    """The texts of all errors and warnings, with "{}" for what is filled in."""
    for node in ast.walk(tree):
        is_warning = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn"
        if not is_warning and not (isinstance(node, ast.Raise) and node.exc):
            continue
        parts = dict.fromkeys(ast.walk(node))
        for part in [part for part in parts if isinstance(part, ast.JoinedStr)]:
            values = [v.value if isinstance(v, ast.Constant) else "{}" for v in part.values]
            yield "".join(values)
            for value in ast.walk(part):
                parts.pop(value, None)
        for part in parts:
            if isinstance(part, ast.Constant) and " " in str(part.value):
                yield str(part.value)


def bare_names(text, names):
    """The arguments that a message names outside of backticks."""
    plain = CODE.sub("", text)
    return [
        name
        for name in names
        if ("_" in name and re.search(rf"(?<![\w.-]){name}(?![\w.])", plain))
        or re.search(rf"(?<![\w.-]){name}=|^{name} (must|is|are)\b", plain)
    ]


def test_messages_of_the_library_name_arguments_in_backticks():
    names = {option.removeprefix("--").replace("-", "_") for option in _options()} - {"*"}
    found = {
        f"{path.relative_to(ROOT)}: {text}": bare
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent.name != "cli"
        for text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if (bare := bare_names(text, names))
    }
    assert not found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n_steps must be 1", ["n_steps"]),
        ("`n_steps` must be 1; f(n_steps=2) is fine", []),
        ("size must be 1", ["size"]),
        ("the size must be 1; a size is given", []),
        ("pass resume=True", ["resume"]),
        ("pass `resume=True`", []),
    ],
)
def test_a_bare_name_is_noticed(text, found):
    assert bare_names(text, ["n_steps", "size", "resume"]) == found


# ---- one default, in Python and in the shell


def default_of(function, name):
    return inspect.signature(function).parameters[name].default


def test_a_search_tries_the_same_canvases_everywhere(monkeypatch):
    expected = {"positive": 32, "white": 1, "black": 1}
    for function in (cp.explain_class, cp.survey, cp.sweep):
        assert default_of(function, "canvases") == expected
    given = []

    def record(*_, canvases, **__):
        given.append(canvases)
        raise ValueError("this is enough")

    monkeypatch.setattr(cp, "survey", record)
    monkeypatch.setattr(cp, "sweep", record)
    for command in ("search", "sweep"):
        run([command, "named.pt", "--arch", NET, *PLAIN, "--data", "images", "--out", command])
    assert given == [expected, expected]


@pytest.mark.parametrize(
    ("options", "functions"),
    [
        (ComputeOptions(), [cp.survey, cp.scan]),
        (BatchOptions(), [cp.scan, cp.ReferenceSet.add]),
        (SurveyOptions(), [cp.survey, cp.sweep]),
    ],
)
def test_the_options_of_a_search_are_handed_on_with_the_same_defaults(options, functions):
    for function in functions:
        keywords = options.keywords()
        assert {name: default_of(function, name) for name in keywords} == keywords


def test_comparisons_score_on_the_same_number_of_images_everywhere():
    for function in (cp.compare, cp.sanity_check, compare_command):
        assert default_of(function, "max_images") == 500
