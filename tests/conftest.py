"""What all tests have in common."""

import pytest

from captum_classpattern import acceleration


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch):
    """No result hangs on how busy the machine is: every model counts as quick enough."""
    monkeypatch.setattr(acceleration, "SMALL", float("inf"))
