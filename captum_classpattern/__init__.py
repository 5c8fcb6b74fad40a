"""Class-wise patterns for Captum: the few pixels of an image that make a classifier predict a
class on as many other images as possible (Zhao et al. 2021, arXiv 2101.06898).

Start with ``explain_class(model, images, labels, target="dog")``.

- ``explain_class``, ``survey``, ``sweep``: patterns of a class, of all classes, of many models
- ``scan``: is a model backdoored?
- ``compare``, ``known_methods``: Captum's methods and others on the same images
- ``ClassPattern``: the search as a ``captum.attr.Attribution``; ``LearnedPattern`` learns colours,
  ``MovingPatch`` a patch that works anywhere
- ``Pattern``, ``predictive_power``: what is found, and its score on images of your choice
- ``load_model``, ``load_images``, ``PixelClassifier``, ``LabelledImages``: models and images
- ``select_canvases``, ``Cells``: canvases to cut patterns from, and pixels that stay together
- ``plot_patterns``, ``plot_grid``: figures; every result also has ``text``, ``table`` and ``plot``
- ``demo_models``, ``demo_images``: small models and images to try all this on
- ``Notice``: the category of warnings about choices made for you
"""

import warnings
from importlib.metadata import version

import lazy_loader

# Names are listed in __init__.pyi and loaded on first use, because importing torch takes seconds.
# Without __all__, help() shows the docstring above, not the help of every name.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("captum_classpattern")
warnings.filterwarnings("ignore", "IProgress not found")  # from Captum, in notebooks
