"""What all tests have in common."""

import pytest
from _pytest.capture import CaptureIO

# these run in the kernels of the notebooks, on the output of a command, and before the tests
collect_ignore_glob = [
    "tutorials/*",
    "check_wheel.py",
    "device/second_device.py",
    "conftest.py",
    "cli/conftest.py",
]


@pytest.fixture
def terminal(capsys, monkeypatch):
    """What is captured is written to a terminal, where bars are drawn."""
    monkeypatch.setattr(CaptureIO, "isatty", lambda _: True, raising=False)
    return capsys
