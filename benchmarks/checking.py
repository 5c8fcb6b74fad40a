"""A model that was checked, for the functions inside the package."""

from captum_classpattern.classifier import CheckedModel, Classifier, enter_model
from captum_classpattern.images import ImagesAndLabels, first_of


def checked(model: Classifier, images: ImagesAndLabels) -> CheckedModel:
    """The model, checked with the first of some images. It should be in eval mode."""
    with enter_model(model, first_of(images)) as entered:
        return entered
