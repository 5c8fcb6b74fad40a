"""What the docstring examples may use without importing it."""

from typing import Any

import captum.attr
import pytest
import torch
import torchvision

import captum_classpattern


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    torch.manual_seed(0)
    names = {name: getattr(captum_classpattern, name) for name in captum_classpattern.__all__}
    doctest_namespace.update(names, captum=captum, torch=torch, torchvision=torchvision)
