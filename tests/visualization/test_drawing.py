"""What all figures share: settings that are restored, whose figure it is, and broken texts."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook
from notebooks import kernel, run, shows_a_picture
from surveyed import finding

from captum_classpattern import Pattern, plot_grid, plot_patterns
from captum_classpattern.visualization import plot_maps
from captum_classpattern.visualization.curves import plot_curves
from captum_classpattern.visualization.drawing import rc_context, wrap
from captum_classpattern.visualization.heat_map import plot_heat_map

NAME = r"$\frac{$_a"  # names come from files, and are no formulas
IMAGES = torch.rand(9, 1, 8, 8)
INFO = {"class_name": NAME, "power_curve": [[9, 0.5]], "loss_curve": [0.5]}
PATTERN = Pattern(IMAGES[0], IMAGES[1], 0, INFO)
FOUND = {NAME: finding(0, "white", 90, class_name=NAME), "new": finding(0, "white", 9)}


def net(images):
    return images.flatten(1)[:, :3]


MAPS = (IMAGES[:1], [[IMAGES[2]]], [[PATTERN]], [[NAME]])
FIGURES = {
    "curves": lambda **how: plot_curves({NAME: {NAME: [(0.1, 0.5, 0.4, 0.6)]}}, **how),
    "maps": lambda **how: plot_maps(*MAPS, row_names=[NAME], column_names=[NAME], **how),
    "patterns": lambda **how: plot_patterns(net, [PATTERN], IMAGES, [1] * 9, **how),
    "grid": lambda **how: plot_grid(FOUND, **how),
    "heat map": lambda **how: plot_heat_map({NAME: {NAME: 0.5}}, **how),
}


@pytest.mark.parametrize("case", FIGURES)
def test_pyplot_knows_its_figures_only_and_random_states_and_formulas_are_left_alone(case):
    before, state, numpy_state = pyplot.get_fignums(), torch.get_rng_state(), np.random.get_state()
    figure, _ = FIGURES[case](use_pyplot=False)
    assert pyplot.get_fignums() == before
    figure.draw_without_rendering()
    figure, _ = FIGURES[case]()
    assert pyplot.gcf() is figure
    pyplot.close(figure)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])


def test_settings_are_restored_but_pyplot_stays_interactive():
    size, before = matplotlib.rcParams["font.size"], matplotlib.is_interactive()
    try:
        matplotlib.interactive(False)
        with rc_context({"font.size": size + 1}):
            assert matplotlib.rcParams["font.size"] == size + 1
        assert matplotlib.rcParams["font.size"] == size
        assert not matplotlib.is_interactive()
        with rc_context({}):
            matplotlib.interactive(True)  # as the inline backend does when it starts
        assert matplotlib.is_interactive()
    finally:
        matplotlib.interactive(before)


DRAWS = """import torch, captum_classpattern as cp
pattern = cp.Pattern(torch.rand(1, 8, 8), torch.rand(1, 8, 8), 0)
cp.plot_grid([pattern], area=0.1);"""


@pytest.mark.notebook
def test_a_notebook_shows_the_first_figure_and_the_next_one(tmp_path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    with kernel(tmp_path) as client:
        outputs = run(new_notebook(cells=[new_code_cell(DRAWS), new_code_cell(DRAWS)]), client)
    assert sum(map(shows_a_picture, outputs)) == 2


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (2.0, "Saliency"),
        (0.9, "Integrated|Gradients"),
        (0.8, "InputX|Gradient"),
        (0.8, "Layer|GradCam"),
        (1.0, "same mask, |other canvas"),
        (1.0, "one\n|two"),
        (1.0, ""),
    ],
)
def test_texts_are_broken_where_words_end(width, text):
    written = Figure().text(0, 0, text.replace("|", ""), fontsize=9)
    wrap(written, width)
    assert written.get_text().split("\n") == [line.strip() for line in text.split("|")]
