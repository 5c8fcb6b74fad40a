"""Checkpoints of MadryLab's robustness."""

import pytest
import torch
from checkpoints import MEAN, STD, TINY, Tiny, assert_same, prefixed

from captum_classpattern.adapters import load_model


@pytest.mark.parametrize("data_parallel", [True, False])
@pytest.mark.parametrize("holder", ["model", "state_dict"])
def test_robustness(data_parallel, holder, tmp_path):
    """AttackerModel: the model, the attacker with the same model, and both their normalisers."""
    network, norm = Tiny(), {"new_mean": MEAN, "new_std": STD}
    norm = {key: torch.tensor(value).view(3, 1, 1) for key, value in norm.items()}
    state = {
        **prefixed(norm, "normalizer."),
        **prefixed(network.state_dict(), "model."),
        **prefixed(norm, "attacker.normalize."),
        **prefixed(network.state_dict(), "attacker.model."),
    }
    state = prefixed(state, "module.") if data_parallel else state
    torch.save({holder: state, "epoch": 3, "schedule": None}, tmp_path / "checkpoint.pt.best")
    classifier = load_model(tmp_path / "checkpoint.pt.best", arch=TINY)
    assert_same(classifier, network)
    provenance, before = classifier.provenance, "module." if data_parallel else ""
    assert (provenance["format"], provenance["weights"]) == ("robustness", holder)
    assert provenance["num_classes"] == 3
    assert provenance["normalisation"]["from"] == "the checkpoint"
    assert provenance["renamed"][f"{before}model.fc.bias"] == "fc.bias"
    assert provenance["ignored"][f"{before}normalizer.new_std"] == "the normalisation, now outside"
    assert provenance["ignored"][f"{before}attacker.model.fc.bias"] == "a second copy"
    assert set(provenance["renamed"]) | set(provenance["ignored"]) == set(state)
    with pytest.raises(ValueError, match="for which network: pass `arch`"):
        load_model(tmp_path / "checkpoint.pt.best")
