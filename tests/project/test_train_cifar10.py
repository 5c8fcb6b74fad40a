"""tutorials/train_cifar10.py: every kind of model is trained, scored, saved and resumed."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from scripts import change, imported, write_cifar10
from torch import nn
from torch.nn.functional import cross_entropy

script, kinds = imported("tutorials", "train_cifar10", "cifar10_kinds")
pytestmark = [
    pytest.mark.script,
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients"),
]


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


def test_an_interrupted_training_resumes_to_the_same_weights(given, monkeypatch, capsys):
    weights, given = script.MODELS / "cifar10_robust8.safetensors", ["robust8", *given]
    script.main(given)
    record = json.loads(weights.with_suffix(".json").read_text())
    assert set(record["test_set"]) == {"accuracy", "pgd_accuracy"}
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
