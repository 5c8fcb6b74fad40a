"""The conclusions of tutorials/6_imagenet_class.ipynb, over its variables."""

assert zebra.accuracy > 0.7, "normalisation and class numbers are right"
assert scores.beats_controls, "above all controls"
assert scores.power.value > 0.4
assert everywhere.min() > scores.strongest_control, "at any place"
assert power.interval[1] < scores.power.value, "the first pixels of Integrated Gradients do not"
assert "zebra" not in [names[output.argmax()] for output in outputs[:3]], "without the patch"
assert "zebra" in [names[output.argmax()] for output in outputs[3:]]
