"""The conclusions of tutorials/4_your_own_model.ipynb, over its variables."""

right, *wrong = accuracy.values()
assert right > 0.8, "the normalisation is right"
assert right > max(wrong) + 0.15, "and a wrong one is revealed by its accuracy"
assert abs(best.accuracy - right) < 0.1, "explain_class saw the same model"

scores = best.scores[0.05]
assert scores.beats_controls, "above all controls"
assert scores.power.value < 0.9, "and not on almost any image"
integrated_gradients = cp.predictive_power(model, rival, held_out)
assert integrated_gradients.value < scores.power.interval[0], "other pixels"

by_canvas = {finding.canvas: finding.scores[0.05] for finding in found}
assert list(by_canvas) == ["positive", "white", "black"], "the shell tries all three"
assert by_canvas["white"].beats_controls
assert by_canvas["white"].power.value > by_canvas["positive"].power.value
