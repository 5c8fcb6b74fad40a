"""Results as HTML: notebooks, single pages, the report of a comparison, the gallery, and the
widget."""

from captum_classpattern.pages.gallery import write_gallery
from captum_classpattern.pages.report import write_report

__all__ = ["write_gallery", "write_report"]
