"""The static site of a survey or of a sweep."""

from captum_classpattern.pages.gallery import write_gallery

__all__ = ["write_gallery"]
