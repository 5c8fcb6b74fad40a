"""The conclusions of tutorials/8_many_models.ipynb, over its variables."""

first = strongest.iloc[0]
assert (first["model"], first["class_name"]) == ("backdoored", "T-shirt"), "the bright cell"
assert first["beats_controls"]
of_natural = table[(table["model"] == "natural") & (table["class_name"] == "T-shirt")]
assert first["power"] > 5 * of_natural["power"].item(), "not on the natural model"

assert len(table) == 30, "ten classes of three models"
assert again < 0.3 * seconds, "finished classes are not searched again"
assert found.failures == []

own = {name: transfer.loc[name, name] for name in found.models}
assert own["backdoored"] == max(own.values())
assert transfer.loc["backdoored", "natural"] < own["backdoored"], "less on the other model"

assert len(pages) == 1 + 3 + 30, "the index, an index for each model, and a page for each class"
