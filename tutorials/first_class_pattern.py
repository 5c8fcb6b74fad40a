"""This tutorial demonstrates a first class pattern, next to Integrated Gradients.

It takes the natural Fashion-MNIST model and the images that ship with the package, asks Captum's
IntegratedGradients and ClassPattern the same question - which pixels of this bag say "Bag"? -
stamps each one's answer on images that neither has seen, and counts how many become bags.

    python tutorials/first_class_pattern.py [figure.png]
"""

import sys

import matplotlib

matplotlib.use("Agg")

from captum.attr import IntegratedGradients
from captum.attr import visualization as viz

from captum_classpattern import ClassPattern, Pattern, predictive_power, select_canvases
from captum_classpattern.demo import demo_images, demo_models

BAG = 8

# 1. The model, and two sets of images that never mix: one to search with, one to score on.
model = demo_models()["natural"]
images = demo_images()
search, held_out = images.search, images.held_out

# 2. The canvas: the search image of a bag that the model is surest of.
canvas = select_canvases(model, search.images, search.labels, BAG, n=1)

# 3. Two attributions of the same canvas, through the same interface.
explainers = {
    "IntegratedGradients": IntegratedGradients(model),
    "ClassPattern": ClassPattern(model, search.images, search.labels),
}
maps = {name: explainer.attribute(canvas, target=BAG) for name, explainer in explainers.items()}

# 4. The 5 % of pixels that each ranks first, as a pattern, on held-out images of other classes.
print("share of held-out images of other classes that the model calls Bag:")
for name, attribution in maps.items():
    ranking = attribution[0].sum(0, keepdim=True).clamp(min=0)
    pattern = Pattern(canvas[0], ranking / ranking.max(), BAG)
    power = predictive_power(model, pattern, held_out.images, held_out.labels, area=0.05)
    low, high = power.interval
    print(f"  {name:20} {power.value:6.1%} ({low:.1%} to {high:.1%})")
print(f"  {'no pattern':20} {power.without:6.1%}")

# 5. Both maps through Captum's visualizer. A mask is never negative, so its sign is "positive".
#    (The visualizer scales each map by itself: compare places, not colours.)
picture = canvas[0].expand(3, -1, -1).permute(1, 2, 0).numpy()
shown = {"canvas": None, **maps}
figure, axes = matplotlib.pyplot.subplots(1, len(shown), figsize=(9, 3.4))
for axis, (name, attribution) in zip(axes, shown.items()):
    heat = picture if attribution is None else attribution[0].permute(1, 2, 0).numpy()
    viz.visualize_image_attr(
        heat,
        picture,
        method="original_image" if attribution is None else "heat_map",
        sign="all" if name == "IntegratedGradients" else "positive",
        title=name,
        plt_fig_axis=(figure, axis),
        use_pyplot=False,
    )
if len(sys.argv) > 1:
    figure.savefig(sys.argv[1], dpi=120, bbox_inches="tight")
