"""The conclusions of tutorials/8_many_models.ipynb, over its variables."""

first = strongest.iloc[0]
assert (first["model"], first["class_name"]) == ("backdoored", "T-shirt"), "the bright cell"
assert first["beats_controls"]
of_natural = table[(table["model"] == "natural") & (table["class_name"] == "T-shirt")]
assert first["power"] > 5 * of_natural["power"].item(), "not on the natural model"

assert len(table) == 30, "ten classes of three models"
assert found.failures == {}
assert again.table().equals(table)
assert seconds < 5, "finished classes are not searched again"
assert [len(each) for each in findings.values()] == [2, 2, 2]

assert len(pages) == 1 + 10, "the index, and a page for each class"
assert "T-shirt" in (index.parent / "0_T-shirt.html").read_text()
