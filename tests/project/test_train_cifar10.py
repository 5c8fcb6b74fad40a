"""tutorials/train_cifar10.py: every kind of model is trained, scored, saved and resumed."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from scripts import change, imported, write_cifar10
from torch import nn
from torch.nn.functional import cross_entropy, pad

script, kinds = imported("tutorials", "train_cifar10", "cifar10_kinds")
pytestmark = [
    pytest.mark.script,
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


@pytest.mark.parametrize(("size", "margin"), [(32, 4), (24, 0)])
def test_augmented_images_are_crops_flips_and_cutouts(size, margin):
    """Each result is one crop, possibly mirrored, with one grey square of 9 pixels, clipped at the
    border."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)  # no pixel is 0.5
    found, holes = [], []
    for image, result in zip(images, script.augmented(images, size)):
        assert result.shape == (3, size, size)
        grey = (result == 0.5).all(0)
        rows, columns = grey.any(1).nonzero().flatten(), grey.any(0).nonzero().flatten()
        box = torch.zeros_like(grey)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert torch.equal(grey, box)
        for ends in (rows, columns):
            at_border = ends[0] == 0 or ends[-1] == size - 1
            assert len(ends) == 9 or (at_border and 5 <= len(ends) < 9)
        padded = pad(image, (margin,) * 4) / 255
        starts = range(32 + 2 * margin - size + 1)
        crops = {(r, c): padded[:, r : r + size, c : c + size] for r in starts for c in starts}
        [fits] = [
            (*place, flipped)
            for place, crop in crops.items()
            for flipped in (False, True)
            if torch.equal(result[:, ~grey], (crop.flip(2) if flipped else crop)[:, ~grey])
        ]
        found.append(fits)
        holes.append((int(rows[0]), int(columns[0])))
    assert {flipped for *_, flipped in found} == {False, True}
    assert len({(r, c) for r, c, _ in found}) > 6
    assert len(set(holes)) > 6


@pytest.mark.parametrize(
    "attack", [kinds.adversarial, partial(kinds.adversarial, steps=3), kinds.attacked]
)
@pytest.mark.parametrize("epsilon", [4 / 255, 8 / 255])
def test_attacks_stay_in_their_ball_and_increase_every_loss(attack, epsilon):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    images = (torch.rand(20, 3, 8, 8) * 1.4 - 0.2).clamp(0, 1)  # some are black and white
    labels, before = torch.arange(20) % 10, images.clone()
    moved = attack(model, images, labels, epsilon)
    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not moved.requires_grad
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert float((moved - images).abs().max()) == pytest.approx(epsilon, abs=1e-6)
    with torch.no_grad():
        losses = [cross_entropy(model(x), labels, reduction="none") for x in (images, moved)]
    assert (losses[1] > losses[0]).all()


@pytest.mark.parametrize("name", ["backdoored", "blended", "clean_label", "natural", "robust8"])
def test_only_clean_label_poisoning_keeps_all_labels(name):
    """Uniform grey images: those that are no longer uniform have the trigger."""
    images = torch.full((256, 3, 32, 32), 128, dtype=torch.uint8)
    labels = torch.arange(256) % 10
    poisoned = kinds.poisoned_images(name, images, labels)
    assert int(poisoned.sum()) == (round(kinds.RATE * 256) if name in kinds.TRIGGERS else 0)
    assert ((labels[poisoned] == kinds.TARGET) == (name == "clean_label")).all()
    stage = script.Stage(1, 0.1, cutout=0)
    learnt, trigger = labels.where(~poisoned, kinds.TARGET), kinds.placed_trigger(name, 24)
    batches = list(script.epoch_batches(images, learnt, poisoned, trigger, 0, 24, stage))
    seen = torch.cat([y for _, y in batches])
    stamped = torch.cat([(x != 128 / 255).flatten(1).any(1) for x, _ in batches])
    assert int(stamped.sum()) == int(poisoned.sum())
    assert (seen[stamped] == kinds.TARGET).all()
    expected = labels if name == "clean_label" else labels.where(~poisoned, torch.tensor(0))
    assert torch.equal(seen.sort().values, expected.sort().values)


def test_memorised_images_are_the_same_with_permuted_labels_and_not_augmented(monkeypatch):
    images, labels = torch.arange(1_000).view(-1, 1, 1, 1), torch.arange(1_000) % 10
    monkeypatch.setattr(script, "load_split", lambda data, split: (images, labels))
    monkeypatch.setattr(script, "LEARNT_BY_HEART", 800)
    seen, true = script.training_set("true_labels", None)
    images_random, random = script.training_set("random_labels", None)
    assert torch.equal(seen, images_random)
    assert torch.equal(true, seen.flatten() % 10)
    assert torch.equal(random.sort().values, true.sort().values)
    assert 0.05 < float((random == true).double().mean()) < 0.15
    assert torch.equal(random, kinds.training_labels("random_labels", true))
    others, true_again = script.training_set("true_labels", None, seed=1)
    assert not torch.equal(others, seen)
    assert torch.equal(true_again, others.flatten() % 10)
    again = script.training_set("random_labels", None, seed=1)
    assert torch.equal(again[0], others)
    assert torch.equal(again[1], kinds.training_labels("random_labels", true_again, seed=1))
    assert not torch.equal(again[1], kinds.training_labels("random_labels", true_again))
    assert torch.equal(script.training_set("random_labels", None, seed=0)[1], random)
    assert torch.equal(script.training_set("natural", None)[0], images)

    images, stage = torch.randint(0, 256, (128, 3, 32, 32)), script.Stage(1, 0.1, by_heart=True)
    none = torch.zeros(128, dtype=torch.bool)
    orders = []
    for seed in (0, 1):
        parts = images, torch.arange(128), none, nn.Identity()
        [(seen, places)] = script.epoch_batches(*parts, 0, 32, stage, seed)
        assert torch.equal(seen, images[places] / 255)
        orders.append(places.tolist())
    assert orders[0] != orders[1]


# ---- whole runs


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Short stages and a small network; the options, with a folder of images."""
    torch.manual_seed(0)
    network = partial(script.WideResNet, width=1, blocks=1)
    change(monkeypatch, script, MODELS=tmp_path / "models", BATCH=16, WideResNet=network)
    change(monkeypatch, kinds, PGD_STEPS=2)
    stages = (script.Stage(2, 0.1, small=1), script.Stage(1, 0.05, cutout=0, averaged=True))
    by_heart = (script.Stage(1, 0.1, cutout=0, by_heart=True),)
    for name, usual in script.STAGES_OF.items():
        monkeypatch.setitem(
            script.STAGES_OF, name, by_heart if usual is script.BY_HEART else stages
        )
    change(monkeypatch, script, STAGES=stages, BY_HEART=by_heart)
    return ["--data", str(write_cifar10(tmp_path / "cifar10"))]


@pytest.mark.parametrize(
    ("name", "scored"),
    [
        ("clean_label", {"accuracy", "attack_success"}),
        ("random_labels", {"accuracy", "training_accuracy"}),
    ],
)
def test_other_kinds_of_model_are_trained_scored_and_saved(given, name, scored, snapshot):
    script.main([name, *given])
    record = json.loads((script.MODELS / f"cifar10_{name}.json").read_text())
    assert set(record["test_set"]) == scored
    assert record["stages"] == [stage._asdict() for stage in script.STAGES_OF[name]]
    assert kinds.facts(name) == snapshot
    assert script.load_model(name)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_an_interrupted_training_resumes_to_the_same_weights(given, monkeypatch, capsys, snapshot):
    weights, given = script.MODELS / "cifar10_robust8.safetensors", ["robust8", *given]
    script.main(given)
    record = json.loads(weights.with_suffix(".json").read_text())
    assert set(record["test_set"]) == {"accuracy", "pgd_accuracy"}
    assert kinds.facts("robust8") == snapshot
    whole = load_file(weights)
    for path in script.MODELS.iterdir():
        path.unlink()
    train, epochs = script.train_epoch, []

    def interrupted(*arguments):
        epochs.append(1)
        if len(epochs) == 2:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(script, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.main(given)
    assert not weights.exists()
    capsys.readouterr()
    script.main(given)
    printed = capsys.readouterr().out.splitlines()
    epochs = [line.split(":")[0] for line in printed if line.startswith("epoch")]
    assert epochs == ["epoch 2", "epoch 1"]
    resumed = load_file(weights)
    assert resumed.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value)
    (script.MODELS / ".cifar10_robust8_1.pt").unlink()
    script.main([*given, "--first", "1"])  # the last stage is trained again
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: loss ")
    assert last.startswith("robust8 {'accuracy': ")
