"""A widget for notebooks: patterns at each number of pixels, on images, with the predictions."""

from captum_classpattern.pages.explorer.explore import explore
from captum_classpattern.pages.explorer.widget import Explorer

__all__ = ["Explorer", "explore"]
