"""Zip files of strangers: refused where torch's reader could see another file than Python's, or
where a few bytes would unpack to many."""

import io
import struct
import zipfile
from pathlib import Path

from captum_classpattern.adapters.pickles import shown

PICKLE_LIMIT = 64 * 2**20  # bytes of all but the tensors
PICKLED = (".pkl", ".pickle")
END = struct.Struct("<4s4H2LH")  # of a zip file: ..., place of its directory, size of a comment


def check_directory(path: Path, place: int) -> None:
    """Refuses a zip file whose end does not lead to the directory that was read: torch's reader
    would follow it to another one."""
    with path.open("rb") as file:
        file.seek(-END.size, io.SEEK_END)
        mark, *_, told, comment = END.unpack(file.read())
    if mark != b"PK\x05\x06" or comment or told not in (place, 0xFFFFFFFF):
        raise ValueError(
            f"{path} has another directory than its end says, which torch.save never writes: it "
            "may hold other things than it lists"
        )


def check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuses what torch.save never writes and what could unpack to a great deal."""
    if entries and min(entry.header_offset for entry in entries) != 0:
        raise ValueError(
            f"{path} has its directory in another place than it says, which torch.save never does: "
            "it may hold other things than it lists"
        )
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"{path} is compressed inside ({shown([entry.filename])}), which torch.save never "
                "does: unpack it, and zip it again without compression (zip -0)"
            )
        if entry.filename.lower().endswith(PICKLED) and entry.file_size > PICKLE_LIMIT:
            raise ValueError(
                f"{path} holds {entry.file_size / 2**20:.0f} MiB beside its tensors, more than the "
                f"limit of {PICKLE_LIMIT / 2**20:.0f} MiB: ask for a plain state dict"
            )
