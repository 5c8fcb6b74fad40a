"""Many models: their surveys in one folder, searched on one machine or a cluster."""

from captum_classpattern.sweeps.results import Sweep
from captum_classpattern.sweeps.run import sweep

__all__ = ["Sweep", "sweep"]
