"""The report of a comparison."""

from captum_classpattern.pages.report import write_report

__all__ = ["write_report"]
