"""What all tests have in common."""

import pytest

from captum_classpattern.optimization import acceleration


@pytest.fixture(autouse=True)
def _searches_use_the_model_as_it_is(monkeypatch):
    """So that a slow, plain re-implementation can be followed step by step; the tests of the
    faster copies ask for the rule itself."""
    monkeypatch.setattr(acceleration, "choose_speedups", lambda *_: ())
