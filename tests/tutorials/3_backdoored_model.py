"""The conclusions of tutorials/3_backdoored_model.ipynb, over its variables."""

scores = {name: found.scores("white", area=0.01) for name, found in surveys.items()}
of_class = {name: {y: s.power.value for y, s in each.items()} for name, each in scores.items()}
T_SHIRT, BAG = held_out.class_names.index("T-shirt"), held_out.class_names.index("Bag")

assert max(of_class["backdoored"], key=of_class["backdoored"].get) == T_SHIRT, "it comes first"
assert scores["backdoored"][T_SHIRT].beats_controls
assert of_class["backdoored"][T_SHIRT] > 10 * of_class["clean"][T_SHIRT], "not on the clean model"
assert max(of_class["clean"], key=of_class["clean"].get) == BAG
assert "stands out" in surveys["clean"].strongest("white", area=0.01), "no proof"

planted, on_backdoored, on_clean = shown.values()
assert (on_backdoored.mask * planted.mask).sum() >= 2, "some of its pixels lie on the trigger"
assert (on_backdoored.mask * planted.mask).sum() > (on_clean.mask * planted.mask).sum()
assert powers["planted trigger"].value > 0.99, "the trigger works"
assert powers["found, clean model"].value < 0.2 < powers["found, backdoored model"].value

assert shares["backdoored", "clean"] < 0.03, "Integrated Gradients: nothing on clean images"
assert shares["backdoored", "trigger"] > 3 * shares["clean", "trigger"], "but with the trigger"
assert predicted["backdoored"].tolist()[1] == T_SHIRT != predicted["clean"].tolist()[1]

at_5_percent = {y: s.power.value for y, s in wider["backdoored"].scores("white", 0.05).items()}
assert at_5_percent[BAG] > at_5_percent[T_SHIRT] - 0.05, "hidden with more pixels"
