"""What the page says above each table."""

from captum_classpattern.comparison.metrics import CAPTUM, POWER, SHAPE, TRANSFER

AREAS = (
    "Methods that search ran again for each area; “map cut” is their map for the compared area, "
    "cut to the other ones. All other methods have one map. Means and intervals are those of the "
    "first table."
)
LOCALISED = (
    " All scores of the built-in metrics lie in [0, 1], and 1 is perfect. If there is only one "
    "trigger, it is also looked for on models without it, as a control: there is nothing to find."
)
HIDDEN = (
    "The canvases do not show the trigger, so a method can only find it in the model. Methods that "
    "search for an area get the number of pixels that the trigger changes. A white canvas is "
    "blank: white pixels of a trigger cannot be seen on it." + LOCALISED
)
VISIBLE = "The canvases are images stamped with the trigger, so it is there to see." + LOCALISED
INTRODUCTIONS = {
    POWER: (
        "Predictive power is the share of held-out images of other classes that the model predicts "
        "as the class once they are stamped with the pattern. “No pattern” is the share without "
        "a pattern. Each row is a mean over classes, and each class's value is the mean over its "
        "canvases of one kind. The 95 % interval is given in brackets, in percent. With five "
        "classes or more it is a bootstrap over the classes: how much the mean would change with "
        "other classes. With fewer classes, or if all have the same power, it comes from the "
        "classes' Wilson intervals: how much the mean would change with other images of these "
        "classes."
    ),
    SHAPE: "The shape of the masks at the compared area.",
    TRANSFER: (
        "Predictive power, on another model, of the pattern found on the row's model. Means and "
        "intervals are those of the first table."
    ),
    CAPTUM: "Computed by captum.metrics. They cannot be compared with predictive power.",
}
