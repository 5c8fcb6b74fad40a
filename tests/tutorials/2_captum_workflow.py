"""The conclusions of tutorials/2_captum_workflow.ipynb, over its variables."""

once, often = mask[0, 0] > 0, smooth[0, 0] > 0.5 * smooth.max()
by_chance = once.sum() * often.sum() / once.numel()
assert (once & often).sum() > 3 * by_chance, "some pixels return under noise"
assert (often & ~once).any() or (once & ~often).any(), "others do not"
assert masks[0].isclose(mask[0], atol=0.05).float().mean() > 0.95, "in a batch as alone"

assert scores["gradient"][0] < 0.6, "infidelity is the gradient's own measure"
assert scores["class pattern"][0] > 0.8, "and not the class pattern's"
others_powers = [power for method, (_, power) in scores.items() if method != "class pattern"]
assert scores["class pattern"][1] > 2 * max(others_powers), "predictive power is"

assert accuracies["class pattern"] < accuracies["random pixels"] - 0.2, "not just any pixels"
assert accuracies["PGD"] < accuracies["class pattern"], "PGD is the stronger attack"

mean_powers = {row["method"]: [] for row in comparison.rows()}
for row in comparison.table().query("area == 0.05").to_dict("records"):
    mean_powers[row["method"]].append(row["power"])
best_of = {method: max(values) for method, values in mean_powers.items()}
rivals = [power for method, power in best_of.items() if method != "ClassPattern"]
assert best_of["ClassPattern"] > 1.5 * max(rivals), "first of those compared"
