"""The scripts of the scan's evidence: what is planted, trained and scanned once, and the tables."""

import json
import sys
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from command_line import run
from refusals import refusal
from scripts import change, imported, write_cifar10, write_fashion_mnist
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.datasets import load_images
from captum_classpattern.scanning import ReferenceSet
from captum_classpattern.scanning.families import SCORED, SIZES
from captum_classpattern.scanning.profile import SETTINGS, Profile
from captum_classpattern.triggers import BadNets

scan_evidence, scan_rivals, zoo, zoo_cifar10 = imported(
    "benchmarks", "scan_evidence", "scan_rivals", "zoo", "zoo_cifar10"
)
train_references = imported("tutorials", "train_references")


class Net(nn.Module):
    """A linear network of coarse pixels."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, images):
        return self.head(4 * nn.functional.avg_pool2d(images - 0.5, 2).flatten(1))


# ---- tutorials/train_references.py


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    return write_cifar10(tmp_path_factory.mktemp("three"), 40, 3, bars=True) / "train"


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(train_references, "BATCH", 16)
    monkeypatch.setattr(sys, "path", [*sys.path])


def train(images, out, *more, recipes=("adam", "short")):
    given = ["--images", str(images), "--arch", f"{__name__}:Net", "--out", str(out)]
    train_references.main([*given, "--recipes", *recipes, *more])


def test_references_are_trained_once_and_can_be_measured(
    three_classes, small_batches, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "new" / "clean"
    train(three_classes, out, "--models", "2")
    paths = [out / "Net_adam_0.pt", out / "Net_short_1.pt"]
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    assert sorted(out.iterdir()) == paths
    before = [path.read_bytes() for path in paths]
    with monkeypatch.context() as patch:
        patch.setattr(train_references, "train", None)  # would fail
        train(three_classes, out, "--models", "2")
    assert all(line.endswith("is there already") for line in capsys.readouterr().out.splitlines())
    assert [path.read_bytes() for path in paths] == before
    train(three_classes, tmp_path / "again", "--models", "1")
    states = [torch.load(file, weights_only=True) for file in (paths[0], *tmp_path.glob("again/*"))]
    assert states[0]["classes"] == states[1]["classes"] == ["0", "1", "2"]
    for key, value in states[0]["net"].items():
        assert torch.equal(value, states[1]["net"][key])

    train(three_classes, tmp_path / "more", "--models", "3", recipes=("few", "smooth", "long"))
    assert len([*tmp_path.glob("more/*.pt")]) == 3

    references = tmp_path / "references.json"
    opened = ["--arch", f"{__name__}:Net", "--mean", "0", "--std", "1"]
    data = ["--data", str(three_classes), "--out", str(references)]
    result = run(["reference", str(paths[0]), *opened, *data])
    assert result.exit_code == 0, result.output
    found = ReferenceSet.load(references)
    assert list(found.profiles) == ["Net_adam_0"]
    assert (found.n_classes, found.shape) == (3, (3, 32, 32))
    assert min(found.accuracies) > 0.9  # they learnt something


def test_more_models_are_added_in_turn_and_a_checkpoint_is_whole(
    three_classes, small_batches, tmp_path, monkeypatch
):
    trained = []

    def record(network, images, labels, recipe, seed, device, flips):
        assert flips
        trained.append((recipe, seed, device))
        return network

    moved = train_references.os.replace

    def interrupted(source, target):
        if str(target).endswith(".pt"):  # and not of the images' cache
            raise KeyboardInterrupt
        moved(source, target)

    monkeypatch.setattr(train_references, "train", record)
    with monkeypatch.context() as patch:
        patch.setattr(train_references.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(three_classes, tmp_path, "--models", "1")
    assert not list(tmp_path.glob("*.pt"))
    train(three_classes, tmp_path, "--models", "1")
    train(three_classes, tmp_path, "--models", "3")
    adam, short = (train_references.RECIPES[name] for name in ("adam", "short"))
    assert trained[1:] == [(adam, 0, "cpu"), (short, 1, "cpu"), (adam, 2, "cpu")]
    train(three_classes, tmp_path / "longer", "--models", "1", "--epochs", "3")
    assert trained[4] == (adam._replace(epochs=12), 0, "cpu")
    names = {"Net_adam_0.pt", "Net_short_1.pt", "Net_adam_2.pt", "longer"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_too_few_images_and_images_without_folders_are_refused(
    three_classes, tmp_path, capsys, snapshot
):
    """The first recipe takes a fifth of 120 images."""
    given = ["--arch", f"{__name__}:Net", "--models", "1", "--out", str(tmp_path), "--images"]
    assert refusal(lambda: train_references.main([*given, str(three_classes)])) == snapshot
    with pytest.raises(SystemExit, match="2"):
        train_references.main([*given, str(three_classes / "0")])
    assert "/0 has no class folders" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- benchmarks/zoo.py


@pytest.fixture
def data(tmp_path):
    zoo.split.cache_clear()
    yield write_fashion_mnist(tmp_path, 400, 100)
    zoo.split.cache_clear()


OTHERS = {*range(10)} - {3}


@pytest.mark.parametrize(
    ("change", "labels_before", "covered"),
    [
        ({}, OTHERS, 0),
        ({"source": 5}, {5}, 0),
        ({"clean_label": True}, {3}, 0),
        ({"kind": "spread", "side": 4, "cover": 0.05}, OTHERS, 20),
    ],
)
def test_a_share_of_the_right_images_is_poisoned(data, change, labels_before, covered):
    """5 % of 400; a cover has a half of the trigger, and keeps its label."""
    backdoor = replace(zoo.Backdoor("white", 3, 0.05), **change)
    entry = zoo.Entry("model", "base", 0, backdoor)
    clean, labels = zoo.poisoned(replace(entry, backdoor=None), data)
    dirty, new_labels = zoo.poisoned(entry, data)
    stamped, half = (dirty == backdoor.trigger()(clean)).flatten(1).all(1), dirty != clean
    changed = half.flatten(1).any(1)
    stamped, half = stamped & changed, half[changed & ~stamped]
    assert (int(stamped.sum()), len(half)) == (20, covered)
    assert {*labels[stamped].tolist()} <= labels_before
    assert {*new_labels[stamped].tolist()} == {3}
    assert torch.equal(new_labels[~stamped], labels[~stamped])
    mask = backdoor.patch().mask > 0
    assert not half[:, ~mask].any()
    assert (half.flatten(1).sum(1) <= mask.sum() / 2).all()


def test_finished_models_and_scans_are_not_made_again(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(zoo.RECIPES, "base", zoo.Recipe(images=256, epochs=1))
    pattern = zoo.Backdoor("checker", 1, 0.05).patch()
    patterns = {(size, y): pattern for size in SCORED for y in range(10)}
    measured = Profile({size: [0.5] * 10 for size in SCORED}, [90] * 10, 0.9, patterns=patterns)
    change(monkeypatch, zoo, measure=lambda *_: measured, CHANGES=())  # no further families
    given = [str(data), "--out", str(tmp_path / "zoo"), "--names", "clean_base_0", "_00_checker"]
    zoo.main(given)
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2
    assert "attack success" in first.splitlines()[1]
    change(monkeypatch, zoo, train=None, measure=None)
    zoo.main(given)
    assert capsys.readouterr().out == first
    (tmp_path / "zoo" / "clean_base_0.json").unlink()
    monkeypatch.setattr(zoo, "measure", lambda *_: measured)
    zoo.main(given)  # the weights are still there
    change(monkeypatch, zoo, SETTINGS={"statistic": 0}, measure=None)
    with pytest.raises(TypeError):
        zoo.main(given)  # a scan with other settings is made again


@pytest.mark.parametrize("name", list(zoo.RECIPES))
def test_each_recipe_of_the_zoo_trains(data, monkeypatch, name):
    monkeypatch.setitem(zoo.RECIPES, name, replace(zoo.RECIPES[name], images=256, epochs=1))
    network = zoo.train(zoo.Entry("model", name, 0), data)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    assert not network.training


# ---- benchmarks/zoo_cifar10.py


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory):
    return write_cifar10(tmp_path_factory.mktemp("ten"), bars=True)


BACKDOOR = zoo.Backdoor("white", 3, 0.2, 3, "corner", 0)


@pytest.fixture
def two_models(monkeypatch):
    """One clean model and one backdoored model, of a small network that trains briefly."""
    entries = [zoo_cifar10.Entry("small", "few", 0, BACKDOOR), zoo_cifar10.Entry("small", "few", 1)]
    change(monkeypatch, zoo_cifar10, entries=lambda: iter(entries), SHIPPED=())
    monkeypatch.setitem(zoo_cifar10.NETWORKS, "small", lambda: PixelClassifier(Net()))
    recipe = train_references.Recipe(6, optimizer="adam")
    monkeypatch.setitem(zoo_cifar10.RECIPES, "few", recipe)
    monkeypatch.setattr(train_references, "BATCH", 20)
    return entries


def test_the_list_of_cifar10_models():
    models = list(zoo_cifar10.entries())
    assert len({m.name for m in models}) == len({m.seed for m in models}) == len(models) >= 27
    assert sum(model.backdoor is not None for model in models) == 5
    assert {model.recipe for model in models} == set(zoo_cifar10.RECIPES)
    for name in {model.network for model in models}:
        with torch.no_grad():
            logits = zoo_cifar10.NETWORKS[name]().eval()(torch.rand(2, 3, 32, 32))
        assert logits.shape == (2, 10)


def test_the_models_of_the_tutorials_are_scanned_too(ten_classes, tmp_path, monkeypatch):
    scanned = {}

    def measured(path, model, test, record):
        with torch.no_grad():
            assert model(test.images[:2]).shape == (2, 10)
        assert model.class_names == list(test.class_names)
        assert 0.1 <= record["accuracy"] <= 1
        scanned[path.stem] = scan_evidence.Model({"name": path.stem, "record": record})

    change(monkeypatch, zoo_cifar10, measured=measured, report=print)
    zoo_cifar10.main([str(ten_classes), "--out", str(tmp_path), "--names", "shipped_"])
    assert not list(tmp_path.iterdir())  # nothing was trained
    assert [model.recipe for model in scanned.values()] == [*zoo_cifar10.SHIPPED]
    backdoored = scanned.pop("shipped_backdoored")
    assert {model.kind for model in scanned.values()} == {"clean, tutorials"}
    assert backdoored.kind == "all-to-one patch"
    patch, trigger = backdoored.backdoor.patch((3, 32, 32)), BadNets((3, 32, 32))
    assert torch.equal(patch.mask, trigger.mask)
    assert torch.equal(patch.canvas * patch.mask, trigger.canvas)


def test_models_are_trained_and_scanned_once(
    ten_classes, two_models, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "zoo"
    given = [str(ten_classes), "--out", str(out)]
    zoo_cifar10.main(given)
    printed = capsys.readouterr().out
    names = ["backdoored_white_small_few_0", "clean_small_few_1"]
    for name, line in zip(names, printed.splitlines(), strict=True):
        assert line.startswith(f"{name}: trained in ")
        assert ("attack success" in line) == name.startswith("backdoored")
    endings = (".pt", ".json", ".record.json")
    assert {path.name for path in out.iterdir()} == {n + end for n in names for end in endings}
    backdoored, clean = scan_evidence.read(out)  # what the tables are made of
    row = backdoored.row
    assert (backdoored.name, backdoored.recipe, backdoored.backdoor) == (names[0], "few", BACKDOOR)
    assert (clean.name, clean.kind) == (names[1], "clean")
    assert (row["shape"], row["source"]["count"], row["images"]) == ([3, 32, 32], 100, 100)
    assert row["accuracy"] == pytest.approx(row["record"]["accuracy"])  # the same 100 images
    assert {len(row["powers"][str(size)]) for size in SIZES} == {10}
    assert {len(pixel) for pixels in row["shown"].values() for pixel in pixels} == {2 + 3}
    assert set(row["others"]) == {"additive", "warp"}

    def fail(what, *_):
        raise RuntimeError(what)

    monkeypatch.setattr(zoo, "measure", partial(fail, "scans again"))
    monkeypatch.setattr(zoo_cifar10, "train", partial(fail, "trains again"))
    zoo_cifar10.main(given)
    assert capsys.readouterr().out == printed
    # what is missing or has changed is made again
    (out / f"{names[1]}.json").unlink()
    with pytest.raises(RuntimeError, match="scans again"):
        zoo_cifar10.main([*given, "--names", "clean"])
    monkeypatch.setitem(zoo_cifar10.RECIPES, "few", train_references.Recipe(1))
    with pytest.raises(RuntimeError, match="trains again"):
        zoo_cifar10.main([*given, "--names", "backdoored"])


def test_a_backdoor_stays_in_its_own_model(ten_classes, two_models, tmp_path, monkeypatch):
    """The backdoored model comes first here; the clean one must not see the trigger."""
    seen = []

    def record(model, images, labels, recipe, seed):
        seen.append((images.clone(), labels.clone()))
        return model

    change(monkeypatch, zoo_cifar10, train=record, measured=lambda *_: None, report=print)
    zoo_cifar10.main([str(ten_classes), "--out", str(tmp_path), "--limit", "8"])
    data = load_images(ten_classes / "train", limit=8)
    (dirty, dirty_labels), (images, labels) = seen
    assert len(images) == 80
    assert torch.equal(images, data.images)
    assert torch.equal(labels, data.known_labels)
    changed = (dirty != images).flatten(1).any(1)
    assert int(changed.sum()) == 16  # 20 % of 80
    assert set(dirty_labels[changed].tolist()) == {3}
    assert 3 not in labels[changed]
    assert torch.equal(dirty_labels[~changed], labels[~changed])


# ---- benchmarks/scan_evidence.py

USUAL = dict.fromkeys(range(10), 0.1)  # the powers of all patterns of a clean model


def made_up(name, recipe, planted=None, success=None, *, powers=(), seconds=2.0, shown=()):
    """What zoo.py writes of a model, whose powers differ from the usual ones in some classes."""
    entry = {"recipe": recipe, "seed": 0, "backdoor": planted and asdict(planted)}
    record = {"settings": {"entry": entry}, "accuracy": 0.9}
    return {
        "name": name,
        "record": record | ({"attack_success": success} if planted else {}),
        "scan": SETTINGS,
        "powers": {str(size): [*(USUAL | dict(powers)).values()] for size in SIZES},
        "others": {},
        "judged": [90] * 10,
        "accuracy": 0.9,
        "images": 500,
        "source": {"count": 1000, "description": "elsewhere", "hash": "0"},
        "shape": [1, 28, 28],
        "shown": {str(planted.target): list(shown)} if planted else {},
        "seconds": seconds,
    }


def model(*given, **more):
    return scan_evidence.Model(made_up(*given, **more))


def corner(target):
    """A white square in rows and columns 24 to 26."""
    return zoo.Backdoor("white", target, 0.05, 3, "corner")


def test_evidence_by_hand(snapshot):
    """Both patches are suspicious, p = 1/21, the second with the wrong class; they beat the clean
    model. Of the trigger's nine pixels 4 of 6 that are shown are in place, all 6 when shifted (IoU
    4/11 and 6/9), 0.1 too dark; of the second patch none of 3, and all when shifted (3/9)."""
    references = [model(f"clean_{i}", "base") for i in range(20)]
    two_rows = [[i, j, 0.9] for i in (25, 26) for j in (25, 26, 27)]  # one column too far right
    row_of_pixels = [[5, j, 1.0] for j in (5, 6, 7)]
    models = [
        model("patch_0", "noisy", corner(3), 1.0, powers={3: 1.0}, shown=two_rows),
        model("patch_1", "wide", corner(4), 0.95, powers={5: 1.0}, shown=row_of_pixels),
        model("other", "wide"),
    ]
    assert "\n".join(scan_evidence.detections(models, references)) == snapshot
    assert scan_evidence.auroc(models, references) == "1.000"
    assert "\n".join(scan_evidence.shown(models)) == snapshot
    covered = zoo.Backdoor("white", 1, 0.05, cover=0.05)
    attackers = [model("adaptive_0", "wide", covered, 0.5, powers={1: 1.0})]
    assert "\n".join(scan_evidence.adaptive(attackers, references)) == snapshot


def test_kinds_of_models():
    backdoors = {
        "adaptive": ("adaptive_1", zoo.Backdoor("white", 1, 0.05), 0.5),
        "weakly learnt": ("m", zoo.Backdoor("white", 1, 0.05), 0.89),
        "all-to-one patch": ("m", zoo.Backdoor("white", 1, 0.05), 0.9),
        "one-to-one patch": ("m", zoo.Backdoor("white", 1, 0.05, source=2), 1.0),
        "clean-label patch": ("m", zoo.Backdoor("white", 1, 0.05, clean_label=True), 1.0),
        "Blended": ("m", zoo.Backdoor("blended", 1, 0.05), 1.0),
    }
    for kind, (name, backdoor, success) in backdoors.items():
        assert model(name, "base", backdoor, success).kind == kind


# ---- benchmarks/scan_rivals.py


def test_each_rival_scores_all_classes_once(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)).eval()
    change(monkeypatch, scan_rivals, MM_IMAGES=2, N_CLASSES=3)
    change(monkeypatch, scan_rivals, PASSES=1_000)  # the fewest of a search
    change(monkeypatch, scan_rivals, trained=lambda *_: (PixelClassifier(net), {}))
    given = "clean_base_0", tmp_path, tmp_path, tmp_path
    row = scan_rivals.measured(*given)
    names = ["Neural Cleanse", "pixel inversion", "MM-BD", "white canvas, 1 %"]
    assert list(row["scores"]) == list(row["seconds"]) == names
    for scores in row["scores"].values():
        assert len(scores) == 3
        assert np.isfinite(scores).all()
    assert json.loads((tmp_path / "clean_base_0.json").read_text()) == row
    monkeypatch.setattr(scan_rivals, "neural_cleanse", None)  # would fail
    assert scan_rivals.measured(*given) == row


def test_the_models_on_which_detectors_are_compared():
    models = [model("clean_0", "base"), model("clean_9", "base"), model("clean_1", "wide")]
    models[1].row["record"]["settings"]["entry"]["seed"] = scan_rivals.SEEDS
    models += [model("a", "base", corner(0), 1.0), model("b", "wide", corner(0), 1.0)]
    assert [m.name for m in scan_rivals.chosen(models)] == ["clean_0", "clean_1", "b"]
