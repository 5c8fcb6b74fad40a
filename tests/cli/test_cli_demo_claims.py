"""The demo's verdicts follow from its numbers."""

import pytest
import torch

from captum_classpattern.cli.demo import make_verdicts
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import power_of
from captum_classpattern.surveys import Finding, Scores, Survey

AREAS = (0.05, 0.01)
PIXELS = torch.zeros(1, 28, 28, dtype=torch.bool)
PIXELS[0, 24:26, 24:27] = True


def finding(target, canvas, hits, control=0.0, mask=None, n=900):
    if mask is None:
        mask = torch.zeros(1, 28, 28)
        mask[0, target, :10] = 0.5
    power = power_of(hits, n, 9)
    info = {"search_power": hits / n}
    scores = {area: Scores(power, control, control) for area in AREAS}
    large = Pattern(torch.ones(1, 28, 28), torch.full((1, 28, 28), 0.5), target, info)
    small = Pattern(torch.ones(1, 28, 28), mask, target, info)  # the trigger is sought in this one
    return Finding({0.05: large, 0.01: small}, canvas, scores)


def surveys(natural=(800,) * 10, backdoored=(850,) + (100,) * 9, trigger=True):
    found = {"natural": [], "backdoored": [], "robust": []}
    for target in range(10):
        for canvas in ("positive", "white"):
            is_trigger = trigger and target == 0 and canvas == "white"
            found["natural"].append(finding(target, canvas, natural[target]))
            found["backdoored"].append(
                finding(
                    target, canvas, backdoored[target], mask=PIXELS.float() if is_trigger else None
                )
            )
            found["robust"].append(finding(target, canvas, 50, control=0.5))
    return {model: Survey(of_model, 10) for model, of_model in found.items()}


def verdicts(**changes):
    return make_verdicts(surveys(**changes), PIXELS)


def claims(found, claim, model):
    return [v for v in found if v["claim"] == claim and v["model"] == model]


def test_claim_1_holds_only_if_every_class_reaches_almost_any_image():
    assert claims(verdicts(natural=(850,) * 10), 1, "natural")[0]["holds"]
    one_weak = claims(verdicts(natural=(850,) * 9 + (100,)), 1, "natural")[0]
    assert not one_weak["holds"]
    assert "from 11.1% (Ankle boot) to 94.4%" in one_weak["text"]
    assert "86.1%" in one_weak["text"]  # (9 * 850 + 100) / 9000


def test_claim_1_names_the_classes_that_do_not_beat_their_controls():
    robust = claims(verdicts(), 1, "robust")[0]
    assert "0 of 10 classes beat all three controls; T-shirt, Trouser" in robust["text"]
    natural = claims(verdicts(), 1, "natural")[0]
    assert "10 of 10 classes beat all three controls. 'Almost any image'" in natural["text"]
    assert "holds for no class." in natural["text"]


@pytest.mark.parametrize(
    ("rival", "holds"),
    # 829 of 900 is within the interval of 850, and 810 not clearly below it; 900 is above
    [(100, True), (820, True), (830, False), (900, False)],
)
def test_claim_2_needs_a_clear_difference_to_all_others(rival, holds):
    found = claims(verdicts(backdoored=(850, rival) + (50,) * 8), 2, "backdoored")
    stands_out, located = found[:-1], found[-1]
    assert len(stands_out) == 4  # two canvases, two areas
    assert {v["holds"] for v in stands_out} == {holds}
    assert all(("does not stand out" in v["text"]) != holds for v in stands_out)
    assert located["holds"]


def test_claim_2_needs_the_controls_to_be_beaten():
    found = surveys()
    found["backdoored"] = Survey(
        finding(f.target, f.canvas, 850 if f.target == 0 else 100, control=0.94)
        for f in found["backdoored"]
    )
    verdict = claims(make_verdicts(found, PIXELS), 2, "backdoored")[0]
    assert not verdict["holds"]
    assert "does not stand out" in verdict["text"]


def test_the_mean_of_claim_1_has_an_interval_over_the_classes():
    text = claims(verdicts(natural=(850,) * 9 + (100,)), 1, "natural")[0]["text"]
    assert "95 % bootstrap interval over 10 classes" in text


def test_a_trigger_that_a_control_shows_as_well_was_not_found():
    found = surveys()
    found["natural"] = Survey(
        finding(f.target, f.canvas, 800, mask=PIXELS.float()) for f in found["natural"]
    )
    verdict = make_verdicts(found, PIXELS)[-1]
    assert not verdict["holds"]
    assert "was not found" in verdict["text"]


def test_the_trigger_is_found_where_the_masks_meet():
    found = verdicts()[-1]
    assert found["holds"]
    assert "was found" in found["text"]
    assert "0.00 on the positive canvas, 1.00 on the white canvas" in found["text"]
    missed = verdicts(trigger=False)[-1]
    assert not missed["holds"]
    assert "was not found" in missed["text"]
