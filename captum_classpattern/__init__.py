"""Class-wise patterns for Captum: the few pixels of an image that make a classifier predict a
class on as many other images as possible (Zhao et al. 2021, arXiv 2101.06898).

``explain_class`` is the place to start: ``explain_class(model, images, labels, target="dog")``.

- ``explain_class``: the pattern of one class, its power on held-out images, and its controls
- ``survey``: the patterns of all classes; ``explore`` shows them in a notebook
- ``scan``: is a model backdoored? A verdict with a p-value
- ``compare``: Captum's methods and others on the same images
- ``sweep``: many models, on one machine or many
- ``ClassPattern``: the search as a ``captum.attr.Attribution``
- ``load_model``, ``load_images``: from checkpoints and folders
"""

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any

import lazy_loader

# names are listed in __init__.pyi and loaded when they are first used: torch takes seconds
_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("captum_classpattern")
_RENAMED = {  # modules of older versions
    "comparison.randomisation": "comparison.sanity",
    "explorer": "pages.explorer",
    "invariance": "scores.invariance",
    "metrics": "scores",
    "report": "pages",
    "sweeps": "surveys",
}


class _Renamed(ModuleType):
    """A module of an older version, which has the names of its successor."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(f"{__package__}.{_RENAMED[self.__name__]}"), name)


sys.modules |= {f"{__name__}.{old}": _Renamed(old) for old in _RENAMED}


def __getattr__(name: str) -> Any:
    return sys.modules[f"{__name__}.{name}"] if name in _RENAMED else _load(name)
