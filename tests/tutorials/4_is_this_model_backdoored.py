"""The conclusions of tutorials/4_is_this_model_backdoored.ipynb, over its variables."""

assert (scan.verdict, scan.target_name) == ("suspicious", "T-shirt")
assert len(scan.references) == 60
assert abs(scan.p_value - 1 / 61) < 1e-9, "the smallest p-value of 60 references"
assert control.verdict == "nothing found"
bag = control.class_names.index("Bag")
assert control.profile.powers[10][bag] > 0.3, "the bag is strong on the clean model, too"
assert control.test.excess[bag] < scan.test.excess[scan.target] / 2, "but not unusual"

on = {name: cp.predictive_power(models[name], scan.pattern, images.held_out, area=None)
      for name in ("backdoored", "natural")}  # fmt: skip
assert on["backdoored"].value > 0.9, "it works on held-out images"
assert on["natural"].value < 0.1, "and not on the clean model"

shares = [
    (m.clamp(min=0) * scan.pattern.mask).sum() / m.clamp(min=0).sum() for m in maps
]  # of the positive attribution
assert shares[0] > 2 * shares[1], "the suspect's prediction comes from the stamped pixels"
assert labels[0] == scan.target != labels[1]

assert success > 0.99, "the backdoor that was planted by hand works"
assert (accuracy - (models["natural"](pixels).argmax(1) == truth).float().mean()).abs() < 0.01
assert missed.verdict == "nothing found", "and is missed"
