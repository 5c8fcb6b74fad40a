"""Settings of matplotlib while a figure is drawn."""

import matplotlib
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import run, shows_a_picture

from captum_classpattern.visualization.drawing import rc_context

DRAWS = """import torch, captum_classpattern as cp
pattern = cp.Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 0)
cp.plot_grid([pattern], area=0.1);"""


@pytest.fixture
def _not_interactive():
    before = matplotlib.is_interactive()
    matplotlib.interactive(False)
    yield
    matplotlib.interactive(before)


@pytest.mark.usefixtures("_not_interactive")
def test_settings_are_restored_but_pyplot_stays_interactive():
    size = matplotlib.rcParams["font.size"]
    with rc_context({"font.size": size + 1}):
        assert matplotlib.rcParams["font.size"] == size + 1
        assert not matplotlib.is_interactive()
    assert matplotlib.rcParams["font.size"] == size
    assert not matplotlib.is_interactive()
    with rc_context({}):
        matplotlib.interactive(True)  # as the inline backend does when it starts
    assert matplotlib.is_interactive()


@pytest.mark.notebook
def test_a_notebook_shows_the_first_figure_and_the_next_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    outputs = run(new_notebook(cells=[new_code_cell(DRAWS), new_code_cell(DRAWS)]), tmp_path)
    assert sum(map(shows_a_picture, outputs)) == 2
