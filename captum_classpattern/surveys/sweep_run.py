"""A time in words, for the commands that announce one."""


def duration(seconds: float) -> str:
    """A time with two digits or so, in the unit that suits it."""
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
