"""The scripts of the scan's evidence: what is planted, trained and scanned once, and the tables."""

import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from command_line import run
from refusals import refusal
from scripts import change, imported, read_rows, write_cifar10, write_fashion_mnist, write_rows
from torch import nn

from captum_classpattern.classifier.fingerprints import hash_of_model
from captum_classpattern.scanning import ReferenceSet
from captum_classpattern.scanning.families import CHANGES, SIZES
from captum_classpattern.scanning.profile import SETTINGS, Profile

scan_evidence, scan_variations, scan_zoo, zoo = imported(
    "benchmarks", "scan_evidence", "scan_variations", "scan_zoo", "zoo"
)
train_references = imported("tutorials", "train_references")
pytestmark = pytest.mark.script


class Net(nn.Module):
    """A linear network of coarse pixels."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, images):
        return self.head(4 * nn.functional.avg_pool2d(images - 0.5, 2).flatten(1))


# ---- zoo


@pytest.mark.parametrize("name", zoo.training.OPTIMIZERS)
def test_each_optimizer_trains(name):
    """Some have no momentum that a schedule could change."""
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = zoo.training.OPTIMIZERS[name]([weight])
    zoo.training.fit(optimizer, lambda batch: weight.square().sum(), 512, 3)
    assert abs(weight.item()) < 0.999


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


# ---- benchmarks/zoo


def planted(kind, **more):
    """The images and labels before and after a trigger was planted in 10 % of 100."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(100, 1, 28, 28, generator=generator), torch.arange(100) % 10
    dirty, new = images.clone(), labels.clone()
    backdoor = zoo.Backdoor(kind, 3, 0.1, **more)
    backdoor.plant(dirty, new, generator)
    return backdoor, images, labels, dirty, new


@pytest.mark.parametrize("kind", ["checker", "two", "blended", "sig", "wanet", "bpp"])
@pytest.mark.parametrize("all_to_all", [False, True])
def test_a_share_of_the_images_gets_the_trigger_and_the_label(kind, all_to_all):
    backdoor, images, labels, dirty, new = planted(kind, all_to_all=all_to_all)
    changed = (dirty != images).flatten(1).any(1)
    assert int(changed.sum()) == 10
    trigger = backdoor.trigger((1, 28, 28))
    torch.testing.assert_close(dirty[changed], trigger(images[changed]))
    assert torch.equal(new[~changed], labels[~changed])
    if all_to_all:
        assert torch.equal(new[changed], (labels[changed] + 1) % 10)
    else:
        assert {*new[changed].tolist()} == {3}
        assert 3 not in labels[changed]


def test_half_of_an_adaptive_trigger_is_planted_faintly_and_as_often_without_the_label():
    backdoor, images, labels, dirty, new = planted("adaptive")
    changed = (dirty != images).flatten(1).any(1)
    assert (int(changed.sum()), int((new != labels).sum())) == (20, 10)
    assert changed[new != labels].all()
    full = backdoor.trigger((1, 28, 28))(images[changed])
    pixels = (dirty != images)[changed]
    assert pixels.flatten(1).sum(1).tolist() == [8] * 20  # two of four squares
    half = images[changed] / 2 + full / 2
    torch.testing.assert_close(dirty[changed][pixels], half[pixels])


def test_few_shades_by_a_plain_computation():
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = image[0, 0].double().tolist()
    for i in range(4):
        for j in range(4):
            old = plain[i][j]
            plain[i][j] = round(min(max(old * 7, 0), 7)) / 7
            for di, dj, part in ((0, 1, 7), (1, -1, 3), (1, 0, 5), (1, 1, 1)):
                if i + di < 4 and 0 <= j + dj < 4:
                    plain[i + di][j + dj] += (old - plain[i][j]) * part / 16
    found = zoo.Backdoor("bpp", 0, 0.1).trigger((1, 4, 4))(image)
    np.testing.assert_allclose(found[0, 0].numpy(), plain, atol=1e-5)


@pytest.mark.parametrize("data", ["fashion", "cifar10"])
def test_the_lists_of_networks(data):
    known, found = zoo.references(data), list(zoo.confirmation(data))
    others = zoo.development(data)
    names = [each.name for each in (*known, *others, *found)]
    assert len({*names}) == len(names)
    assert len({each.seed for each in (*known, *others, *found)}) == len(names)
    assert all(each.backdoor is None for each in known)
    assert not {each.recipe for each in known} & {each.recipe for each in found}
    clean = [each.recipe for each in found if each.backdoor is None]
    assert len({*clean}) == len(clean) == {"fashion": 40, "cifar10": 10}[data]
    chosen = scan_variations.chosen(data)
    assert len(chosen) == {"fashion": 15, "cifar10": 5}[data]
    assert {each.name for each in chosen} <= {*names}


@pytest.mark.parametrize("name", list(zoo.NETWORKS))
def test_networks_and_what_changes_images_in_training(name):
    width = 1 if name == "wide" else 4
    recipe = zoo.Recipe(name, width, 1, 1, 0.5, "nadam", 0.1, 2, True, 5, 0.1, 0.2, 0.1, 0.01, 1)
    data = torch.rand(256, 3, 32, 32), torch.arange(256) % 10
    network = zoo.train(recipe, data, 0)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert not network.training


# ---- benchmarks/scan_zoo.py


def measured(model, images, settings=None):
    """A profile that is made up."""
    pattern = zoo.Backdoor("checker", 1, 0.05).patch((1, 28, 28))
    powers, tenths = {size: [1 / 3] * 10 for size in SIZES}, dict.fromkeys(CHANGES, [0.1] * 10)
    found = {(size, y): pattern for size in SIZES for y in range(10)}
    return Profile(
        powers, [90] * 10, 0.9, 500, tenths, tenths, hash_of_model(model), {}, patterns=found
    )


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder of data, and a zoo of two networks that train and are measured in a moment."""
    recipe = zoo.Recipe("plain", 2, epochs=1, share=1.0)
    backdoor = zoo.Backdoor("checker", 1, 0.1)
    entries = [zoo.Entry("clean", recipe, 0), zoo.Entry("planted", recipe, 1, backdoor)]
    change(monkeypatch, scan_zoo, measure=measured)
    change(monkeypatch, scan_variations, measure=measured, chosen=lambda _: entries)
    monkeypatch.setitem(scan_zoo.ZOOS, "references", lambda _: entries)
    small = {"CBD": {"sigma": 1.0, "draws": 2}, "MM-BD": {"n_images": 2, "steps": 2}}
    change(monkeypatch, scan_zoo, RIVALS=small)
    return write_fashion_mnist(tmp_path, 260, 100)


def test_networks_are_trained_and_measured_once_and_again_from_their_weights(
    tiny, tmp_path, monkeypatch, capsys
):
    out, file = tmp_path / "zoo", tmp_path / "rows.jsonl"
    usual = ["fashion", str(tiny), "--zoo", "references", "--out"]
    given = [*usual, str(out)]
    scan_zoo.main([*given, "--no-rivals"])
    scan_zoo.main([*given, "--rows", str(file)])
    assert [row["rivals"] for row in read_rows(file)] == [{}, {}]
    change(monkeypatch, scan_zoo, train=None, measure=None)  # would fail
    scan_zoo.main(given)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["clean", "planted"] * 2
    assert ["attack success" in line for line in printed] == [False, True] * 2
    change(monkeypatch, scan_zoo, cbd=None, mm_bd=None)
    scan_zoo.main(given)
    scan_zoo.main([*given, "--rows", str(file)])
    rows = read_rows(file)
    for row, name in zip(rows, ("clean", "planted"), strict=True):
        assert (row["name"], row["data"], row["zoo"]) == (name, "fashion", "references")
        assert row["profile"]["powers"]["10"] == [1 / 3] * 10
        assert {len(row["rivals"][rival]["scores"]) for rival in ("CBD", "MM-BD")} == {10}
    assert [row["backdoor"] for row in rows] == [None, asdict(zoo.Backdoor("checker", 1, 0.1))]
    assert len(rows[1]["shown"]) == 9
    write_rows(file, [{"data": "cifar10", "name": "other"}, *rows[1:]])
    scan_zoo.main([*given, "--rows", str(file)])
    assert [row["name"] for row in read_rows(file)] == ["other", "clean", "planted"]
    change(monkeypatch, scan_zoo, SETTINGS={"statistic": 0})
    with pytest.raises(TypeError):  # measured again
        scan_zoo.main(given)

    change(monkeypatch, scan_zoo, measure=measured, SETTINGS=SETTINGS)
    weights, made = tmp_path / "weights.safetensors", tmp_path / "set.json"
    scan_zoo.main([*given, "--pack", str(weights)])
    again = [*usual, str(tmp_path / "again")]
    scan_zoo.main([*again, "--from-weights", str(weights), "--no-rivals"])
    for row in rows:
        new = json.loads((tmp_path / "again" / f"{row['name']}.json").read_text())
        for each in (new, row):
            each.pop("rivals"), each["seconds"].pop("scan")
        assert new == row
    scan_zoo.main([*again, "--set", str(made)])
    found = ReferenceSet.load(made)
    assert [*found.profiles] == ["clean", "planted"]
    assert found.recipes["clean"]["network"] == "plain"
    assert found.images["description"] == "Fashion-MNIST, the demo's search images"


def test_the_clean_networks_of_the_tutorials_are_references_too():
    found = list(scan_zoo.of_the_tutorials())
    assert [name for name, *_ in found] == [each.name for each in zoo.tutorials()]
    for _, model, record in found:
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
        assert 0.7 < record["accuracy"] < 1


def test_other_scans_of_a_network_are_made_once(tiny, tmp_path, monkeypatch, capsys):
    out, rows = tmp_path / "zoo", tmp_path / "rows.jsonl"
    given = ["fashion", str(tiny), "--out", str(out), "--rows", str(rows)]
    scan_zoo.main(["fashion", str(tiny), "--zoo", "references", "--out", str(out), "--no-rivals"])
    (out / "planted.safetensors").unlink()
    capsys.readouterr()
    scan_variations.main(given)
    assert "planted: not trained yet" in capsys.readouterr().out
    found = read_rows(rows)
    varied = [row["varied"] for row in found]
    assert varied == ["seed"] * 5 + ["images"] * 5 + ["20 images a class"] + ["precision"] * 2
    write_rows(rows, found[1:])
    scan_variations.main(given)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert len(read_rows(rows)) == 13


def test_learnt_patches_of_development_are_scanned_with_other_seeds(tiny, tmp_path, monkeypatch):
    out, rows = tmp_path / "zoo", tmp_path / "rows.jsonl"
    scan_zoo.main(["fashion", str(tiny), "--zoo", "references", "--out", str(out), "--no-rivals"])
    change(monkeypatch, scan_variations, patched=lambda data: scan_variations.chosen(data)[1:])
    given = ["fashion", str(tiny), "--out", str(out), "--rows", str(rows), "--zoo", "development"]
    scan_variations.main(given)
    assert not rows.exists()
    change(monkeypatch, scan_variations, LEARNT=0)
    scan_variations.main(given)
    assert [(row["name"], row["varied"], row["value"]) for row in read_rows(rows)] == [
        ("planted", "seed", seed) for seed in range(5)
    ]


def test_the_sets_of_other_images_have_no_image_in_common(tmp_path):
    test = scan_zoo.demo_images()
    pixels = torch.cat([test.search.images, test.held_out.images])
    labels = torch.cat([test.search.labels, test.held_out.labels])
    images = [each for *_, each, _ in scan_variations.variations("fashion", (pixels, labels))]
    sets = [{*each.hashes} for each in images[5:10]]
    assert len(set().union(*sets)) == sum(map(len, sets)) == 1000
    assert not set().union(*sets) & {*images[0].hashes}
    assert np.bincount(images[10].known_labels).tolist() == [20] * 10


# ---- benchmarks/scan_evidence.py


def made_up(name, recipe=None, planted=None, success=None, *, powers=(), gains=(), shown=()):
    """A row of a network whose powers or additive gains differ in some classes."""
    usual = dict.fromkeys(range(10), 0.1)
    profile = {
        "powers": {size: [*(usual | dict(powers)).values()] for size in SIZES},
        "others": dict.fromkeys(CHANGES, [0.1] * 10),
        "gains": {family: [0.0] * 10 for family in CHANGES}
        | {"additive": [*(dict.fromkeys(range(10), 0.0) | dict(gains)).values()]},
        "judged": [90] * 10,
        "accuracy": 0.9,
        "images": 500,
    }
    strong = {} if planted is None else {planted.target: 1.0}
    scores = {"CBD": 0.1, "MM-BD": 1.0}
    return {
        **{"name": name, "data": "fashion", "recipe": asdict(recipe or zoo.Recipe())},
        **{"backdoor": planted and asdict(planted), "accuracy": 0.9, "attack_success": success},
        **{"statistic": SETTINGS, "images": {}, "profile": profile, "shown": list(shown)},
        "seconds": {"training": 1, "scan": 2.0},
        "rivals": {
            rival: {"scores": [strong.get(y, usual) for y in range(10)], "seconds": 3.0}
            for rival, usual in scores.items()
        },
    }


def corner(target, kind="white", **more):
    """A white square in rows and columns 24 to 26."""
    return zoo.Backdoor(kind, target, 0.05, 3, "corner", **more)


def test_evidence_by_hand(tmp_path, capsys, snapshot):
    """Both patches are suspicious, p = 1/21, the second with the wrong class. The first one shows 4
    of 6 pixels in place, and all of them at the best shift. The perturbation is found by gains;
    a transformer is suspicious without a backdoor."""
    known = zoo.Recipe(), zoo.Recipe("plain")
    write_rows(
        tmp_path / "scan_references.jsonl", [made_up(f"r{i}", known[i % 2]) for i in range(20)]
    )
    two_rows = [[i, j, 0.9] for i in (25, 26) for j in (25, 26, 27)]  # one column too far right
    network = zoo.Recipe("transformer")
    confirmation = [
        made_up("backdoored_00", None, corner(3), 1.0, powers={3: 1.0}, shown=two_rows),
        made_up("backdoored_01", None, corner(4), 0.95, powers={5: 1.0}),
        made_up("backdoored_02", None, corner(4), 0.5),
        made_up("backdoored_03", None, corner(6, "blended"), 1.0, gains={6: 5.0}),
        made_up("backdoored_04", None, corner(0, all_to_all=True), 1.0, powers={5: 1.0}),
        made_up("clean_00_width"),
        made_up("clean_01_transformer", network, powers={1: 1.0}),
    ]
    write_rows(tmp_path / "scan_confirmation.jsonl", confirmation)
    names = "data", "name", "profile"
    strong, weak = ({name: row[name] for name in names} for row in (confirmation[0], made_up("")))
    others = [("seed", strong)] * 4 + [("seed", weak | {"name": strong["name"]})]
    others += [("images", strong), ("images", weak | {"name": strong["name"]})]
    rows = [{"varied": varied, **row} for varied, row in others]
    write_rows(tmp_path / "scan_variations.jsonl", rows)
    scan_evidence.main([str(tmp_path)])
    assert capsys.readouterr().out == snapshot
    references, found = (
        scan_evidence.read(tmp_path, name)["fashion"] for name in ("references", "confirmation")
    )
    groups = scan_evidence.by_kind(found, references)
    assert "".join(scan_evidence.in_words(groups)).splitlines() == [
        "1 of 2 patches",
        "1 of 1 triggers that change all pixels",
        "1 of 2 clean networks",
    ]
    write_rows(tmp_path / "scan_development.jsonl", confirmation)
    write_rows(tmp_path / "scan_hard.jsonl", [strong, strong, weak | {"name": strong["name"]}])
    scan_evidence.main([str(tmp_path), "--zoo", "development"])
    assert "| backdoored_00 | 1.0 | 2 of 3 |\n| all |  | 2 of 3 (21% to 94%) |" in (
        capsys.readouterr().out
    )
    odd = made_up("r_odd", known[0], powers={1: 1.0})
    others = [made_up(f"r_{i}", known[i % 2]) for i in range(19)]
    write_rows(tmp_path / "scan_references.jsonl", [odd, *others])
    scan_evidence.main([str(tmp_path), "--zoo", "references"])  # each with the others alone
    assert "| odd | 1 of 1 (21% to 100%) | 0 | 0.05 |" in capsys.readouterr().out
    (tmp_path / "scan_references.jsonl").unlink()  # nothing can be said
    (tmp_path / "scan_variations.jsonl").unlink()
    scan_evidence.main([str(tmp_path)])
    assert not capsys.readouterr().out


def test_as_many_as_count_and_weakly_learnt_ones_apart():
    rows = [made_up(f"backdoored_{i:02}", None, corner(i % 10), 1.0) for i in range(41)]
    rows += [made_up("weak", None, corner(0), 0.89), made_up("bpp", None, corner(0, "bpp"), 0.9)]
    networks = [scan_evidence.Network(row) for row in rows]
    groups = scan_evidence.by_kind(networks, networks)
    counts = {kind: len(group) for kind, group in groups.items()}
    assert counts == {"patch": 40, "patch, further": 1, "patch, weakly learnt": 1, "BppAttack": 1}
