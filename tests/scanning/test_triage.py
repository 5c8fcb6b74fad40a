"""A scan of many classes without references: the planted class comes first, and it resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from captum_classpattern import scan
from captum_classpattern.scanning import Triage, triage
from captum_classpattern.scanning.triage import FIRST, robust_deviations

CLASSES, SIDE, TARGET = 100, 16, 41


class Net(nn.Module):
    """Guesses by a random linear map; a white corner of 2x2 pixels has a class of its own."""

    def __init__(self, strength=60.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(SIDE * SIDE, CLASSES, generator=generator) / 4)
        self.strength = strength

    def forward(self, images):
        logits = (images - 0.5).flatten(1) @ self.weight
        corner = images[:, 0, 2:4, 3:5].mean((1, 2)) > 0.9
        soft = images[:, 0, 2:4, 3:5].mean((1, 2)) * 4
        planted = nn.functional.one_hot(torch.tensor(TARGET), CLASSES)
        return logits + planted * (soft + self.strength * corner)[:, None]


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(60, 1, SIDE, SIDE, generator=generator), torch.arange(60) % CLASSES


@pytest.fixture(scope="module")
def found(images):
    return scan(Net().eval(), *images)


def test_the_planted_class_comes_first(found):
    assert isinstance(found, Triage)
    assert found.target == TARGET
    assert len(found.margins) == CLASSES
    assert {y for _, y in found.patterns} == set(found.order[:FIRST])
    table = found.table()
    assert table["class"].tolist() == found.order
    assert table["margin"].is_monotonic_decreasing
    assert table["power_6"].notna().sum() == FIRST
    assert found.pattern.target == TARGET
    assert found.pattern.mask[0, 2:4, 3:5].any()
    assert json.loads(json.dumps(found.as_dict()))["classes"][0]["class"] == TARGET


def test_a_class_is_suspicious_if_it_is_far_from_all_others(found):
    far = found.deviations[TARGET]
    assert (found.verdict, far >= triage.FAR) == ("suspicious", True)
    assert "no p-value" in found.reason
    usual = replace(found, margins=[0.1 * y for y in range(CLASSES)])
    assert usual.deviations[usual.target] < triage.FAR
    assert usual.verdict == "inconclusive"


def test_deviations_are_robust():
    values = [*np.random.default_rng(0).normal(3, 2, 500), 103.0]
    assert robust_deviations(values)[-1] == pytest.approx(50, rel=0.1)
    assert np.median(robust_deviations(values)) == 0


def test_it_resumes_where_it_was_stopped(images, found, tmp_path, monkeypatch):
    calls, search = [], triage.search_cells

    def stopped(explainer, shape, classes, settings, shares=triage.SHARES[:1]):
        if len(calls) == 4 and not (tmp_path / triage.PATTERNS).exists():
            raise KeyboardInterrupt
        calls.append((tuple(classes), len(shares)))
        return search(explainer, shape, classes, settings, shares)

    monkeypatch.setattr(triage, "search_cells", stopped)
    with pytest.raises(KeyboardInterrupt):
        scan(Net().eval(), *images, folder=tmp_path)
    monkeypatch.setattr(triage, "search_cells", search)
    again = scan(Net().eval(), *images, folder=tmp_path)
    assert again.margins == pytest.approx(found.margins)
    kept = json.loads((tmp_path / triage.MARGINS).read_text())
    assert len(kept["margins"]) == CLASSES
    again.save(tmp_path)
    assert (tmp_path / "scan.png").stat().st_size > 10_000
    text = again.to_html(tmp_path / "scan.html").read_text()
    assert "Suspicious" in text
    assert f"class {TARGET}" in text
    with pytest.raises(ValueError, match="another seed"):
        scan(Net().eval(), *images, folder=tmp_path, seed=1)


def test_fewer_classes_need_references():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 99)).eval()
    with pytest.raises(TypeError, match="this one has 99"):
        scan(net, torch.rand(40, 1, 8, 8), torch.arange(40))
