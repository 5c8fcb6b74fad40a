"""Is this model backdoored? What small changes of images do for each class."""

from captum_classpattern.scanning.results import Scan
from captum_classpattern.scanning.scan import scan

__all__ = ["Scan", "scan"]
