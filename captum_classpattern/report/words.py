"""What a reader must know of each table."""

MAIN = (
    "Predictive power is the share of held-out images of other classes that the model calls the "
    "class once they are stamped with the pattern; in brackets the Wilson 95 % interval, in "
    "percent. Rows are means over the canvases of a kind: their own spread is not in the "
    "interval. No pattern: the share that the model calls so without any. IoU: how far the mask "
    "agrees with that of another seed, or of another canvas of the class. Passes and seconds are "
    "a canvas's; a pass is an image forward and backward."
)
AREAS = (
    "Methods that search were searched anew for each area; “map cut” is their one map, cut to "
    "each area. All other methods have one map."
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
    "Predictive power, on another model, of the pattern that was found on the row's own model."
)
CAPTUM = (
    "Infidelity (of maps of the image's full shape) and sensitivity_max (of methods that do not "
    "search), by captum.metrics: the lower the better. Neither is comparable to power."
)
