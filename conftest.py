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


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    torch.manual_seed(0)
    names = {name: getattr(captum_classpattern, name) for name in captum_classpattern.__all__}
    names = {name: value for name, value in names.items() if not isinstance(value, ModuleType)}
    doctest_namespace.update(names, captum=captum, torch=torch, torchvision=torchvision)
