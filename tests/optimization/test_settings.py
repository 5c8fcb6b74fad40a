"""Settings of a search and of its solvers: what is refused, and what results keep."""

import json

import numpy as np
import pytest

from captum_classpattern.optimization import SOLVERS, PaperLoop, Swap
from captum_classpattern.optimization.settings import SearchSettings

WHOLE = "must be a whole number from 1, got"


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"solver": "adam"}, rf"solver must be one of {', '.join(SOLVERS)}, or .*, got 'adam'"),
        ({"precision": "half"}, "`precision` must be one of auto, full, bfloat16, got 'half'"),
        ({"n_steps": -3}, f"`n_steps` {WHOLE} -3"),
        ({"n_steps": "5"}, f"`n_steps` {WHOLE} '5'"),
        ({"budget": 0}, f"`budget` {WHOLE} 0"),
        ({"keep": 1.5}, rf"`keep` {WHOLE} 1\.5"),
        ({"areas": []}, r"`areas` must hold at least one area, as in \[0\.05\], got \[\]"),
        ({"areas": 0.1}, r"`areas` must hold at least one area, as in \[0\.05\], got 0\.1"),
        ({"max_seconds": 0}, "`max_seconds` must be a number above 0, got 0"),
        ({"max_seconds": "1"}, "`max_seconds` must be a number above 0, got '1'"),
        ({"max_seconds": np.nan}, "`max_seconds` must be a number above 0, got nan"),
        ({"seed": -1}, r"`seed` must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, "`seed` must be a whole number from 0 to .*, got 9223372036854775808"),
        ({"seed": 0.5}, r"`seed` must be a whole number from 0 to .*, got 0\.5"),
        ({"seed": None}, "`seed` must be a whole number from 0 to .*, got None"),
        (
            {"solver": "paper", "precision": "bfloat16"},
            "`precision='bfloat16'` is not for `solver='paper'`, which uses the model as it is: .*",
        ),
    ],
)
def test_refused(kwargs, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        SearchSettings(**kwargs)


class Unnamed:
    def run(self, search):
        yield


@pytest.mark.parametrize("solver", [None, 3, "Swap", Swap, Unnamed()])
def test_a_solver_is_a_known_name_or_an_object_with_all_parts(solver):
    with pytest.raises(
        (TypeError, ValueError), match="or an object with name, accelerates, run such as"
    ):
        SearchSettings(solver=solver)


@pytest.mark.parametrize(
    ("solver", "kwargs", "text"),
    [
        (PaperLoop, {"alpha": -0.1}, r"`alpha` must lie in \[0, 1\], got -0\.1"),
        (PaperLoop, {"alpha": 1.5}, r"`alpha` must lie in \[0, 1\], got 1\.5"),
        (PaperLoop, {"alpha": np.nan}, r"`alpha` must lie in \[0, 1\], got nan"),
        (PaperLoop, {"step_size": 0}, "step_size must be positive, got 0"),
        (PaperLoop, {"step_size": -0.5}, r"step_size must be positive, got -0\.5"),
        (PaperLoop, {"step_size": np.nan}, "step_size must be positive, got nan"),
        (PaperLoop, {"batch_size": 0}, f"`batch_size` {WHOLE} 0"),
        (PaperLoop, {"batch_size": 2.0}, rf"`batch_size` {WHOLE} 2\.0"),
        (PaperLoop, {"epochs": 0}, f"`epochs` {WHOLE} 0"),
        (PaperLoop, {"epochs": True}, f"`epochs` {WHOLE} True"),
        (Swap, {"rounds": 0}, f"`rounds` {WHOLE} 0"),
        (Swap, {"batch_size": 1.5}, rf"`batch_size` {WHOLE} 1\.5"),
        (Swap, {"proposals": 0}, f"`proposals` {WHOLE} 0"),
        (Swap, {"decay": 1}, r"decay must lie in \[0, 1\), got 1"),
        (Swap, {"swapped": 0}, r"swapped must lie in \(0, 1\], got 0"),
    ],
)
def test_settings_of_solvers_that_are_refused(solver, kwargs, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        solver(**kwargs)


@pytest.mark.parametrize("kwargs", [{"alpha": 0}, {"alpha": 1}, {"batch_size": 1, "epochs": 1}])
def test_the_ends_of_the_ranges_are_valid(kwargs):
    loop = PaperLoop(**kwargs)
    assert {name: getattr(loop, name) for name in kwargs} == kwargs
    assert SearchSettings(seed=2**63 - 1, n_steps=1).seed == 2**63 - 1


def test_areas_are_distinct_floats_and_the_largest_is_searched_first():
    settings = SearchSettings(areas=[np.float32(0.25), 0.5, 0.25])
    assert settings.areas == (0.25, 0.5)
    assert settings.area == settings.as_dict()["area"] == 0.5
    assert settings.as_dict()["areas"] == [0.25, 0.5]
    assert "areas" not in SearchSettings(areas=[0.5, 0.5]).as_dict()


def test_the_first_of_several_errors_is_named():
    with pytest.raises(ValueError, match="solver must"):
        SearchSettings(solver="adam", precision="half", seed=-1)


@pytest.mark.parametrize("seed", [np.int64(4), np.uint8(4), 4])
def test_numpys_numbers_become_plain(seed):
    loop = PaperLoop(np.uint8(2), np.int32(3), np.float64(0.5), np.float32(0.125))
    settings = SearchSettings(loop, [np.float32(0.25)], np.int64(7), seed).as_dict()
    assert json.loads(json.dumps(settings)) == settings
    assert settings == {
        "solver": "paper",
        "solver_settings": {"epochs": 2, "batch_size": 3, "alpha": 0.5, "step_size": 0.125},
        "area": 0.25,
        "budget": None,
        "n_steps": 7,
        "max_seconds": None,
        "seed": 4,
        "precision": "auto",
    }
    kinds = [type(value) for value in settings["solver_settings"].values()]
    assert kinds == [int, int, float, float]
    assert [type(settings[name]) for name in ("area", "n_steps", "seed")] == [float, int, int]


def test_results_hold_the_settings_of_the_solver_and_the_limits():
    settings = SearchSettings(Swap(rounds=9), budget=500, max_seconds=np.float32(2)).as_dict()
    assert settings["n_steps"] is None
    assert settings["solver_settings"]["rounds"] == 9
    assert (settings["budget"], settings["max_seconds"]) == (500, 2.0)
    assert json.loads(json.dumps(settings)) == settings
