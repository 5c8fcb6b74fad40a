"""What all tests have in common."""

import pytest

from captum_classpattern.optimization import acceleration

# these run in the kernels of the notebooks, and on the output of a command
collect_ignore_glob = ["tutorials/*", "demo/check_demo.py"]
AS_USERS_DO = ("cli", "project", "sweeps")  # folders of tests that run commands or processes


@pytest.fixture(autouse=True)
def _searches_use_the_model_as_it_is(monkeypatch, request):
    """So that a slow, plain re-implementation can be followed step by step; the tests of the
    faster copies ask for the rule itself."""
    if request.path.parent.name not in AS_USERS_DO:
        monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ())
