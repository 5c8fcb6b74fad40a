"""The list of planted bugs fits the package."""

from pathlib import Path

import pytest
from plant import BUGS, planted, read_bugs

ROOT = Path(__file__).resolve().parents[2]
LIST = read_bugs(BUGS)


@pytest.mark.parametrize("bug", LIST, ids=lambda bug: bug["name"])
def test_each_bug_can_be_planted(bug):
    text = planted(bug, ROOT)
    if bug["file"].endswith(".py"):  # others are templates
        compile(text, bug["file"], "exec")
    assert all((ROOT / test).exists() for test in bug["tests"])


def test_each_bug_has_its_own_name():
    assert len({bug["name"] for bug in LIST}) == len(LIST) >= 60
