"""Settings of a search and of its solvers: what is refused, and what results keep."""

import json

import numpy as np
from refusals import refusals

from captum_classpattern.optimization import Cells, Learned, PaperLoop, Swap
from captum_classpattern.optimization.settings import SearchSettings

REFUSALS = {
    "unknown solver": lambda: SearchSettings("adam"),
    "solver that is a class": lambda: SearchSettings(Swap),
    "solver without a name": lambda: SearchSettings(3),
    "unknown precision": lambda: SearchSettings(precision="half"),
    "bfloat16 for the paper's loop": lambda: SearchSettings("paper", precision="bfloat16"),
    "no areas": lambda: SearchSettings(areas=[]),
    "one area without a list": lambda: SearchSettings(areas=0.1),
    "area that is no number": lambda: SearchSettings(areas=[0.1, True]),
    "half a pattern to keep": lambda: SearchSettings(keep=1.5),
    "seed of more than 63 bits": lambda: SearchSettings(seed=2**63),
    "negative alpha": lambda: PaperLoop(alpha=-0.1),
    "steps of 0": lambda: PaperLoop(step_size=0),
    "no proposals": lambda: Swap(proposals=0),
    "more than all swapped": lambda: Swap(swapped=1.1),
    "batches of 1.5 with colours": lambda: Learned(batch_size=1.5),
    "decay of 1": lambda: Swap(decay=1),
    "negative weight": lambda: Learned(weight=-1),
    "cells of one row": lambda: Cells(1),
    "passes of the paper's loop without steps": lambda: PaperLoop().passes(),
}


def test_refusals(snapshot):
    assert refusals(REFUSALS) == snapshot


def test_the_ends_of_the_ranges_are_valid():
    solvers = PaperLoop(1, 1, alpha=0), PaperLoop(alpha=1), Swap(1, 1, 1, decay=0, swapped=1)
    for solver in (*solvers, Learned(1, 1, 1)):
        assert SearchSettings(solver, seed=2**63 - 1, n_steps=1, keep=1, budget=1).solver is solver


def test_areas_are_distinct_floats_and_the_largest_is_searched_first():
    settings = SearchSettings(areas=[np.float32(0.25), 0.5, 0.25])
    assert settings.areas == (0.25, 0.5)
    assert settings.area == settings.as_dict()["area"] == 0.5
    assert settings.as_dict()["areas"] == [0.25, 0.5]
    assert "areas" not in SearchSettings(areas=[0.5, 0.5]).as_dict()


def test_results_hold_the_settings_of_the_solver_and_the_limits_as_plain_numbers():
    loop = PaperLoop(np.uint8(2), np.int32(3), np.float64(0.5), np.float32(0.125))
    limits = {"budget": np.int64(500), "seed": np.uint8(4)}
    settings = SearchSettings(loop, [np.float32(0.25)], np.int64(7), **limits).as_dict()
    assert json.loads(json.dumps(settings)) == settings
    loop = {"epochs": 2, "batch_size": 3, "alpha": 0.5, "step_size": 0.125}
    expected = {"solver": "paper", "solver_settings": loop, "area": 0.25, "budget": 500}
    expected |= {"n_steps": 7, "seed": 4, "precision": "auto"}
    assert settings == expected
    kinds = [type(settings["solver_settings"][name]) for name in ("epochs", "alpha")]
    kinds += [type(settings[name]) for name in ("n_steps", "seed")]
    assert kinds == [int, float, int, int]
    assert SearchSettings(Swap(rounds=9)).as_dict()["n_steps"] is None
