"""Class-wise patterns for Captum: the few pixels of an image that make a classifier predict a
class on as many other images as possible."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import lazy_loader

# names are listed in __init__.pyi and loaded when they are first used: torch takes seconds
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("captum_classpattern")
_RENAMED = {"metrics": "scores"}  # modules of version 0.1


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        return import_module(f"{__name__}.{_RENAMED[name]}")
    return _load(name)
