"""What all tests have in common."""

import pytest
from _pytest.capture import CaptureIO

from captum_classpattern.optimization import acceleration

# these run in the kernels of the notebooks, on the output of a command, and before the tests
collect_ignore_glob = [
    "tutorials/*",
    "check_wheel.py",
    "device/second_device.py",
    "conftest.py",
    "cli/conftest.py",
]
# folders and files of tests that run commands or processes
AS_USERS_DO = {"cli", "device", "project", "test_sweep", "test_sweep_ray"}


@pytest.fixture(autouse=True)
def _searches_use_the_model_as_it_is(monkeypatch, request):
    """So that a slow, plain re-implementation can be followed step by step; the tests of the
    faster copies ask for the rule itself."""
    if not {request.path.parent.name, request.path.stem} & AS_USERS_DO:
        monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ())


@pytest.fixture
def terminal(capsys, monkeypatch):
    """What is captured is written to a terminal, where bars are drawn."""
    monkeypatch.setattr(CaptureIO, "isatty", lambda _: True, raising=False)
    return capsys
