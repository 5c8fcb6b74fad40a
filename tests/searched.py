"""The masks of a search that fits all baselines and keeps none for validation."""

from dataclasses import replace
from typing import NamedTuple

import torch

from captum_classpattern.classifier import enter_model
from captum_classpattern.classifier.class_names import parse_targets
from captum_classpattern.images import LabelledImages
from captum_classpattern.optimization.features import number_features
from captum_classpattern.optimization.pool import begin_search
from captum_classpattern.optimization.schedule import Stream
from captum_classpattern.optimization.settings import SearchSettings


class Masks(NamedTuple):
    masks: torch.Tensor  # (N, 1, H, W)
    losses: torch.Tensor  # (N, steps)
    passes: torch.Tensor  # (N,)


def search_masks(
    net, canvases, target, baselines, *, baseline_labels=None, area=0.05,
    additional_forward_args=(), **settings,
):  # fmt: skip
    settings = SearchSettings(areas=[area], **settings)
    source = LabelledImages.of(baselines, baseline_labels, argument="baselines")
    targets = parse_targets(target, len(canvases), net)
    ids = number_features(settings.feature_mask, canvases, settings.areas)
    arguments = additional_forward_args
    with enter_model(net, canvases, settings.seed, additional=arguments) as model:
        streams = [Stream(target) for target in targets]
        settings = replace(settings, feature_mask=ids)
        search = begin_search(model, canvases, streams, source, settings, arguments)
        search.finish()
    return Masks(search.pixel_masks, search.loss_curves, search.passes)
