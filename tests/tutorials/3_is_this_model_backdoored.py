"""The conclusions of tutorials/3_is_this_model_backdoored.ipynb, over its variables."""

from captum_classpattern.scanning.families import CHANGES

scores = {name: found.scores("white", area=0.01) for name, found in surveys.items()}
of_class = {name: {y: s.power.value for y, s in each.items()} for name, each in scores.items()}
T_SHIRT, BAG = held_out.class_names.index("T-shirt"), held_out.class_names.index("Bag")
assert max(of_class["suspect"], key=of_class["suspect"].get) == T_SHIRT, "it comes first"
assert of_class["suspect"][T_SHIRT] > 10 * of_class["clean"][T_SHIRT], "not on the clean model"
assert max(of_class["clean"], key=of_class["clean"].get) == BAG
assert "stands out" in surveys["clean"].strongest("white", area=0.01), "no proof"

assert (scan.verdict, scan.target_name) == ("suspicious", "T-shirt")
assert scan.family == "patches"
assert len(scan.references) >= scan.needed
ends = {of: max(each.usual_standardised) for of, each in scan.comparisons.items()}
assert scan.comparisons["patches"].largest > 2 * ends["patches"], "far more than any clean model"
for family in ("additive", "warp"):
    assert scan.comparisons[family].largest < ends[family], "what clean models have, too"
assert scan.looks["additive"].power.value > 0.5, "although it is strong"
assert control.looks["additive"].power.value > 0.5, "as on the clean model"

assert control.verdict == "nothing found"
bag = control.class_names.index("Bag")
assert control.profile.powers[10][bag] > 0.3, "the bag is strong on the clean model, too"
assert control.comparison.largest <= max(
    max(each.usual_standardised) for each in control.comparisons.values()
), "but clean models have such classes"

on = {name: cp.predictive_power(model, scan.pattern, held_out, area=None)
      for name, model in models.items()}  # fmt: skip
assert on["suspect"].value > 0.9, "it works on held-out images"
assert on["clean"].value < 0.1, "and not on the clean model"

shares = [
    (m.clamp(min=0) * scan.pattern.mask).sum() / m.clamp(min=0).sum() for m in maps
]  # of the positive attribution
assert shares[0] > 2 * shares[1], "the suspect's prediction comes from the stamped pixels"
assert labels[0] == scan.target != labels[1]

assert accuracy > 0.8, "the warped model still classifies"
assert success > 0.7, "and has learnt its trigger"
assert (second.verdict, second.target, second.family) == ("suspicious", dress, "warp")
assert second.looks["warp"].power.value > 0.7

assert switched > 0.99, "the backdoor that was planted by hand works"
clean = (models["clean"](pixels).argmax(1) == truth).float().mean()
assert (accurate - clean).abs() < 0.01
assert difference < 1e-3, "nothing leads to it"
found = [p.stamp(pixels) for (size, y), p in control.profile.patterns.items() if y == 0]
found += [CHANGES[name].change(control.profile, 0)(pixels) for name in ("additive", "warp")]
for changed in found:  # whatever the scan has found in the clean model for the T-shirt
    assert (hidden(changed) - models["clean"](changed)).abs().max() < 0.01
