"""What a reader must know of each table."""

INTERVALS = (
    "Each row is a mean over classes, of the means over each class's canvases of a kind; in "
    "brackets its 95 % interval, in percent. With five classes or more it is a bootstrap over "
    "the classes: how much the mean would change with other classes. With fewer, or if all have "
    "the same power, it is made of the classes' Wilson intervals: how much the mean would change "
    "with other images, for these classes alone. "
)
MAIN = (
    "Predictive power is the share of held-out images of other classes that the model calls the "
    "class once they are stamped with the pattern. " + INTERVALS + "No pattern: the share that "
    "the model calls so without any. IoU: how far the mask agrees with that of another seed, or "
    "of another canvas of the class. Passes and seconds are a canvas's; a pass is an image "
    "forward and backward."
)
AREAS = (
    "Methods that search were searched anew for each area; “map cut” is their one map, cut to "
    "each area. All other methods have one map. Means and intervals are those of the first table."
)
LOCALISED = (
    "All five scores are in [0, 1], and 1 is perfect; IoU and relevance rank look at as many of "
    "a map's strongest pixels as the trigger has. Models without a trigger are measured with that "
    "of another one, as a control: there is nothing to find."
)
HIDDEN = (
    "The canvases do not show the trigger: a method must know of it by itself. But methods that "
    "search an area are told how many pixels the trigger changes, and a white canvas is blank: "
    "white pixels of a trigger do not stand out on it. " + LOCALISED
)
VISIBLE = "The canvases are images stamped with the trigger: it is there to see. " + LOCALISED
SHAPE = (
    "Of the masks at the compared area. The lower the first three, the simpler the shape; the "
    "higher the IoU, the more stable."
)
TRANSFER = (
    "Predictive power, on another model, of the pattern that was found on the row's model. Means "
    "and intervals are those of the first table."
)
CAPTUM = (
    "Infidelity (of maps of the image's full shape) and sensitivity_max (of methods that do not "
    "search), by captum.metrics: the lower the better. Neither is comparable to power."
)
