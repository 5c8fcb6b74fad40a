"""Settings: what is refused, what is kept, and how long a search they make."""

import json

import numpy as np
import pytest

from captum_classpattern.optimization.settings import Settings

WHOLE = "must be a whole number from 1, got"


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"solver": "adam"}, "solver must be one of swap, paper, got 'adam'"),
        ({"solver": None}, "solver must be one of swap, paper, got None"),
        ({"precision": "half"}, "precision must be one of auto, full, bfloat16, got 'half'"),
        ({"alpha": -0.1}, r"alpha must lie in \[0, 1\], got -0\.1"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\], got 1\.5"),
        ({"alpha": np.nan}, r"alpha must lie in \[0, 1\], got nan"),
        ({"step_size": 0}, "step_size must be positive, got 0"),
        ({"step_size": -0.5}, r"step_size must be positive, got -0\.5"),
        ({"step_size": np.nan}, "step_size must be positive, got nan"),
        ({"batch_size": 0}, f"batch_size {WHOLE} 0"),
        ({"batch_size": 2.0}, rf"batch_size {WHOLE} 2\.0"),
        ({"n_epochs": 0}, f"n_epochs {WHOLE} 0"),
        ({"n_epochs": True}, f"n_epochs {WHOLE} True"),
        ({"n_steps": -3}, f"n_steps {WHOLE} -3"),
        ({"n_steps": "5"}, f"n_steps {WHOLE} '5'"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 2**63}, "seed must be a whole number from 0 to .*, got 9223372036854775808"),
        ({"seed": 0.5}, r"seed must be a whole number from 0 to .*, got 0\.5"),
        ({"seed": None}, "seed must be a whole number from 0 to .*, got None"),
    ],
)
def test_refused(kwargs, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        Settings(**kwargs)


@pytest.mark.parametrize(
    "kwargs", [{"alpha": 0}, {"alpha": 1}, {"seed": 2**63 - 1}, {"batch_size": 1, "n_steps": 1}]
)
def test_the_ends_of_the_ranges_are_taken(kwargs):
    assert {name: getattr(Settings(**kwargs), name) for name in kwargs} == kwargs


def test_the_first_of_several_is_named():
    with pytest.raises(ValueError, match="solver must"):
        Settings(solver="adam", alpha=2, seed=-1)


@pytest.mark.parametrize("seed", [np.int64(4), np.uint8(4), 4])
def test_numpys_numbers_become_plain(seed):
    given = Settings(
        area=np.float32(0.25),
        alpha=np.float64(0.5),
        step_size=np.float32(0.125),
        batch_size=np.int32(3),
        n_epochs=np.uint8(2),
        n_steps=np.int64(7),
        seed=seed,
    ).as_dict()
    assert json.loads(json.dumps(given)) == given
    assert given == {
        "solver": "swap",
        "area": 0.25,
        "alpha": 0.5,
        "step_size": 0.125,
        "batch_size": 3,
        "n_epochs": 2,
        "n_steps": 7,
        "seed": 4,
        "precision": "auto",
    }
    kinds = {name: type(value) for name, value in given.items()}
    assert [kinds[name] for name in ("area", "alpha", "step_size")] == [float] * 3
    assert [kinds[name] for name in ("batch_size", "n_epochs", "n_steps", "seed")] == [int] * 4


def test_what_is_not_given_stays_open():
    open_ones = Settings().as_dict()
    assert [open_ones[name] for name in ("batch_size", "n_epochs", "n_steps")] == [None] * 3


# 10 baselines, 7 of them not of the target's class
@pytest.mark.parametrize(
    ("kwargs", "sizes", "signs"),
    [
        ({"solver": "paper"}, [4] * 10, 10),  # 5 epochs of 2 batches
        ({"solver": "paper", "n_epochs": 3}, [4] * 6, 6),
        ({"solver": "paper", "n_epochs": 3, "batch_size": 3}, [3] * 9, 9),
        ({"solver": "paper", "n_epochs": 3, "n_steps": 2}, [4] * 2, 2),
        ({}, [4] * 400 + [16] * 80, 400),
        ({"n_steps": 3}, [4] * 15 + [16] * 3, 15),
        ({"n_steps": 3, "n_epochs": 9, "batch_size": 2}, [4] * 15 + [2] * 3, 15),
        ({"n_epochs": 3}, [4] * 15 + [16] * 3, 15),
        ({"n_epochs": 3, "batch_size": 5}, [4] * 30 + [5] * 6, 30),  # of all 10 baselines
    ],
)
def test_batch_sizes(kwargs, sizes, signs):
    assert Settings(**kwargs).batch_sizes(10, 7) == (sizes, signs)
