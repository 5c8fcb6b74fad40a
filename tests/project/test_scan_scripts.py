"""The scripts that train references and CIFAR-10 models, and the tables of the scan's evidence."""

import json
import sys
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from command_line import run
from scripts import imported
from torch import nn

from captum_classpattern import PixelClassifier
from captum_classpattern.datasets import load_images
from captum_classpattern.scanning import ReferenceSet
from captum_classpattern.scanning.families import SIZES
from captum_classpattern.scanning.profile import SETTINGS
from captum_classpattern.triggers import BadNets

zoo = imported("benchmarks", "zoo")
zoo_cifar10 = imported("benchmarks", "zoo_cifar10")
scan_evidence = imported("benchmarks", "scan_evidence")
train_references = imported("tutorials", "train_references")

SIDE = 32


class Net(nn.Module):
    """A linear network of coarse pixels."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, images):
        return self.head(4 * nn.functional.avg_pool2d(images - 0.5, 2).flatten(1))


def write_images(folder, classes, per_class, seed=0):
    """Noise with a bright bar for each class, which a mirror does not move."""
    generator = torch.Generator().manual_seed(seed)
    height = SIDE // classes
    for y in range(classes):
        path = folder / f"{y}_class"
        path.mkdir(parents=True)
        for i in range(per_class):
            image = 0.3 * torch.rand(3, SIDE, SIDE, generator=generator)
            image[:, height * y : height * (y + 1)] += 0.6
            torchvision.io.write_png((image * 255).byte(), str(path / f"{i:02}.png"))
    return folder


def state_of(path):
    return torch.load(path, weights_only=True)["net"]


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key])


# ---- tutorials/train_references.py


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("three") / "images", 3, 40)


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(train_references, "BATCH", 16)
    monkeypatch.setattr(sys, "path", [*sys.path])


def train(images, out, *more):
    given = ["--images", str(images), "--arch", f"{__name__}:Net", "--out", str(out)]
    train_references.main([*given, "--recipes", "adam", "short", *more])


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

    references = tmp_path / "references.json"
    opened = ["--arch", f"{__name__}:Net", "--mean", "0", "--std", "1"]
    data = ["--data", str(three_classes), "--out", str(references)]
    result = run(["reference", *map(str, paths), *opened, *data])
    assert result.exit_code == 0, result.output
    found = ReferenceSet.load(references)
    assert list(found.profiles) == ["Net_adam_0", "Net_short_1"]
    assert (found.n_classes, found.shape) == (3, (3, SIDE, SIDE))
    assert min(found.accuracies) > 0.9  # they learnt something


def test_more_models_are_added_in_turn(three_classes, small_batches, tmp_path, monkeypatch):
    trained = []

    def record(network, images, labels, recipe, seed, device, flips):
        assert flips
        trained.append((recipe, seed, device))
        return network

    monkeypatch.setattr(train_references, "train", record)
    train(three_classes, tmp_path, "--models", "1")
    train(three_classes, tmp_path, "--models", "3")
    adam, short = (train_references.RECIPES[name] for name in ("adam", "short"))
    assert trained == [(adam, 0, "cpu"), (short, 1, "cpu"), (adam, 2, "cpu")]
    train(three_classes, tmp_path / "longer", "--models", "1", "--epochs", "3")
    assert trained[3] == (adam._replace(epochs=12), 0, "cpu")
    assert {path.name for path in tmp_path.iterdir()} == {
        "Net_adam_0.pt", "Net_short_1.pt", "Net_adam_2.pt", "longer",
    }  # fmt: skip


def test_the_same_model_gets_the_same_weights(three_classes, small_batches, tmp_path):
    for name in ("one", "other"):
        train(three_classes, tmp_path / name, "--models", "1")
    one, other = (state_of(tmp_path / name / "Net_adam_0.pt") for name in ("one", "other"))
    assert_same_weights(one, other)


def test_what_has_the_name_of_a_checkpoint_is_whole(
    three_classes, small_batches, tmp_path, monkeypatch
):
    monkeypatch.setattr(train_references, "train", lambda network, *_, **__: network)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_references.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(three_classes, tmp_path, "--models", "1")
    assert not list(tmp_path.glob("*.pt"))
    train(three_classes, tmp_path, "--models", "1")
    content = torch.load(tmp_path / "Net_adam_0.pt", weights_only=True)
    assert content["classes"] == ["0_class", "1_class", "2_class"]
    assert [path.name for path in tmp_path.iterdir()] == ["Net_adam_0.pt"]


@pytest.mark.parametrize("recipe", list(train_references.RECIPES))
def test_every_recipe_trains(recipe, small_batches, three_classes):
    images = load_images(three_classes)
    network = Net(3)
    before = network.head.weight.detach().clone()
    trained = train_references.train(
        network, images.images, images.known_labels, train_references.RECIPES[recipe], 0
    )
    assert not trained.training
    assert trained.head.weight.isfinite().all()
    assert not torch.equal(trained.head.weight, before)


def test_too_few_images_are_refused(three_classes, tmp_path):
    """The first recipe takes a fifth of 120 images."""
    given = ["--images", str(three_classes), "--arch", f"{__name__}:Net", "--models", "1"]
    with pytest.raises(ValueError, match="24 images are less than a batch of 128: give more"):
        train_references.main([*given, "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_images_without_class_folders_are_refused(three_classes, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train(three_classes / "0_class", tmp_path)
    assert stopped.value.code == 2
    assert "has no class folders" in capsys.readouterr().err


def test_images_are_moved_by_at_most_an_eighth():
    torch.manual_seed(0)
    images = torch.zeros(40, 1, 16, 16)
    images[:, :, 8, 3] = 1.0
    mirrored = train_references.augmented(images, flips=True, crops=False)
    places = {tuple(place) for place in mirrored[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(8, 3), (8, 12)}
    moved = train_references.augmented(images, flips=True, crops=True)
    assert moved.shape == images.shape
    rows, columns = moved[:, 0].nonzero()[:, 1:].T.tolist()
    assert set(rows) == {6, 7, 8, 9, 10}
    assert set(columns) == {1, 2, 3, 4, 5, 10, 11, 12, 13, 14}


# ---- benchmarks/zoo_cifar10.py


@pytest.fixture(scope="module")
def ten_classes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ten")
    write_images(folder / "train", 10, 20)
    write_images(folder / "test", 10, 10, seed=1)
    return folder


BACKDOOR = zoo.Backdoor("white", 3, 0.2, 3, "corner", 0)


@pytest.fixture
def two_models(monkeypatch):
    """One clean model and one backdoored model, of a small network that trains briefly."""
    entries = [zoo_cifar10.Entry("small", "few", 0, BACKDOOR), zoo_cifar10.Entry("small", "few", 1)]
    monkeypatch.setattr(zoo_cifar10, "entries", lambda: iter(entries))
    monkeypatch.setattr(zoo_cifar10, "SHIPPED", ())
    monkeypatch.setitem(zoo_cifar10.NETWORKS, "small", lambda: PixelClassifier(Net()))
    recipe = train_references.Recipe(6, optimizer="adam")
    monkeypatch.setitem(zoo_cifar10.RECIPES, "few", recipe)
    monkeypatch.setattr(train_references, "BATCH", 20)
    return entries


def test_the_list_of_models():
    models = list(zoo_cifar10.entries())
    assert len({model.name for model in models}) == len({model.seed for model in models})
    assert len({model.name for model in models}) == len(models)
    assert sum(model.backdoor is None for model in models) >= 22
    assert sum(model.backdoor is not None for model in models) == 5
    assert {model.network for model in models} == set(zoo_cifar10.NETWORKS)
    assert {model.recipe for model in models} == set(zoo_cifar10.RECIPES)
    assert len({model.network for model in models[:4]}) == 4  # any first few are mixed


@pytest.mark.parametrize("name", list(zoo_cifar10.NETWORKS))
def test_the_networks_classify_small_images(name):
    model = zoo_cifar10.NETWORKS[name]().eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", zoo_cifar10.SHIPPED)
def test_the_models_of_the_tutorials_have_a_record(name, ten_classes):
    test = load_images(ten_classes / "test", limit=1)
    model, record = zoo_cifar10.shipped(name, test)
    assert model.class_names == list(test.class_names)
    with torch.no_grad():
        assert model(test.images).shape == (10, 10)
    assert 0.1 <= record["accuracy"] <= 1
    made = scan_evidence.Model({"name": f"shipped_{name}", "record": record})
    assert made.recipe == name
    assert made.kind == ("all-to-one patch" if name == "backdoored" else "clean, tutorials")
    if made.backdoor is not None:
        planted, trigger = made.backdoor.patch((3, 32, 32)), BadNets((3, 32, 32))
        assert torch.equal(planted.mask, trigger.mask)
        assert torch.equal(planted.canvas * planted.mask, trigger.canvas)


def test_models_of_the_tutorials_are_scanned_too(ten_classes, two_models, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo_cifar10, "SHIPPED", ("natural", "robust8"))
    scanned = []
    monkeypatch.setattr(zoo_cifar10, "measured", lambda path, *_: scanned.append(path.name))
    monkeypatch.setattr(zoo_cifar10, "report", lambda row: None)
    zoo_cifar10.main([str(ten_classes), "--out", str(tmp_path), "--names", "robust"])
    assert scanned == ["shipped_robust8.json"]
    assert not list(tmp_path.iterdir())  # nothing was trained


def test_models_are_trained_and_scanned_once(
    ten_classes, two_models, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "zoo"
    given = [str(ten_classes), "--out", str(out)]
    zoo_cifar10.main(given)
    printed = capsys.readouterr().out
    backdoored, clean = printed.splitlines()
    assert backdoored.startswith("backdoored_white_small_few_0: trained in ")
    assert "attack success" in backdoored
    assert "attack success" not in clean
    names = ["backdoored_white_small_few_0", "clean_small_few_1"]
    endings = (".pt", ".json", ".record.json")
    assert {path.name for path in out.iterdir()} == {
        n + ending for n in names for ending in endings
    }
    row = json.loads((out / f"{names[0]}.json").read_text())
    assert row["record"]["settings"][0] == asdict(two_models[0])
    assert row["scan"] == SETTINGS
    assert (row["shape"], row["source"]["count"], row["images"]) == ([3, 32, 32], 100, 100)
    assert set(row["powers"]) == {str(size) for size in SIZES}
    assert set(row["others"]) == {"additive", "warp"}
    assert {len(values) for values in row["powers"].values()} == {10}
    assert {len(pixel) for pixels in row["shown"].values() for pixel in pixels} == {2 + 3}
    assert row["accuracy"] == pytest.approx(row["record"]["accuracy"])  # the same 100 images
    content = torch.load(out / f"{names[1]}.pt", weights_only=True)
    assert content["classes"] == [f"{y}_class" for y in range(10)]

    def fail(what, *_):
        raise RuntimeError(what)

    monkeypatch.setattr(zoo, "measure", partial(fail, "scans again"))
    monkeypatch.setattr(zoo_cifar10, "train", partial(fail, "trains again"))
    zoo_cifar10.main(given)
    assert capsys.readouterr().out == printed
    # the rows are what the tables are made of
    models = scan_evidence.read(out)
    assert [(model.name, model.recipe) for model in models] == [(name, "few") for name in names]
    assert models[0].backdoor == BACKDOOR
    assert models[1].kind == "clean"
    assert scan_evidence.reference_set(models[1:]).shape == (3, 32, 32)
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

    monkeypatch.setattr(zoo_cifar10, "train", record)
    monkeypatch.setattr(zoo_cifar10, "measured", lambda path, model, test, record: path.stem)
    monkeypatch.setattr(zoo_cifar10, "report", lambda row: None)
    zoo_cifar10.main([str(ten_classes), "--out", str(tmp_path), "--limit", "15"])
    data = load_images(ten_classes / "train", limit=15)
    (dirty, dirty_labels), (images, labels) = seen
    assert len(images) == 150
    assert torch.equal(images, data.images)
    assert torch.equal(labels, data.known_labels)
    changed = (dirty != images).flatten(1).any(1)
    assert int(changed.sum()) == 30  # 20 % of 150
    assert set(dirty_labels[changed].tolist()) == {3}
    assert set(labels[changed].tolist()) == set(range(10)) - {3}
    assert torch.equal(dirty_labels[~changed], labels[~changed])


# ---- benchmarks/scan_evidence.py

USUAL = 0.1  # power of all patterns of a clean model
FAMILIES = ("additive", "warp")


def powers_with(changes):
    return [changes.get(y, USUAL) for y in range(10)]


def made_up(
    name, recipe, *, backdoor=None, success=None, powers=(), others=(), accuracy=0.9, seconds=2.0,
    shown=(), shape=(1, 28, 28), as_list=False,
):  # fmt: skip
    """What zoo.py writes of a model; powers differ from the usual ones in the given classes."""
    entry = {"recipe": recipe, "backdoor": backdoor and asdict(backdoor)}
    record = {"settings": [entry, {}] if as_list else {"entry": entry}, "accuracy": accuracy}
    if backdoor is not None:
        record["attack_success"] = success
    changed = {name: dict(others).get(name, {}) for name in FAMILIES}
    return {
        "name": name,
        "record": record,
        "scan": SETTINGS,
        "powers": {str(size): powers_with(dict(powers)) for size in SIZES},
        "others": {name: powers_with(changes) for name, changes in changed.items()},
        "judged": [90] * 10,
        "accuracy": accuracy,
        "images": 500,
        "source": {"count": 1000, "description": "elsewhere", "hash": "0"},
        "shape": list(shape),
        "shown": {str(backdoor.target): list(shown)} if backdoor else {},
        "seconds": seconds,
    }


def corner(target):
    """A white square in rows and columns 24 to 26."""
    return zoo.Backdoor("white", target, 0.05, 3, "corner")


def made_up_zoo():
    """Ten clean models of each of five recipes, and some others. Two clean models have a strong
    class 0: the first of recipe base, and with a little less power the first of recipe wide. One
    clean model of the test half is far better than all others."""
    rows = []
    for recipe in ("base", "plain", "smooth", "wide", "shifted"):
        rows += [made_up(f"clean_{recipe}_{i}", recipe) for i in range(10)]
    by_name = {row["name"]: row for row in rows}
    by_name["clean_base_0"] |= {
        "powers": {str(size): powers_with({0: 0.9}) for size in SIZES},
        "seconds": 1.0,
    }
    by_name["clean_wide_0"]["powers"] = {str(size): powers_with({0: 0.8}) for size in SIZES}
    by_name["clean_shifted_9"]["accuracy"] = 0.99
    row_of_pixels = [[5, j, 1.0] for j in (5, 6, 7)]
    half_inside = [
        [24, 24, 1.0],
        [25, 24, 0.8],
        [26, 24, 0.6],
        [0, 0, 0.0],
        [0, 9, 0.0],
        [9, 0, 0.0],
    ]
    two_rows = [[i, j, 0.9] for i in (25, 26) for j in (25, 26, 27)]  # one column too far right
    return [
        *rows,
        # found; found with the wrong class; not found
        made_up(
            "backdoored_0", "noisy", backdoor=corner(3), success=1.0, powers={3: 1.0}.items(),
            shown=two_rows, seconds=5.0,
        ),
        made_up(
            "backdoored_1", "noisy", backdoor=corner(4), success=0.95, powers={5: 1.0}.items(),
            shown=row_of_pixels,
        ),
        made_up(
            "backdoored_2", "shifted", backdoor=corner(0), success=0.95, shown=half_inside,
        ),
        made_up(
            "backdoored_3", "noisy", backdoor=corner(6), success=0.5, powers={6: 1.0}.items(),
        ),
        made_up(
            "backdoored_4", "noisy", backdoor=zoo.Backdoor("blended", 7, 0.05), success=0.99,
            others={"additive": {7: 1.0}}.items(),
        ),
        made_up(
            "adaptive_0", "wide", backdoor=zoo.Backdoor("spread", 8, 0.05, 3), success=0.95,
            powers={8: 0.85}.items(),
        ),
        made_up(
            "adaptive_1", "wide", backdoor=zoo.Backdoor("random", 0, 0.05, 4, cover=0.05),
            success=0.5,
        ),
    ]  # fmt: skip


def made_up_cifar10():
    make = partial(made_up, shape=(3, 32, 32), as_list=True)
    rows = [make(f"clean_{i}", "few") for i in range(20)]
    planted = {"backdoor": zoo.Backdoor("grey", 2, 0.05), "success": 0.97}
    rows.append(make("backdoored_0", "few", powers={2: 1.0}.items(), **planted))
    return [*rows, make("shipped_natural", "natural", powers={4: 0.5}.items())]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The made-up zoos, as the scripts leave them."""
    folders = []
    for name, rows in (("zoo", made_up_zoo()), ("cifar10", made_up_cifar10())):
        folders.append(tmp_path_factory.mktemp(name))
        for row in rows:
            (folders[-1] / f"{row['name']}.json").write_text(json.dumps(row))
        (folders[-1] / "clean_0.record.json").write_text('{"settings": [], "accuracy": 0.5}')
        (folders[-1] / "weights.pt").write_bytes(b"")
    return folders


@pytest.fixture(scope="module")
def tables(folders):
    """The rows of each table by its title, without the header."""
    zoo_models, cifar10 = map(scan_evidence.read, folders)
    return {
        title: [cells(line) for line in list(lines)[1:]]
        for title, lines in scan_evidence.tables(zoo_models, cifar10)
    }


def cells(line):
    """The cells of a row, or the text below a table."""
    return [cell.strip() for cell in line.split("|")[1:-1]] if line.startswith("|") else line


def test_only_scans_are_read(folders):
    assert [len(scan_evidence.read(folder)) for folder in folders] == [57, 22]


def test_kinds_of_models(folders):
    kinds = {model.name: model.kind for model in scan_evidence.read(folders[0])}
    assert kinds["clean_base_0"] == "clean"
    assert kinds["backdoored_0"] == "all-to-one patch"
    assert kinds["backdoored_3"] == "weakly learnt"
    assert kinds["backdoored_4"] == "Blended"
    assert kinds["adaptive_0"] == kinds["adaptive_1"] == "adaptive"
    planted = (
        zoo.Backdoor("white", 1, 0.05, source=2),
        zoo.Backdoor("white", 1, 0.05, clean_label=True),
    )
    for backdoor, kind in zip(planted, ("one-to-one patch", "clean-label patch")):
        row = made_up("m", "base", backdoor=backdoor, success=1.0)
        assert scan_evidence.Model(row).kind == kind


def test_detections_with_references_of_the_other_recipes(tables):
    """The references are 30 models. The first of them has more power than the strongest clean model
    of the test half, and than the spread trigger, so that these have p = 2/31."""
    # area: the two strong patches beat all 20 clean models, the third ties with 19 and loses once
    assert (2 * 20 + 19 / 2) / 60 == 0.825
    assert tables["Test half, references of the other recipes"] == [
        ["Blended", "0 of 1 (0% to 79%)", "0 of 1 (0% to 79%)", "0", "0 of 1"],
        ["adaptive", "0 of 2 (0% to 66%)", "0 of 2 (0% to 66%)", "0", "1 of 2"],
        ["all-to-one patch", "2 of 3 (21% to 94%)", "1 of 3 (6% to 79%)", "0", "1 of 3"],
        ["clean", "0 of 20 (0% to 16%)", "", "1", ""],
        ["weakly learnt", "1 of 1 (21% to 100%)", "1 of 1 (21% to 100%)", "0", "1 of 1"],
        "",
        "AUROC of all-to-one patches: 0.825",
    ]


def test_detections_with_further_families(tables):
    """With one family, of 49 or 50 references one has more power than the strongest clean model: p
    = 2/50. With two the lowest p is 2/51, and three would take 59 references."""
    found = tables["Test half, all clean models as references"]
    assert found == [
        ["Blended", "0 of 1 (0% to 79%)", "1 of 1 (21% to 100%)", *["0 of 1 (0% to 79%)"] * 2],
        ["adaptive", "1 of 2 (9% to 91%)", *["0 of 2 (0% to 66%)"] * 3],
        ["all-to-one patch", *["1 of 3 (6% to 79%)"] * 3, "0 of 3 (0% to 56%)"],
        ["clean", "1 of 20 (1% to 24%)", *["0 of 20 (0% to 16%)"] * 3],
        ["weakly learnt", *["1 of 1 (21% to 100%)"] * 3, "0 of 1 (0% to 79%)"],
    ]


def test_false_alarms(tables):
    """Without their own recipe, the two strong models have p = 1/41 and 2/41, and with the other
    half's, 1/21 and 2/31. The best model is inconclusive."""
    assert tables["False alarms on clean models"] == [
        ["all but its recipe", "40", "2 of 50 (1% to 13%)", "1"],
        ["the other half's recipes", "20 to 30", "1 of 50 (0% to 10%)", "1"],
    ]


def test_whether_the_shown_pattern_is_the_trigger(tables):
    assert tables["The pattern that is shown"] == [
        # pixels of the trigger, shown, and in place; IoU in place and shifted; error of the colours
        ["backdoored_0", "noisy", "9", "6", "4", "0.36", "0.67", "0.10", "yes"],  # 4/11, 6/9
        ["backdoored_1", "noisy", "9", "3", "0", "0.00", "0.33", "-", "no"],  # 3/9
        ["backdoored_2", "shifted", "9", "6", "3", "0.25", "0.25", "0.20", "yes"],  # half is enough
        "",
        "In place, images moved or mirrored in training: 1 of 1.",
        "In place, pooling over all places: 1 of 2.",
        # 6 of 6, 3 of 3 and 3 of 6; there are no patterns of other classes
        "Pixels in common at the best shift, of those that could be: the target's pattern 83%, "
        "those of the other classes 0% on average.",
    ]


def test_adaptive_attackers(tables):
    assert tables["An attacker who knows the scan"] == [
        ["spread thin", "9", "no", "95.0%", "suspicious", "0.039", "1"],  # p = 2/51
        ["square", "16", "yes", "50.0%", "nothing found", "1", "10"],
    ]


def test_each_model_has_a_row(tables):
    found = {row[0]: row[1:] for row in tables["Each model of the test half"]}
    assert len(found) == 20 + 7
    assert found["backdoored_1"] == ["90.0%", "95.0%", "suspicious", "0.032", "5", "4"]  # 1/31
    assert found["clean_wide_0"] == ["90.0%", "", "nothing found", "0.065", "0", ""]  # 2/31
    assert found["clean_shifted_9"][2] == "inconclusive"
    assert tables["Seconds: 2.0 (1.0 to 5.0)"] == []


def test_cifar10_models_are_compared_with_the_other_clean_ones(tables):
    """A clean model of the tutorials is a reference, too, and is judged without itself."""
    clean = tables["CIFAR-10, each other clean model"]
    others = tables["CIFAR-10, the backdoored models and those of the tutorials"]
    assert (len(clean), len(others)) == (20, 2)
    found = {row[0]: row[1:] for row in clean + others}
    assert found["backdoored_0"] == ["90.0%", "97.0%", "suspicious", "0.045", "2", "2"]  # 1/22
    assert found["shipped_natural"] == ["90.0%", "", "suspicious", "0.048", "4", ""]
    assert {tuple(found[f"clean_{i}"][2:4]) for i in range(20)} == {("nothing found", "1")}
    assert tables["CIFAR-10, all kinds"] == [
        ["all-to-one patch", "1 of 1 (21% to 100%)", "1 of 1 (21% to 100%)", "0", "1 of 1"],
        ["clean", "0 of 20 (0% to 16%)", "", "0", ""],
        ["clean, tutorials", "1 of 1 (21% to 100%)", "", "0", ""],
    ]


def test_the_script_prints_all_tables_and_writes_the_references(folders, tables, tmp_path, capsys):
    scan_evidence.main([*map(str, folders), "--references", str(tmp_path)])
    printed = capsys.readouterr().out
    titles = [line[4:] for line in printed.splitlines() if line.startswith("### ")]
    assert titles == list(tables)
    assert "| all but its recipe | 40 | 2 of 50 (1% to 13%) | 1 |" in printed.splitlines()

    assert {path.name for path in tmp_path.iterdir()} == {
        "demo_references.json", "cifar10_references.json",
    }  # fmt: skip
    demo, cifar10 = (
        ReferenceSet.load(tmp_path / f"{name}_references.json") for name in ("demo", "cifar10")
    )
    clean = {row["name"] for row in made_up_zoo() if row["name"].startswith("clean")}
    assert set(demo.profiles) == clean
    assert set(cifar10.profiles) == {*(f"clean_{i}" for i in range(20)), "shipped_natural"}
    assert demo.class_names[0] == "T-shirt"
    assert cifar10.class_names[9] == "truck"
    demo.check(10, (1, 28, 28))
    cifar10.check(10, (3, 32, 32))
    assert demo.also == cifar10.also == FAMILIES
    assert demo.images["description"] == "Fashion-MNIST, the demo's search images"
    assert (demo.images["count"], demo.images["hash"]) == (1000, "0")
    logit = np.log((0.9 * 90 + 0.5) / (0.1 * 90 + 0.5))
    assert demo.scores()[list(demo.profiles).index("clean_base_0"), 0] == pytest.approx(logit)
    assert demo.accuracies.count(0.99) == 1


def test_empty_folders_give_no_tables(tmp_path, capsys):
    (tmp_path / "references").mkdir()
    given = [str(tmp_path), str(tmp_path), "--references", str(tmp_path / "references")]
    scan_evidence.main(given)
    assert all(line.endswith("is there already") for line in capsys.readouterr().out.splitlines())
    assert not list((tmp_path / "references").iterdir())
