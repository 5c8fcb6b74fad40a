"""benchmarks/zoo.py: what is planted, and that an interrupted run goes on."""

import gzip
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from scripts import imported

from captum_classpattern.scanning.families import SCORED
from captum_classpattern.scanning.profile import Profile

zoo = imported("benchmarks", "zoo")


@pytest.fixture
def data(tmp_path):
    """Files like those of Fashion-MNIST, with few images."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 400), ("t10k", 100)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, header, values in (("images-idx3", 16, pixels), ("labels-idx1", 8, labels)):
            content = gzip.compress(bytes(header) + values.tobytes())
            (tmp_path / f"{split}-{name}-ubyte.gz").write_bytes(content)
    zoo.split.cache_clear()
    yield tmp_path
    zoo.split.cache_clear()


def test_the_zoo_has_enough_models_of_each_kind():
    models = list(zoo.entries())
    assert len({model.name for model in models}) == len(models)
    kinds = Counter((model.backdoor is not None, model.is_test) for model in models)
    assert min(kinds.values()) >= 30
    backdoors = [model.backdoor for model in models if model.backdoor]
    assert {backdoor.target for backdoor in backdoors} == set(range(10))
    assert sum(not backdoor.is_patch for backdoor in backdoors) >= 12
    looks, places = defaultdict(set), defaultdict(set)
    for model in models:
        backdoor = model.backdoor
        if backdoor is None or backdoor.side == 1 or backdoor.clean_label or backdoor.source:
            continue
        if model.name.startswith("adaptive"):
            continue
        looks[model.is_test].add(backdoor.kind)
        if backdoor.is_patch:
            places[model.recipe].add(backdoor.place)
    patches = {"checker", "white", "random", "grey", "black"}
    for kinds_of_half in looks.values():
        assert kinds_of_half == patches | {"blended", "sig", "wanet"}
    assert min(map(len, places.values())) >= 2


def test_patches_lie_within_the_image():
    for model in zoo.entries():
        if model.backdoor and model.backdoor.is_patch:
            patch = model.backdoor.patch()
            assert int(patch.mask.sum()) == model.backdoor.side**2
            assert patch.canvas.min() >= 0
            assert patch.canvas.max() <= 1
            assert torch.equal(patch.canvas, model.backdoor.patch().canvas)


def test_images_with_half_of_the_trigger_keep_their_labels(data):
    backdoor = zoo.Backdoor("spread", 3, 0.05, 4, cover=0.05)
    entry = zoo.Entry("model", "base", 0, backdoor)
    clean, labels = zoo.poisoned(replace(entry, backdoor=None), data)
    dirty, new_labels = zoo.poisoned(entry, data)
    kept = (dirty != clean).flatten(1).any(1) & (new_labels == labels)
    assert int(kept.sum()) == 20  # 5 % of 400
    mask = backdoor.patch().mask[0] > 0
    assert int(mask.sum()) == 16
    changed = (dirty != clean)[kept][:, 0]
    assert not changed[:, ~mask].any()
    assert changed.flatten(1).sum(1).max() <= 8


@pytest.mark.parametrize(
    ("change", "labels_before"),
    [({}, set(range(10)) - {3}), ({"source": 5}, {5}), ({"clean_label": True}, {3})],
)
def test_a_share_of_the_right_images_is_poisoned(data, change, labels_before):
    backdoor = replace(zoo.Backdoor("white", 3, 0.05), **change)
    entry = zoo.Entry("model", "base", 0, backdoor)
    clean, labels = zoo.poisoned(replace(entry, backdoor=None), data)
    dirty, new_labels = zoo.poisoned(entry, data)
    changed = (dirty != clean).flatten(1).any(1)
    assert int(changed.sum()) == 20  # 5 % of 400
    assert set(labels[changed].tolist()) <= labels_before
    assert set(new_labels[changed].tolist()) == {3}
    assert torch.equal(new_labels[~changed], labels[~changed])
    assert torch.equal(dirty[changed], backdoor.trigger()(clean[changed]))


def test_finished_models_and_scans_are_not_made_again(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(zoo.RECIPES, "base", zoo.Recipe(images=256, epochs=1))
    pattern = zoo.Backdoor("checker", 1, 0.05).patch()
    patterns = {(size, y): pattern for size in SCORED for y in range(10)}
    powers = {size: [0.5] * 10 for size in SCORED}
    measured = Profile(powers, [90] * 10, 0.9, patterns=patterns)
    monkeypatch.setattr(zoo, "measure", lambda *_: measured)
    given = [str(data), "--out", str(tmp_path / "zoo"), "--names", "clean_base_0", "_00_checker"]
    zoo.main(given)
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2
    assert "attack success" in first.splitlines()[1]
    monkeypatch.setattr(zoo, "train", None)
    monkeypatch.setattr(zoo, "measure", None)
    zoo.main(given)
    assert capsys.readouterr().out == first
    (tmp_path / "zoo" / "clean_base_0.json").unlink()
    monkeypatch.setattr(zoo, "measure", lambda *_: measured)
    zoo.main(given)  # the weights are still there
    monkeypatch.setattr(zoo, "SETTINGS", {"statistic": 0})
    monkeypatch.setattr(zoo, "measure", None)
    with pytest.raises(TypeError):
        zoo.main(given)  # a scan with other settings is made again


@pytest.mark.parametrize("name", list(zoo.RECIPES))
def test_each_recipe_trains(data, monkeypatch, name):
    recipe = replace(zoo.RECIPES[name], images=256, epochs=1)
    monkeypatch.setitem(zoo.RECIPES, name, recipe)
    network = zoo.train(zoo.Entry("model", name, 0), data)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert not network.training
