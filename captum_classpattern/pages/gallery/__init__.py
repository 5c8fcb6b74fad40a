"""The folder of a survey or of a sweep as a static site, with one page per model and class."""

from captum_classpattern.pages.gallery.site import write_gallery

__all__ = ["write_gallery"]
