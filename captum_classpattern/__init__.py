"""Class-wise patterns for Captum: the few pixels of an image that make a classifier predict a
class on as many other images as possible."""

from importlib.metadata import version

import lazy_loader

# names are listed in __init__.pyi and loaded when they are first used: torch takes seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("captum_classpattern")
