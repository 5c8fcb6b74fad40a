"""What the docstring examples may use without importing it; one thread for each test process."""

import os
from types import ModuleType
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # processes with many threads each slow one another down
    os.environ["OMP_NUM_THREADS"] = "1"

import captum.attr
import pytest
import torch
import torchvision

import captum_classpattern

LONG_EXAMPLES = (
    "captum_classpattern.scanning.scan.scan",
    "captum_classpattern.adapters.load.load_model",
)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    torch.manual_seed(0)
    names = {name: getattr(captum_classpattern, name) for name in dir(captum_classpattern)}
    names = {name: value for name, value in names.items() if not isinstance(value, ModuleType)}
    doctest_namespace.update(names, captum=captum, torch=torch, torchvision=torchvision)


@pytest.hookimpl(tryfirst=True)  # before those with other marks are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long examples run in CI alone, where the notebooks begin first: they take longest."""
    for item in items:
        if item.name in LONG_EXAMPLES:
            item.add_marker("page")
    items.sort(key=lambda item: item.get_closest_marker("notebook") is None)
