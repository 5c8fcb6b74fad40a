"""A format from outside the package, without a change to it."""

import numpy as np
import pytest
import torch
import torchvision
from checkpoints import said
from extend import TrainingRun
from refusals import refusal
from torch import nn

from captum_classpattern.adapters import (
    CheckpointFile,
    Format,
    LoadedNetwork,
    LoadOptions,
    load_model,
)
from captum_classpattern.adapters.formats import FORMATS

IMAGES = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))


class Folder:
    """A linear classifier as arrays in a folder, which the package does not open."""

    name = "folder"

    def matches(self, file, options):
        return (file.path / "arrays.npz").is_file()

    def load(self, file, options):
        with np.load(file.path / "arrays.npz", allow_pickle=False) as arrays:
            weight, bias, mean = (torch.from_numpy(arrays[key]) for key in ("w", "b", "mean"))
        linear = nn.Linear(*weight.shape[::-1])
        linear.load_state_dict({"weight": weight, "bias": bias})
        network = nn.Sequential(nn.Flatten(), linear)
        return LoadedNetwork(network, mean.tolist(), (1.0,), "the file", input_size=(3, 2, 2))


@pytest.fixture
def run_path(tmp_path):
    network = torchvision.models.squeezenet1_1(num_classes=3).eval()
    content = {
        "model": None,
        "ema": network.state_dict(),
        "names": {1: "dog", 0: "cat", 2: "eel"},
        "train_args": {"model": "squeezenet1_1", "imgsz": 40},
    }
    torch.save(content, tmp_path / "best.pt")
    return network, tmp_path / "best.pt"


def test_a_training_checkpoint(run_path, monkeypatch, snapshot):
    network, path = run_path
    by_itself = load_model(path, format=TrainingRun())
    monkeypatch.setattr("captum_classpattern.adapters.load.FORMATS", (TrainingRun(), *FORMATS))
    by_name = load_model(path, format="training run")
    assert said(by_itself) == snapshot
    for classifier in (by_itself, load_model(path), by_name):
        assert torch.equal(classifier(IMAGES), network(IMAGES))
        assert classifier.class_names == ["cat", "dog", "eel"]
        assert classifier.provenance == by_itself.provenance
    torch.save(network.state_dict(), path)
    classifier = load_model(path, arch="squeezenet1_1", mean=0, std=1)
    assert classifier.provenance["format"] == "plain"


def test_a_folder_as_a_checkpoint(tmp_path, monkeypatch):
    rng, path = np.random.default_rng(0), tmp_path / "model"
    w, b, mean = (rng.random(size, np.float32) for size in ((4, 12), 4, 3))
    assert refusal(lambda: load_model(tmp_path, format=Folder())) == (
        f"ValueError: {tmp_path} does not have the layout of folder: leave out `format`"
    )
    path.mkdir()
    np.savez_compressed(path / "arrays.npz", w=w, b=b, mean=mean)
    by_itself = load_model(path, format=Folder())
    monkeypatch.setattr("captum_classpattern.adapters.load.FORMATS", (Folder(), *FORMATS))
    images = IMAGES[:, :, :2, :2]
    expected = (images.numpy() - mean.reshape(3, 1, 1)).reshape(3, 12) @ w.T + b
    for classifier in (by_itself, load_model(path)):
        torch.testing.assert_close(classifier(images), torch.from_numpy(expected))
        assert classifier.classes is None  # the format does not say how many there are
        assert (classifier.provenance["opened"], classifier.provenance["format"]) == (
            "the format", "folder"
        )  # fmt: skip
        assert "sha256" not in classifier.provenance


@pytest.mark.parametrize("format", [TrainingRun, 3, object(), torch])
def test_something_else_as_a_format(format):
    said = refusal(lambda: load_model("model.pt", format=format))
    methods = "the methods matches(file, options) and load(file, options), got"
    assert said.startswith("ArgumentTypeError: `format` must be ")
    assert f"{methods} {format!r:.80}" in said


@pytest.mark.parametrize("format", FORMATS, ids=[format.name for format in FORMATS])
def test_built_in_formats_match_only_what_is_theirs(format, tmp_path):
    assert isinstance(format, Format)
    torch.save([1, 2], tmp_path / "model.pt")
    matches = format.matches(CheckpointFile(tmp_path / "model.pt"), LoadOptions())
    assert matches == (format.name == "plain") == (format is FORMATS[-1])


def test_a_file_is_opened_once_and_only_if_its_content_is_used(tmp_path):
    file = CheckpointFile(tmp_path / "model.pt")
    torch.save({"net": {"w": torch.rand(2, 2)}}, file.path)
    assert file.opened_by == "the format"
    content = file.content
    assert file.opened_by == "weights_only"
    file.path.unlink()
    assert file.content is content
