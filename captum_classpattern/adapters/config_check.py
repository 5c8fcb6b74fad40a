"""Configurations of networks in JSON, which a stranger may have written to run code or to take all
memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from captum_classpattern._support.files import parse_json, printable, read_text, reading

BROKEN, AGAIN = "was not written by save_pretrained", "save or download it again"
OWN_WAY = "build its network yourself, and give it as `arch` with a file of its weights"
REFUSED = {
    "auto_map": f"needs code of its author, which is not run: {OWN_WAY}, or give another network",
    "quantization_config": "has quantised weights, which are not read: give whole ones",
}
ATTENTION = (None, "eager", "sdpa")  # transformers would load others from elsewhere
LARGEST_FILE = 2**24  # bytes
LARGEST = 2**20  # number, such as that of tokens, or sum of a list, such as all layers
LONGEST = 1024  # list, but for names of classes
NAMES = ("label_names", "labels")


def read_json(path: Path) -> dict[str, Any]:
    """What a file of settings holds; nothing if there is none."""
    if not path.is_file():
        return {}
    with reading(path, BROKEN, AGAIN):
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise ValueError(f"it has {size:,} bytes")
        values = parse_json(read_text(path))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}")
    return values


def check_config(config: Mapping[str, Any], source: str) -> None:
    """Raises an error if a configuration asks for code, or for what takes much memory or time."""
    for key, value in _entries(config):
        if key in REFUSED and value:
            raise ValueError(f"{source} {REFUSED[key]}")
        if key.endswith("attn_implementation") and value not in ATTENTION:
            raise ValueError(
                f"{source} asks for the attention {printable(value):.80}, which is not loaded: "
                "save it with attn_implementation='eager'"
            )
        listed = value if isinstance(value, list) else [value]
        sizes = [abs(each) for each in listed if isinstance(each, int | float)]
        if sum(sizes) > LARGEST or (len(listed) > LONGEST and key not in NAMES):
            raise ValueError(
                f"{source} has too large numbers in its configuration, or too many, as "
                f"{printable(key):.80}: {AGAIN}"
            )


def _entries(values: Any) -> Iterator[tuple[str, Any]]:
    """All values in nested ones, with their keys; those in a list have the list's."""
    waiting = [("", values)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((key, each) for each in value if isinstance(each, dict | list))
