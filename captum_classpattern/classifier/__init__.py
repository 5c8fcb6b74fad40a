"""Classifiers over [0, 1] pixels: a wrapper for the user's model, and calls that leave a model
unchanged."""

from captum_classpattern.classifier.calling import (
    COUNTED,
    MIN_GAIN,
    MIN_LABELLED,
    Classifier,
    additional_rows,
    check_targets,
    device_and_dtype,
    find_module,
    guessing_below,
    images_at_once,
    lacks_memory,
    on_device,
    preserve_state,
    seed_generators,
    uncounted,
    warn,
    warn_if_guessing,
)
from captum_classpattern.classifier.checked import CheckedModel, enter_model
from captum_classpattern.classifier.fingerprints import difference
from captum_classpattern.classifier.pixel_classifier import PixelClassifier

__all__ = [
    "COUNTED", "MIN_GAIN", "MIN_LABELLED", "CheckedModel", "Classifier", "PixelClassifier",
    "additional_rows", "check_targets", "device_and_dtype", "difference", "enter_model",
    "find_module", "guessing_below", "images_at_once", "lacks_memory", "on_device",
    "preserve_state", "seed_generators", "uncounted", "warn", "warn_if_guessing",
]  # fmt: skip
