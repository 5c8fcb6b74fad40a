"""Notebooks show every figure, and those that are made with pyplot afterwards."""

import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import run, shows_a_picture

SOURCES = (
    "import torch\nimport captum_classpattern as cp\n"
    "pattern = cp.Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 0)\ncp.plot_grid(pattern);",
    "cp.plot_grid(pattern);",
    "from matplotlib import pyplot\npyplot.plot([0, 1]);",
)


@pytest.mark.notebook
def test_all_figures_are_shown(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = new_notebook(cells=[new_code_cell(source) for source in SOURCES])
    run(notebook, tmp_path)
    assert [any(map(shows_a_picture, cell.outputs)) for cell in notebook.cells] == [True] * 3
