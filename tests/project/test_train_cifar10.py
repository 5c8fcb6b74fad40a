"""The training script of the CIFAR-10 models."""

import pytest
import torch
from scripts import imported
from torch import nn
from torch.nn.functional import cross_entropy, pad


@pytest.fixture(scope="module")
def script():
    return imported("tutorials", "train_cifar10")


@pytest.fixture(scope="module")
def kinds():
    return imported("tutorials", "cifar10_kinds")


@pytest.fixture
def tiny():
    """A small network, images with some black and white pixels, and labels."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    images = (torch.rand(20, 3, 8, 8) * 1.4 - 0.2).clamp(0, 1)
    return model, images, torch.arange(20) % 10


@pytest.mark.parametrize(("size", "margin"), [(32, 4), (24, 0)])
def test_augmented_images_are_crops_flips_and_cutouts(script, size, margin):
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
        fits = [
            (*place, flipped)
            for place, crop in crops.items()
            for flipped in (False, True)
            if torch.equal(result[:, ~grey], (crop.flip(2) if flipped else crop)[:, ~grey])
        ]
        assert len(fits) == 1
        found += fits
        holes.append((int(rows[0]), int(columns[0])))
    assert {flipped for *_, flipped in found} == {False, True}
    assert len({(r, c) for r, c, _ in found}) > 6
    assert len(set(holes)) > 6


def test_whole_images_are_augmented_by_default(script):
    assert script.augmented(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3, 32, 32)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("attack", ["adversarial", "attacked"])
@pytest.mark.parametrize("epsilon", [4 / 255, 8 / 255])
def test_attacks_stay_in_their_ball_and_increase_every_loss(kinds, tiny, attack, epsilon):
    model, images, labels = tiny
    before = images.clone()
    moved = getattr(kinds, attack)(model, images, labels, epsilon)
    assert torch.equal(images, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not moved.requires_grad
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    assert float((moved - images).abs().max()) == pytest.approx(epsilon, abs=1e-6)
    with torch.no_grad():
        losses = [cross_entropy(model(x), labels, reduction="none") for x in (images, moved)]
    assert (losses[1] > losses[0]).all()


@pytest.mark.parametrize("name", ["backdoored", "blended", "clean_label"])
def test_only_clean_label_poisoning_keeps_all_labels(script, kinds, name):
    """Uniform grey images: those that are no longer uniform have the trigger."""
    images = torch.full((256, 3, 32, 32), 128, dtype=torch.uint8)
    labels = torch.arange(256) % 10
    poisoned = kinds.poisoned_images(name, images, labels)
    assert int(poisoned.sum()) == round(kinds.RATE * 256)
    assert ((labels[poisoned] == kinds.TARGET) == (name == "clean_label")).all()
    stage = script.Stage(1, 0.1, cutout=0)
    batches = list(script.epoch_batches(name, images, labels, poisoned, 0, 24, stage))
    seen = torch.cat([y for _, y in batches])
    stamped = torch.cat([(x != 128 / 255).flatten(1).any(1) for x, _ in batches])
    assert int(stamped.sum()) == int(poisoned.sum())
    assert (seen[stamped] == kinds.TARGET).all()
    expected = labels if name == "clean_label" else labels.where(~poisoned, torch.tensor(0))
    assert torch.equal(seen.sort().values, expected.sort().values)


@pytest.mark.parametrize("name", ["natural", "random_labels", "robust8"])
def test_other_kinds_poison_no_images(kinds, name):
    images, labels = torch.zeros(100, 3, 32, 32), torch.arange(100) % 10
    assert not kinds.poisoned_images(name, images, labels).any()


def test_triggers_on_crops_are_parts_of_those_on_whole_images(kinds):
    grey = torch.full((3, 32, 32), 0.5)
    crop = grey[:, :24, :24]
    whole = {name: kinds.placed_trigger(name)(grey) for name in kinds.TRIGGERS}
    part = {name: kinds.placed_trigger(name, 24)(crop) for name in kinds.TRIGGERS}
    assert torch.equal(part["blended"], whole["blended"][:, 4:28, 4:28])
    torch.testing.assert_close(part["clean_label"], whole["clean_label"][:, :24, :24])
    assert torch.equal(part["backdoored"], whole["backdoored"][:, 8:, 8:])


def test_random_labels_are_one_permutation(kinds):
    labels = torch.arange(1_000) % 10
    shuffled = kinds.training_labels("random_labels", labels)
    assert torch.equal(shuffled.sort().values, labels.sort().values)
    assert 0.05 < float((shuffled == labels).double().mean()) < 0.15
    assert torch.equal(shuffled, kinds.training_labels("random_labels", labels))
    assert kinds.training_labels("natural", labels) is labels


def test_attacked_images_are_balanced_over_classes(kinds):
    labels = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    assert kinds.first_of_each_class(labels, 2).tolist() == [1, 4, 0, 2]


def test_facts_describe_the_kind_of_model(kinds):
    assert kinds.facts("natural") == {}
    assert kinds.facts("backdoored") == {
        "trigger": {"kind": "BadNets 3x3", "target": 0, "rate": 0.05}
    }
    adversarial = kinds.facts("robust4")["adversarial"]
    assert adversarial["epsilon"] == 4 / 255
    assert adversarial["pgd_images"] == "the first 100 test images of each class"


def test_kinds_that_are_compared_share_their_stages(script, kinds):
    """robust8, its clean control and the backdoors without a patch; true and random labels."""
    stages = [script.STAGES_OF[name] for name in ("robust8", "natural_short", "blended")]
    assert stages[0] == stages[1] == stages[2] == script.STAGES_OF["clean_label"]
    assert script.STAGES_OF["random_labels"] == script.STAGES_OF["true_labels"]
    assert script.STAGES_OF.keys() <= set(kinds.KINDS)


def test_memorised_images_are_the_same_with_true_and_random_labels(script, monkeypatch):
    images, labels = torch.arange(60).view(-1, 1, 1, 1), torch.arange(60) % 10
    monkeypatch.setattr(script, "load_split", lambda data, split: (images, labels))
    monkeypatch.setattr(script, "LEARNT_BY_HEART", 40)
    images_true, labels_true = script.training_set("true_labels", None)
    images_random, labels_random = script.training_set("random_labels", None)
    assert torch.equal(images_true, images_random)
    assert torch.equal(labels_true, images_true.flatten() % 10)
    assert not torch.equal(labels_random, labels_true)
    assert torch.equal(labels_random.sort().values, labels_true.sort().values)
    assert torch.equal(script.training_set("natural", None)[0], images)


def test_memorised_images_are_not_augmented(script):
    images = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8)
    stage = script.Stage(1, 0.1, cutout=0, by_heart=True)
    none = torch.zeros(128, dtype=torch.bool)
    [(seen, their_labels)] = script.epoch_batches(
        "true_labels", images, torch.arange(128), none, 0, 32, stage
    )
    assert torch.equal(seen, images[their_labels] / 255)
