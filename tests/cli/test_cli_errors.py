"""What a user mistypes is refused in one line, in the words of the options; nothing is written."""

import ast
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from command_line import error_of, run

import captum_classpattern as cp
from captum_classpattern._support.validation import Notice
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.cli import COMMANDS, app
from captum_classpattern.cli.printing import plain_errors, with_options

OWN = "--arch own_models:Net --mean 0 --std 1"
SEARCH = f"search named.pt {OWN} --data images --out new"  # of an option, the last value counts
UNNAMED = f"search m.pt {OWN} --data images"
EARLY = "search missing.pt --data images"  # refused before the checkpoint is opened
COMPARE = f"{OWN} --data images --methods Saliency"
SWEEP = f"{OWN} --data images --out new"

ERRORS = {  # lines, and what they say
    # the line itself
    "serch": 'Did you mean "search"? Available commands: demo, search, scan, compare',
    "demo --seeds 1": "Unknown option: --seeds. Did you mean --seed?",
    "demo --seed -1": 'Invalid value "-1" for --seed. Must be >= 0.',
    f"demo --seed {2**63}": "for --seed. Must be < 9223372036854775808.",
    "search": 'Command "search" parameter CHECKPOINT requires an argument.',
    "search a.pt --data": 'Command "search" parameter --data requires an argument.',
    "search a.pt b.pt --data .": "Unused Tokens: ['b.pt'].",
    'demo --out ""': "Invalid value for --out: an empty name is not a folder that can be written",
    f"{UNNAMED} --size 1000000000": "--size must be a whole number from 1 to 16384",
    "demo --out m.pt": "m.pt is not a folder that can be written: give another",
    # the checkpoint and its network
    EARLY: "there is no checkpoint file at missing.pt",
    "search m.pt --data images": "such as --arch my_net:MyNet for the class MyNet in my_net.py",
    "search m.pt --data images --arch own_models:Nett": "did you mean Net?",
    "search m.pt --data images --arch own_models:Net --num-classes 5": "Check --arch (MODULE:NAME",
    f"{UNNAMED} --size 2": "that it was trained on? Otherwise look for the error in the model",
    f"{UNNAMED} --arch own_models:Pair": "such as --output -1 or --output logits",
    f"{UNNAMED} --output 3": "leave out --output",
    "search m.pt --data images --format plane": "robustness, timm, robustbench, plain, got 'plane'",
    # the images and their classes
    f"{UNNAMED} --data two": "or number the folders, such as 3_dog",
    f"{SEARCH} --held-out images": "nothing is left to hold out; give other images",
    f"{SEARCH} --data damaged": "repair or remove them",
    f"{UNNAMED} --data torchvision:CIFAR10": "give the --root that has it, or --download",
    # values, before anything is loaded
    f"{EARLY} --classes 5-3": "Invalid value for --classes: the range 5-3 is empty: give 3-5",
    f"{EARLY} --area 3": 'Invalid value "3.0" for --area. Must be < 1.',
    f"{EARLY} --mean a": "Invalid value for --mean: could not convert string to float: 'a'",
    f"{EARLY} --precision half": 'Choose from: "auto", "full", "bfloat16".',
    f"{EARLY} --class-names no.txt": "Invalid value for --class-names: no.txt is damaged, or",
    f"{EARLY} --class-names open.txt": ": give a file with a JSON list of names, or one per",
    # compare
    f"compare named.pt turned.pt {COMPARE}": "the names with --class-names FILE if they are wrong",
    f"compare named.pt named.pt {COMPARE}": "or by the column name of a manifest",
    # sweep
    f"sweep m.pt {SWEEP} --workers 2": "are for Ray: also pass --ray",
    f"sweep m.pt {SWEEP} --ray-options 1": "Invalid value for --ray-options: 'int' object is not",
}


@pytest.mark.parametrize("line", ERRORS)
def test_errors(line, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    before = sorted(Path().rglob("*"))
    error = error_of(line)
    assert re.fullmatch("Error: .*", error)
    assert ERRORS[line] in error
    assert "`" not in error
    assert sorted(Path().rglob("*")) == before


LATER = {  # after the command has said what it loaded
    f"{SEARCH} --classes dgo": "the model has no class 'dgo': did you mean dog?",
    f"{SEARCH} --classes 1-": "the model has no class '1-'; there are cat, dog, owl",
    f"{SEARCH} --classes 7": "the model has 3 classes, so targets go from 0 to 2",
    f"{UNNAMED} --data flat --classes dog": "give numbers, or --class-names",
    f"{SEARCH} --out other": "choose another folder",
    f"sweep named.pt {SWEEP} --ray": "is not installed: pip install 'captum_classpattern[ray]'",
}


@pytest.mark.filterwarnings("default:.*has no class folders")
@pytest.mark.parametrize("line", LATER)
def test_errors_of_a_search(line, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    error = error_of(line, at_once=False)
    assert LATER[line] in error
    assert not Path("new").exists()


OF_VERSIONS = {  # errors whose end depends on the versions of other packages
    "search whole.pt --data images": "whole.pt was not opened: it is a pickle (that imports own_mo",
    "search m.pt --data images --arch resnet19": "there is no network 'resnet19' in torchvision or",
    f"{EARLY} --device meta": "Invalid value for --device: meta can't be used here: Cannot copy",
}


@pytest.mark.parametrize("line", OF_VERSIONS)
def test_errors_of_other_packages(line):
    error = error_of(line)
    assert error.startswith(f"Error: {OF_VERSIONS[line]}")
    assert "pickle" not in line or error.endswith("trust a program, pass --trust-pickle.")


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (
            "search m.pt --data images --arch resnet18 --mean 0 --std 1",
            "bn1.bias, bn1.running_mean",
        ),
        ("search m.pt --data images --arch resnet19", "Networks of torchvision: alexnet, "),
    ],
)
def test_debug_lists_all(line, listed):
    short, whole = error_of(line), error_of(f"{line} --debug")
    assert short.endswith(" (--debug lists all)")
    assert listed not in short
    assert listed in whole
    assert "Traceback (most recent call last):" in whole
    assert error_of(f"--debug {line}").startswith("Traceback (most recent call last):")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    error = error_of(f"{SEARCH} --out {tmp_path / 'new'}")
    assert f"{tmp_path} is not a folder that can be written" in error


def test_what_a_function_raises(monkeypatch):
    """What the system refuses, and wrong input, are errors in a line; a bug keeps its traceback."""

    def raised(error):
        def survey(*_, **__):
            raise error

        monkeypatch.setattr(cp, "survey", survey)

    raised(OSError(28, "No space left on device", "new/patterns"))
    text = "Error: [Errno 28] No space left on device: 'new/patterns'"
    assert error_of(SEARCH, at_once=False) == text
    monkeypatch.setattr(cp, "survey", lambda *_, **__: parse_targets(0.5, 1))
    assert error_of(SEARCH, at_once=False).startswith("Error: target must be an int")
    raised(TypeError("of ours"))
    with pytest.raises(TypeError, match="of ours"):
        run(SEARCH)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("pass `arch`, or `num_classes=10`", "pass --arch, or --num-classes 10"),
        ("only if `trust_pickle=True`", "only if --trust-pickle"),
        ("pass `num_classes=10` (in Python: here(1))", "pass --num-classes 10"),
        ("choose `split='train'`", "choose --split train"),
        ("`output=-1`, not `folder`", "--output -1, not folder"),
        ("a folder `with spaces`", "a folder `with spaces`"),
    ],
)
def test_arguments_become_options(message, said):
    options = {"--arch", "--num-classes", "--trust-pickle", "--split", "--output"}
    with plain_errors(False, options):
        assert with_options(message) == said


@pytest.mark.filterwarnings("default")
def test_warnings_have_the_words_of_the_options(capsys):
    with plain_errors(False, {"--arch", "--num-classes"}):
        warnings.warn("pass `num_classes`", Notice, stacklevel=1)
        warnings.warn("pass `arch`", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "Note: pass --num-classes\nWarning: pass --arch\n"


@pytest.mark.script
def test_modules_in_the_current_folder_run_only_for_a_factory(tmp_path, place):
    """The folder of an untrusted checkpoint may hold untrusted modules."""
    for name in ("timm", "robustbench"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')")
    shutil.copy(place / "m.pt", tmp_path)
    code = """
from captum_classpattern.cli import main
for arch in ("resnet9", "timm:resnet9"):
    try:
        main(["search", "m.pt", "--arch", arch, "--data", ".", "--mean", "0", "--std", "1"])
    except SystemExit as stopped:
        assert stopped.code == 2
"""
    line = [sys.executable, "-P", "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr.count("there is no network") == 2
    assert not (tmp_path / "ran").exists()


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
    commands = [app[name] for group in COMMANDS.values() for name in group]
    arguments = (each for command in commands for each in command.assemble_argument_collection())
    options = {name for argument in arguments for name in argument.names}
    names = {option.removeprefix("--").replace("-", "_") for option in options} - {"*"}
    found = {
        f"{path.relative_to(ROOT)}: {text}": bare
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent.name != "cli"
        for text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if (bare := bare_names(text, names))
    }
    assert not found
