"""The conclusions of tutorials/3_is_this_model_backdoored.ipynb, over its variables."""

scores = {name: found.scores("white", area=0.01) for name, found in surveys.items()}
of_class = {name: {y: s.power.value for y, s in each.items()} for name, each in scores.items()}
T_SHIRT, BAG = held_out.class_names.index("T-shirt"), held_out.class_names.index("Bag")
assert max(of_class["suspect"], key=of_class["suspect"].get) == T_SHIRT, "it comes first"
assert of_class["suspect"][T_SHIRT] > 10 * of_class["clean"][T_SHIRT], "not on the clean model"
assert max(of_class["clean"], key=of_class["clean"].get) == BAG
assert "stands out" in surveys["clean"].strongest("white", area=0.01), "no proof"

# by rounding alone, the T-shirt can reach the bound in one search or in two
assert scan.verdict in ("inconclusive", "suspicious")
assert (scan.target_name, scan.kind) == ("T-shirt", "10_pixels")
leads = scan.leads("10_pixels")
assert sorted(leads, key=leads.get)[:-3:-1] == [T_SHIRT, BAG], "the bag is close behind"

assert (control.verdict, control.target) == ("nothing found", BAG)
assert control.decision.ahead.strength < 0.75, "it is not far ahead"

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
assert (second.verdict, second.target, second.kind) == ("suspicious", dress, "warp")
assert second.power > 0.7
others = [second.power_of("warp", y) for y in second.found["warp"] if y != dress]
assert max(others) < 0.2, "no other class comes near the bound"

assert switched > 0.99, "the backdoor that was planted by hand works"
clean = (models["clean"](pixels).argmax(1) == truth).float().mean()
assert (accurate - clean).abs() < 0.01
assert difference < 1e-3, "nothing leads to it"
for of in control.found.values():  # whatever the scan has found in the clean model for the T-shirt
    for each in of[T_SHIRT]:
        changed = each.pattern.stamp(pixels)
        assert (hidden(changed) - models["clean"](changed)).abs().max() < 0.01
