"""A checked model after the call that checked it."""

from captum_classpattern.classifier import enter_model


def entered(model, images, **keywords):
    with enter_model(model, images, **keywords) as checked:
        return checked
