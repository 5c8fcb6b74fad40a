"""What all tests have in common."""

import os

import pytest
import torch

from captum_classpattern.optimization import acceleration

AS_USERS_DO = ("cli", "project", "sweeps")  # folders of tests that run commands or processes

# a process a core, each with its own thread, and so the processes that they start
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
threads = max(1, torch.get_num_threads() // workers)
torch.set_num_threads(threads)
os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@pytest.fixture(autouse=True)
def _searches_use_the_model_as_it_is(monkeypatch, request):
    """So that a slow, plain re-implementation can be followed step by step; the tests of the
    faster copies ask for the rule itself."""
    if request.path.parent.name not in AS_USERS_DO:
        monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ())
