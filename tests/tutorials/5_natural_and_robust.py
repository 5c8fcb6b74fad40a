"""The conclusions of tutorials/5_natural_and_robust.ipynb, over its variables."""

robust = means["pattern,\nrobust"]
for kind in ("natural", "short"):
    assert robust < 0.75 * means[f"pattern,\n{kind}"], f"simpler than the {kind} model's"
assert robust < 0.5 * means["random\npixels"], "and not by chance"

for name in models:
    power = sum(each.scores[0.05].power.value for each in found[name])
    controls = sum(each.scores[0.05].random_pixels for each in found[name])
    assert power > 2 * controls, f"{name}: above random pixels"
