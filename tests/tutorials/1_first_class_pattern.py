"""The conclusions of tutorials/1_first_class_pattern.ipynb, over its variables."""

scores = bag.scores[0.05]
assert scores.beats_controls, "the bag has a pattern"
assert scores.power.value > 0.9, "which turns nearly any image into a bag"
assert abs(after.float().mean() - scores.power.value) < 1e-6, "stamping by hand gives the power"
assert abs(before.float().mean() - scores.power.without) < 1e-6

rivals = [power for name, power in powers.items() if name != "class pattern"]
assert powers["class pattern"] > 1.4 * max(rivals), "Integrated Gradients carries less"
assert rivals[1] > rivals[0], "a black baseline is a handicap"

assert sneaker.scores[0.05].power.value < 0.3 * scores.power.value, "not every class has one"
