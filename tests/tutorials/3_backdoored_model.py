"""The conclusions of tutorials/3_backdoored_model.ipynb, over its variables."""

scores = {name: found.scores("white", area=0.01) for name, found in surveys.items()}
powers = {name: {y: s.power.value for y, s in each.items()} for name, each in scores.items()}
T_SHIRT, BAG = held_out.class_names.index("T-shirt"), held_out.class_names.index("Bag")

assert max(powers["backdoored"], key=powers["backdoored"].get) == T_SHIRT, "it comes first"
assert scores["backdoored"][T_SHIRT].beats_controls
assert powers["backdoored"][T_SHIRT] > 10 * powers["clean"][T_SHIRT], "not on the clean model"
assert max(powers["clean"], key=powers["clean"].get) == BAG
assert "It stands out" in surveys["clean"].strongest("white", area=0.01), "no proof"

assert on_trigger >= 2, "some of the pattern's pixels lie on the trigger"
on_clean = clean["T-shirt"].pattern.topk(0.01).mask * trigger.mask
assert on_trigger > on_clean.sum(), "more than those of the clean model"
assert power.value > 0.99, "the trigger works"

assert shares["backdoored", "clean"] < 0.03, "Integrated Gradients: nothing on clean images"
assert shares["backdoored", "trigger"] > 3 * shares["clean", "trigger"], "but with the trigger"
assert predicted["backdoored"].tolist()[1] == T_SHIRT != predicted["clean"].tolist()[1]

at_5_percent = {y: s.power.value for y, s in wider["backdoored"].scores("white", 0.05).items()}
assert at_5_percent[BAG] > at_5_percent[T_SHIRT] - 0.05, "hidden with more pixels"
