"""Is this model backdoored? Learned pixels of every class, compared with those of clean models."""

from captum_classpattern.scan.references import ReferenceSet
from captum_classpattern.scan.scan import Scan, scan

__all__ = ["ReferenceSet", "Scan", "scan"]
