"""Is this model backdoored? Learned pixels of every class, compared with those of clean models."""

from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scanning.scan import Scan, scan
from captum_classpattern.scanning.triage import Triage

__all__ = ["ReferenceSet", "Scan", "Triage", "scan"]
