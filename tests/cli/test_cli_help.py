"""The help of all commands, and the versions."""

import platform
import re
import subprocess
import sys

import captum
import numpy
import pytest
import torch
import torchvision
from command_line import run

import captum_classpattern
from captum_classpattern import cli

COMMANDS = [name for group in cli.COMMANDS.values() for name in group]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_all_options_with_their_defaults_and_examples_that_parse(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = run(f"{name} --help")
    printed = " ".join(re.sub("[│*]", " ", result.stdout).split())
    assert result.exit_code == 0
    collected = cli.app[name].assemble_argument_collection()
    for argument in (each for each in collected if each.names[-1].startswith("--")):
        assert argument.names[0] in printed
        default = argument.field_info.default
        if argument.show_default and default not in (None, False, argument.field_info.empty):
            assert f"[default: {default}]" in printed, argument.names
    examples = re.findall(r"^ +classpattern (.*\S)", result.stdout, re.MULTILINE)
    assert examples
    for line in examples:
        cli.app.parse_args(line.replace("my_images", "images"), exit_on_error=False)


def test_without_a_command_the_commands_are_listed():
    assert run("").output == run("--help").output


def test_the_versions_of_what_a_result_depends_on(monkeypatch):
    """Also if a package has another name, such as a build of PyTorch."""
    monkeypatch.setattr(cli, "PACKAGES", (*cli.PACKAGES, "no-such-package"))
    result = run("--version")
    assert result.exit_code == 0
    ours, *others, unknown, python = result.output.strip().splitlines()
    assert ours == f"captum_classpattern {captum_classpattern.__version__}"
    assert others == [f"{m.__name__} {m.__version__}" for m in (captum, torch, torchvision, numpy)]
    assert unknown == "no-such-package of an unknown version"
    assert python.startswith(f"Python {platform.python_version()}, {platform.system()}")


def test_help_and_version_load_nothing_slow():
    code = """
import sys
from captum_classpattern.cli import main
for line in (["--version"], ["--help"], ["search", "--help"]):
    main(line)
slow = ("torch", "torchvision", "captum", "matplotlib", "scipy", "numpy", "PIL", "jinja2")
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
