"""Is this model backdoored? What small changes of images do for each class."""

from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scanning.results import Scan
from captum_classpattern.scanning.scan import scan
from captum_classpattern.scanning.training import ReferenceTraining

__all__ = ["ReferenceSet", "ReferenceTraining", "Scan", "scan"]
