"""Class-wise patterns for Captum: the few pixels of an image that make a classifier predict a
class on as many other images as possible (Zhao et al. 2021, arXiv 2101.06898).

``explain_class`` is the place to start: ``explain_class(model, images, labels, target="dog")``.

- ``explain_class``: the pattern of one class, its power on held-out images, and its controls
- ``survey``: the patterns of all classes
- ``scan``: is a model backdoored? A verdict with a p-value
- ``compare``: Captum's methods and others on the same images
- ``sweep``: many models, on one machine or many
- ``ClassPattern``: the search as a ``captum.attr.Attribution``
- ``load_model``, ``load_images``: from checkpoints and folders
"""

from importlib.metadata import version

import lazy_loader

# names are listed in __init__.pyi and loaded when they are first used: torch takes seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("captum_classpattern")
