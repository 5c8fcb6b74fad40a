"""The conclusions of tutorials/6_imagenet_class.ipynb, over its variables."""

scores = zebra.scores[0.05]
assert zebra.accuracy > 0.7, "normalisation and class numbers are right"
assert scores.beats_controls, "above all controls"
assert scores.power.value > 3 * scores.strongest_control
assert scores.power.value < 0.5, "most photos do not become zebras"
assert power.interval[1] < scores.power.value, "the first pixels of Integrated Gradients do not"
assert "zebra" not in [names[output.argmax()] for output in outputs[:3]], "without the pattern"
before_it, with_it = outputs[:3, zebra.target], outputs[3:, zebra.target]
assert with_it.mean() > before_it.mean(), "more zebra with it"
