"""What all tests have in common."""

from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.capture import CaptureIO
from perturbed import perturbed

# these run in the kernels of the notebooks, on the output of a command, and before the tests
collect_ignore_glob = [
    "tutorials/*",
    "check_wheel.py",
    "device/second_device.py",
    "conftest.py",
    "cli/conftest.py",
]


def pytest_addoption(parser):
    text = "change each matrix product and convolution by this share, as on another processor"
    parser.addoption("--perturb", type=float, metavar="1e-7", help=text)
    kept, text = Path(__file__).parent / "kept/kept.json", "compare searches with those of a file"
    parser.addoption("--kept", nargs="?", const=kept, metavar="FILE", help=text)


def pytest_configure(config):
    if share := config.getoption("perturb"):
        stack = ExitStack()
        stack.enter_context(perturbed(share))
        config.add_cleanup(stack.close)


@pytest.fixture
def terminal(capsys, monkeypatch):
    """What is captured is written to a terminal, where bars are drawn."""
    monkeypatch.setattr(CaptureIO, "isatty", lambda _: True, raising=False)
    return capsys
