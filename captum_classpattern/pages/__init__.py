"""Results as HTML: notebooks, single pages, the report of a comparison, and the widget."""

from captum_classpattern.pages.report import write_report

__all__ = ["write_report"]
