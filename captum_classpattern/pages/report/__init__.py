"""A comparison as one self-contained HTML page."""

from captum_classpattern.pages.report.page import write_report

__all__ = ["write_report"]
