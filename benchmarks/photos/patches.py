"""Patches that are committed: their colours and opacity in bytes."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from findings import Row
from safetensors.torch import load_file, save
from torch import Tensor

from captum_classpattern import Pattern
from captum_classpattern._support.files import write_atomically
from captum_classpattern.surveys import Survey
from photos.drawings import over_grey
from photos.moving import FILE, FOLDER
from photos.planting import ROOT

PATCHES = ROOT / "benchmarks" / "weights" / "photos_patches.safetensors"


def keep(rows: Iterable[Row], out: Path) -> None:
    """Writes the patches of the rows, which a folder has in full."""
    packed = {}
    for row in rows:
        patch = patch_in(row, out)
        both = torch.cat([patch.canvas, patch.mask]).mul(255).round()
        packed[name_of(row)] = both.to(torch.uint8).contiguous()
    write_atomically(PATCHES, save(packed))


def pictures_of(rows: Sequence[Row]) -> list[Tensor]:
    """The patches of the rows, on grey."""
    kept = load_file(PATCHES)
    patches = [kept[name_of(row)].float() / 255 for row in rows]
    return [over_grey(patch[:3], patch[3:]) for patch in patches]


def name_of(row: Row) -> str:
    """What the file calls a row's patch."""
    return f"{row['network']}/{row.get('trojan', row['class'])}"


def patch_in(row: Row, out: Path) -> Pattern:
    if "trojan" in row:
        return Pattern.load(out / FILE.format(row["network"], row["trojan"]))
    surveys = FOLDER.format(row["side"], row["seed"], "*")
    [file] = out.glob(f"{surveys}/findings/{row['class']}.safetensors")
    return Survey.load(file.parents[1]).finding(row["class"]).pattern
