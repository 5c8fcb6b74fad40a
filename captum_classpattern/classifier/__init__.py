"""Classifiers over [0, 1] pixels: a wrapper for the user's model, and calls that leave a model as
it was."""

from captum_classpattern.classifier.calling import COUNTED as COUNTED
from captum_classpattern.classifier.calling import MIN_GAIN as MIN_GAIN
from captum_classpattern.classifier.calling import MIN_LABELLED as MIN_LABELLED
from captum_classpattern.classifier.calling import Classifier as Classifier
from captum_classpattern.classifier.calling import additional_rows as additional_rows
from captum_classpattern.classifier.calling import attribute_of as attribute_of
from captum_classpattern.classifier.calling import check_targets as check_targets
from captum_classpattern.classifier.calling import device_and_dtype as device_and_dtype
from captum_classpattern.classifier.calling import find_module as find_module
from captum_classpattern.classifier.calling import guessing_below as guessing_below
from captum_classpattern.classifier.calling import images_at_once as images_at_once
from captum_classpattern.classifier.calling import lacks_memory as lacks_memory
from captum_classpattern.classifier.calling import on_device as on_device
from captum_classpattern.classifier.calling import preserve_state as preserve_state
from captum_classpattern.classifier.calling import seed_generators as seed_generators
from captum_classpattern.classifier.calling import uncounted as uncounted
from captum_classpattern.classifier.calling import warn as warn
from captum_classpattern.classifier.calling import warn_if_guessing as warn_if_guessing
from captum_classpattern.classifier.checked import CheckedModel as CheckedModel
from captum_classpattern.classifier.checked import enter_model as enter_model
from captum_classpattern.classifier.fingerprints import difference as difference
from captum_classpattern.classifier.pixel_classifier import PixelClassifier as PixelClassifier
