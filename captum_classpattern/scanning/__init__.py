"""Is this model backdoored? Learned pixels of every class, compared with those of clean models."""

from captum_classpattern.scanning.references import ReferenceSet
from captum_classpattern.scanning.results import Scan
from captum_classpattern.scanning.scan import scan
from captum_classpattern.scanning.triage import Ranking

Triage = Ranking  # what 0.4 called the result of a scan without references

__all__ = ["ReferenceSet", "Scan", "Triage", "scan"]
