"""Other people's models as classifiers over [0, 1] pixels."""

from captum_classpattern.adapters.load import load_model
from captum_classpattern.classifier import PixelClassifier

__all__ = ["PixelClassifier", "load_model"]
