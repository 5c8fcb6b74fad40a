"""What all HTML pages have in common: the template, the style sheet, the escaping."""

from captum_classpattern.pages.templating import (
    encode,
    hash_source,
    new_environment,
    policy,
    read_style,
    read_template,
)

__all__ = ["encode", "hash_source", "new_environment", "policy", "read_style", "read_template"]
