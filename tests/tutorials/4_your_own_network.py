"""The conclusions of tutorials/4_your_own_network.ipynb, over its variables."""

assert before["accuracy"] > 0.65, "a network that is of use"
assert before["the drawing works"] > 0.9, "and that has learnt its trigger"
assert ship.power.value > 0.5, "a patch stands for a class"
assert ship.scores[ship.area].beats_controls, "and does better than its controls"

assert (found.verdict, found.target_name) == ("suspicious", "horse"), "the planted class"
assert found.suspects == [HORSE], "alone"

assert repaired["the drawing works"] < 0.1, "the trigger is gone"
assert repaired["accuracy"] > before["accuracy"] - 0.05, "and the network as good as before"
assert control["the drawing works"] > 0.5, "not because of the training alone"
