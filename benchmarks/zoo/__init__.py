"""Networks to try a scan on: clean and backdoored ones of several data sets, which train in
minutes."""

from zoo.backdoors import Backdoor
from zoo.entries import Entry, confirmation, development
from zoo.training import DATA_SETS, Recipe, train

__all__ = ["DATA_SETS", "Backdoor", "Entry", "Recipe", "confirmation", "development", "train"]
