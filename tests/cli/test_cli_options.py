"""Every option arrives in the library, whose defaults it has."""

import inspect
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from command_line import run
from own_models import Net
from torch import nn

import captum_classpattern as cp
from captum_classpattern import cli
from captum_classpattern.cli.compare import compare as compare_command
from captum_classpattern.cli.options import CanvasOptions, ComputeOptions, SourceOptions
from captum_classpattern.comparison import compare
from captum_classpattern.optimization.settings import PRECISIONS, SearchSettings
from captum_classpattern.surveys.settings import SurveySettings

OWN = "--arch own_models:Net --mean 0 --std 1 --data images"
SEARCHES = (
    "--classes dog,2,1 --seed 3 --precision full --internal-batch-size 5 --budget 900 --n-steps 7"
)
SURVEYS = f"{SEARCHES} --area 0.1 --area 0.2 --canvases 4 --out new"
SEARCHED = {"seed": 3, "precision": "full", "internal_batch_size": 5, "budget": 900}
SEARCHED |= {"n_steps": 7}
SURVEYED = {**SEARCHED, "classes": [1, 2], "areas": [0.1, 0.2], "folder": Path("new")}
SURVEYED["canvases"] = 4
ARRIVE = {  # the function, the line, and what arrives
    "of the model": (
        "load_model",
        "search m.pt --data images --arch own_models:Net --mean 0.5,0.25,0 --std 1 --output -1 "
        "--class-names names.txt --num-classes 3 --format plain --trust-pickle",
        {"arch": "own_models:Net", "mean": [0.5, 0.25, 0.0], "std": [1.0], "output": -1}
        | {"class_names": ["cat", "dog", "owl"], "num_classes": 3, "format": "plain"}
        | {"trust_pickle": True},
    ),
    "of the images": (
        "load_images",
        f"search named.pt {OWN} --size 9 --limit 5 --seed 3 --root a --download",
        {"size": 9, "limit": 5, "seed": 3, "root": Path("a"), "download": True, "channels": None},
    ),
    "of a search": (
        "survey",
        f"search named.pt {OWN} {SURVEYS}",
        SURVEYED | {"resume": True, "feature_mask": None},
    ),
    "of a sweep": (
        "sweep",
        f"sweep named.pt {OWN} {SURVEYS}",
        SURVEYED | {"engine": "local", "ray_options": None},
    ),
    "of a sweep with Ray": (
        "sweep",
        f"sweep named.pt {OWN} {SURVEYS} --workers 2 --ray=auto "
        """--ray-options '{"num_gpus": 1}'""",
        SURVEYED
        | {"engine": "ray", "address": "auto", "workers": 2, "ray_options": {"num_gpus": 1}},
    ),
    "of methods": (
        "known_methods",
        f"compare named.pt {OWN} {SEARCHES} --methods Saliency,LRP",
        {name: value for name, value in SEARCHED.items() if name != "seed"}
        | {"names": ["Saliency", "LRP"]},
    ),
    "of a comparison": (
        "compare",
        f"compare named.pt {OWN} --classes dog,2 --seed 3 --area 0.2 --max-images 9 --canvases 2 "
        "--white --methods Saliency",
        {"seed": 3, "area": 0.2, "max_images": 9}
        | {"canvas_kinds": ["positive"] * 4 + ["white"] * 2},
    ),
    "of a scan": (
        "scan",
        f"scan named.pt {OWN} --seed 3 --precision full --internal-batch-size 5 --out new",
        {"seed": 3, "precision": "full", "internal_batch_size": 5, "folder": Path("new")},
    ),
}


@pytest.mark.parametrize("case", ARRIVE)
def test_options_arrive(case, monkeypatch):
    given = {}

    def record(*_, **keywords):
        given.update(keywords)
        raise KeyboardInterrupt

    function, line, expected = ARRIVE[case]
    monkeypatch.setattr(cp, function, record)
    monkeypatch.setitem(sys.modules, "ray", object())
    result = run(line)
    assert result.exit_code == 130, result.output
    assert {name: given[name] for name in expected} == expected


class Depthwise(Net):
    """The first weight has one input channel, images have three."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, groups=3, bias=False)


class Repeats(Net):
    """The first weight has three input channels, images have one."""

    def forward(self, images):
        return super().forward(images.reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1))


@pytest.mark.parametrize(("network", "channels"), [(Depthwise, 3), (Repeats, 1), (Net, 3)])
def test_images_have_the_channels_that_the_model_takes(network, channels, tmp_path):
    grey = torch.randint(256, (6, 8, 8), dtype=torch.uint8)
    np.savez(tmp_path / "grey.npz", x=grey.numpy(), y=[0, 0, 1, 1, 2, 2])
    model = cp.PixelClassifier(network().eval(), 0, 1, class_names=["cat", "dog", "owl"])
    for data in ("images", str(tmp_path / "grey.npz")):
        assert SourceOptions(data=data).load_all([model], seed=0).shape == (channels, 8, 8)


def test_of_an_option_that_is_given_twice_the_last_value_counts():
    line = f"search a.pt {OWN} --seed 1 --mean 1 --seed 2 --mean 0.5,0.25 --area 0.1 --area 0.2"
    _, bound, _ = cli.app.parse_args(line)
    assert bound.arguments["searches"].seed == 2
    assert bound.arguments["model"].mean == [0.5, 0.25]
    assert bound.arguments["searches"].areas == [0.1, 0.2]  # can be given several times


def default_of(function, name):
    return inspect.signature(function).parameters[name].default


def test_what_is_not_given_has_the_defaults_of_the_library():
    keywords = ComputeOptions().keywords()
    assert {name: getattr(SearchSettings(), name) for name in keywords} == keywords
    assert SurveySettings.of((3, 8, 8), **CanvasOptions().keywords()) == SurveySettings()


def test_comparisons_score_on_the_same_number_of_images_everywhere():
    assert default_of(compare_command, "max_images") == default_of(compare, "max_images")


def test_the_choices_of_a_precision_are_those_of_the_search():
    assert get_args(get_type_hints(ComputeOptions)["precision"]) == PRECISIONS
