"""A comparison as one HTML page that needs nothing but itself."""

from captum_classpattern.report.writing import write_report

__all__ = ["write_report"]
