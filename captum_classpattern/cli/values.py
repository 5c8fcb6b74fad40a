"""How the values of options are read. A ValueError says what a value must be."""

import json
import os
import re
from pathlib import Path


def whole_number(text: str, *, least: int) -> int:
    if not re.fullmatch(r"\d{1,19}", text) or int(text) not in range(least, 2**63):
        raise ValueError(f"it must be a whole number from {least} up, got {text!r}")
    return int(text)


def numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        message = f"it must be numbers such as 0.5 or 0.485,0.456,0.406, got {text!r}"
        raise ValueError(message) from None


def folder(text: str) -> Path:
    path = Path(text)
    if path.is_file():
        raise ValueError(f"it must be a folder, but {text} is a file")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{text} can't be written, because of {existing}: give another folder")
    return path


def source(text: str) -> str:
    if not text.startswith("torchvision:") and not Path(text).exists():
        raise ValueError(f"{text} does not exist; give a folder, an .npz file, or torchvision:NAME")
    return text


def device(text: str) -> str:
    import torch

    try:
        torch.empty(0, device=text)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{text} can't be used here: {reason}") from error
    return text


def check_area(_: type, area: float | None) -> None:
    if area is not None and not 0 < area < 1:
        raise ValueError("It is the share of the pixels, between 0 and 1, such as 0.05.")


def selection(text: str) -> list[str | range]:
    """Names, and ranges of numbers, of a list such as dog,0,3-5."""
    chosen: list[str | range] = []
    for part in (part.strip() for part in text.split(",")):
        if numbers := re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part):
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            if last < first:
                raise ValueError(f"the range {part} is empty: give {last}-{first}")
            chosen.append(range(first, last + 1))
        elif re.fullmatch(r"[\d\s-]*", part):
            raise ValueError(
                f"it must be names, numbers and ranges, such as dog,0,3-5, got {text!r}"
            )
        else:
            chosen.append(part)
    return chosen


def class_names(text: str) -> list[str]:
    """The names in a file: a JSON list, or one a line."""
    path = Path(text)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file ({error})") from error
    if not content.lstrip().startswith(("[", "{")):
        lines = [line.strip() for line in content.rstrip().splitlines()]
        if "" in lines:
            raise ValueError(
                f"line {lines.index('') + 1} of {path} is empty: give one name per line"
            )
        return lines
    try:
        names = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must hold a JSON list of names")
    return names
