"""The scripts beside the package, as the tests import them."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imported(folder, name):
    """A module of a folder of the repository, whose neighbours it finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / folder)
        return importlib.import_module(name)
