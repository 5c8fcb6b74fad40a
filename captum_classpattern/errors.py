"""What the package says to its callers beside results: wrong arguments, and notices."""


class ArgumentTypeError(TypeError):
    """An argument of a wrong type. The command line shows these as a line, but a plain
    ``TypeError``, which is a fault of the code, with its traceback."""


class Notice(UserWarning):
    """What the package has done on the caller's behalf, and how to say it otherwise."""
