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
from captum_classpattern._validation import Notice
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.cli import _options
from captum_classpattern.cli.errors import plain_errors, with_options

OWN = "--arch own_models:Net --mean 0 --std 1"
SEARCH = f"search named.pt {OWN} --data images --out new"  # of an option, the last value counts
UNNAMED = f"search m.pt {OWN} --data images"
EARLY = "search missing.pt --data images"  # refused before the checkpoint is opened
COMPARE = f"{OWN} --data images --methods Saliency"
EARLY_COMPARE = "compare missing.pt --data images"
SWEEP = f"{OWN} --data images --out new"

ERRORS = {
    # the line itself
    "unknown command": "serch",
    "unknown option": "demo --seeds 1",
    "negative seed": "demo --seed -1",
    "seed with a fraction": "demo --seed 1.5",
    "seed beyond 64 bits": f"demo --seed {2**63}",
    "no checkpoint": "search",
    "no images": "search a.pt",
    "option without its value": "search a.pt --data",
    "one argument too many": "search a.pt b.pt --data .",
    "out is a file": "demo --no-comparison --out m.pt",
    "out within a file": "demo --out m.pt/new",
    "results of another command": "demo --out other",
    # the checkpoint and its network
    "missing checkpoint": EARLY,
    "name without a library": "search resnet18 --data images",
    "no network": "search m.pt --data images",
    "function without a colon": "search m.pt --data images --arch my_nets.Net",
    "unknown module": "search m.pt --data images --arch nowhere:Net",
    "file instead of a module": "search m.pt --data images --arch my_nets.py:Net",
    "unknown function": "search m.pt --data images --arch own_models:Nett",
    "other number of classes": "search m.pt --data images --arch own_models:Net --num-classes 5",
    "other network": "search m.pt --data images --arch resnet18 --mean 0 --std 1",
    "mean up to 255": f"{SEARCH} --mean 128",
    "mean alone": "search m.pt --data images --arch own_models:Net --mean 0.5",
    "images too small": f"{UNNAMED} --size 2",
    "several outputs": f"{UNNAMED} --arch own_models:Pair",
    "output of a Tensor": f"{UNNAMED} --output 3",
    "unknown network of torchvision": "search torchvision:resnet19 --data images",
    "network given twice": "search torchvision:resnet18 --data images --arch resnet18",
    "unknown format": "search m.pt --data images --format plane",
    "other format": "search m.pt --data images --format trojanzoo",
    # the images and their classes
    "no image": f"{UNNAMED} --data empty",
    "no class folder": f"{UNNAMED} --data .",
    "fewer folders than classes": f"{UNNAMED} --data two",
    "folder of an unknown class": f"{SEARCH} --data foxes",
    "held out are copies": f"{SEARCH} --held-out images",
    "image that can't be read": f"{SEARCH} --data damaged",
    "set of torchvision is missing": f"{UNNAMED} --data torchvision:CIFAR10",
    "unknown class": f"{SEARCH} --classes dgo",
    "class out of range": f"{SEARCH} --classes 3",
    "neither has names": f"{UNNAMED} --data flat --classes dog",
    "fewer names than classes": f"{UNNAMED} --class-names short.txt",
    # values, before anything is loaded
    "no images there": f"{EARLY} --data nowhere",
    "no held-out images there": f"{EARLY} --held-out nowhere",
    "open range": f"{EARLY} --classes 1-",
    "empty list": f"{EARLY} --classes ''",
    "gap in a list": f"{EARLY} --classes 1,,2",
    "empty range": f"{EARLY} --classes 5-3",
    "area above 1": f"{EARLY} --area 3",
    "area of 0": f"{EARLY} --area 0",
    "area of 1": f"{EARLY} --area 1",
    "area of NaN": f"{EARLY} --area nan",
    "mean in letters": f"{EARLY} --mean a",
    "gap in numbers": f"{EARLY} --std 1,",
    "unknown precision": f"{EARLY} --precision half",
    "no class names there": f"{EARLY} --class-names no.txt",
    "empty line of names": f"{EARLY} --class-names gap.txt",
    "names by number": f"{EARLY} --class-names dict.txt",
    "names are numbers": f"{EARLY} --class-names numbers.txt",
    "names are not JSON": f"{EARLY} --class-names open.txt",
    "names are not a text": f"{EARLY} --class-names binary.txt",
    "results are there": f"{EARLY} --out done",
    # the search
    "results of the demo": f"{SEARCH} --out other --resume",
    "damaged results": f"{SEARCH} --out half --resume",
    "small budget": f"{SEARCH} --budget 2",
    # compare
    "compare: unknown method": f"{EARLY_COMPARE} --methods Saliency,Magic",
    "compare: unknown method of a module": f"{EARLY_COMPARE} --methods own_models:Nett",
    "compare: area of 0": f"{EARLY_COMPARE} --area 0",
    "compare: unknown class": f"compare named.pt {COMPARE} --classes x",
    "compare: two orders of classes": f"compare named.pt turned.pt {COMPARE}",
    "compare: one name twice": f"compare named.pt named.pt {COMPARE}",
    "compare: one file name twice": f"compare 'a b=m.pt' a_b=m.pt {COMPARE}",
    # sweep
    "sweep: no manifest": f"sweep nothing.csv {SWEEP}",
    "sweep: nothing opens": f"sweep broken.pt {SWEEP}",
    "sweep: workers without Ray": f"sweep m.pt {SWEEP} --workers 2",
    "sweep: options that are no JSON": f"sweep m.pt {SWEEP} --ray-options 1",
    "sweep: Ray is not there": f"sweep m.pt {SWEEP} --ray",
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case, snapshot, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    before = sorted(Path().rglob("*"))
    error = error_of(ERRORS[case])
    assert error == snapshot
    assert re.fullmatch("Error: .*", error)
    assert "`" not in error
    assert sorted(Path().rglob("*")) == before


OF_VERSIONS = {  # errors whose end depends on the versions of other packages
    "search whole.pt --data images": "whole.pt was not opened: it is a pickle, which can run its ",
    "search timm:resnet19 --data images": "there is no network 'timm:resnet19' in timm; did you me",
    "search m.pt --data images --arch resnet19": "there is no network 'resnet19' in torchvision or",
    f"{EARLY} --device nonsense": "Invalid value for --device: nonsense can't be used here: ",
}


@pytest.mark.parametrize("line", OF_VERSIONS)
def test_errors_of_other_packages(line):
    error = error_of(line)
    assert error.startswith(f"Error: {OF_VERSIONS[line]}")
    assert "pickle" not in line or error.endswith("trust a program, pass --trust-pickle.")


def test_errors_of_json_leave_stdout_empty():
    for command in ("search m.pt", "compare m.pt", "scan m.pt --references demo"):
        assert "resnet19" in error_of(f"{command} --data images --arch resnet19 --json")


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        (
            "search m.pt --data images --arch resnet18 --mean 0 --std 1",
            "bn1.bias, bn1.running_mean",
        ),
        ("search m.pt --data images --arch resnet19", "Networks of torchvision: alexnet, "),
        (f"{EARLY_COMPARE} --methods Salency", "Choose from ClassPattern, IntegratedGradi"),
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
    assert f"{tmp_path / 'new'} can't be written, because of {tmp_path}" in error


def test_what_a_function_raises(monkeypatch):
    """What the system refuses, and wrong input, are errors in a line; a bug keeps its traceback."""

    def raised(error):
        def survey(*_, **__):
            raise error

        monkeypatch.setattr(cp, "survey", survey)

    raised(OSError(28, "No space left on device", "new/patterns"))
    text = "Error: new/patterns can't be read or written: No space left on device"
    assert error_of(SEARCH) == text
    monkeypatch.setattr(cp, "survey", lambda *_, **__: parse_targets(0.5, 1))
    assert error_of(SEARCH).startswith("Error: target must be an int")
    raised(TypeError("of ours"))
    with pytest.raises(TypeError, match="of ours"):
        run(SEARCH)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("pass `arch`, or `num_classes=10`", "pass --arch, or --num-classes 10"),
        ("only if `trust_pickle=True`", "only if --trust-pickle"),
        ("pass `num_classes=10` (in Python: here(1))", "pass --num-classes 10"),
        ("skip them (`on_error='skip'`)", "skip them (--on-error skip)"),
        ("`output=-1`, not `folder`", "--output -1, not folder"),
        ("a folder `with spaces`", "a folder `with spaces`"),
    ],
)
def test_arguments_become_options(message, said):
    options = {"--arch", "--num-classes", "--trust-pickle", "--on-error", "--output"}
    assert with_options(message, options) == said


@pytest.mark.filterwarnings("default")
def test_warnings_have_the_words_of_the_options(capsys):
    with plain_errors(False, {"--arch", "--num-classes"}):
        warnings.warn("pass `num_classes`", Notice, stacklevel=1)
        warnings.warn("pass `arch`", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "Note: pass --num-classes\nWarning: pass --arch\n"


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
    names = {option.removeprefix("--").replace("-", "_") for option in _options()} - {"*"}
    found = {
        f"{path.relative_to(ROOT)}: {text}": bare
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent.name != "cli"
        for text in messages(ast.parse(path.read_text(encoding="utf-8")))
        if (bare := bare_names(text, names))
    }
    assert not found
