"""Opening checkpoints of strangers: what is in a file, without running anything from it."""

import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from captum_classpattern.adapters.archives import PICKLED, check_directory, check_entries
from captum_classpattern.adapters.arrays import NotHarmlessError
from captum_classpattern.adapters.pickles import globals_of, harmless, operations_of, shown

SIZE_LIMIT = 16 * 2**30  # bytes, also of what a zip would unpack to
USUAL = ("torch.", "numpy.", "collections.", "_codecs.")  # told after what is stranger
LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save began with before zip files
ZIP = b"PK\x03\x04"
PLAIN = "torch.save(model.state_dict(), path), or safetensors.torch.save_model(model, path)"
UNSAFE = (
    "{path} was not opened: it is {kind}, which can run code of its maker when it is opened. "
    "{globals}Ask for a plain state dict ({plain}). Only if you trust the file as you would trust "
    "a program, pass trust_pickle=True (--trust-pickle)."
)
TEXTS = {
    b"<": "a web page, as a failed or blocked download leaves it",
    b"version https://git-lfs": "a git-lfs pointer, not the file that it points to",
    b"{": "JSON text",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
}


class Opened(NamedTuple):
    """A file's content, and how it was read: "safetensors", "weights_only" or "pickle"."""

    content: Any
    how: str


def open_checkpoint(path: Path, trust_pickle: bool = False) -> Opened:
    """Reads a checkpoint onto the CPU; runs nothing from it unless ``trust_pickle``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint, is damaged or too large, or needs pickle.
    """
    if not path.is_file():
        is_folder = " (a folder is there)" if path.is_dir() else ""
        raise FileNotFoundError(f"there is no checkpoint file at {path}{is_folder}")
    check_size(path, path.stat().st_size, "has")
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < SIZE_LIMIT:
        return Opened(_safetensors(path), "safetensors")
    if head.startswith(ZIP):
        return _zip(path, trust_pickle)
    if head.startswith(b"\x80") and LEGACY in head[:32]:
        return _torch_file(path, "a pickle of torch's old format", trust_pickle)
    for start, meaning in TEXTS.items():
        if head.lstrip().startswith(start):
            raise ValueError(f"{path} is no checkpoint: it is {meaning}")
    if b"ustar" in head[257:265]:
        raise ValueError(f"{path} is a tar archive: unpack it, and give the checkpoint inside")
    if not head or not _is_pickle(path):
        raise ValueError(
            f"{path} is no checkpoint of a known format: it has {path.stat().st_size} bytes and "
            f"begins with {head[:16]!r}. Was it downloaded whole?"
        )
    if not trust_pickle:
        raise ValueError(_refusal(path, "a bare pickle"))
    with path.open("rb") as file, _trusted(path):
        return Opened(pickle.load(file), "pickle")


def check_size(path: Path, size: int, has: str) -> None:
    """Raises an error if a file is, or would become, larger than the limit."""
    if size > SIZE_LIMIT:
        raise ValueError(
            f"{path} {has} {size / 2**30:.1f} GiB, more than the limit of "
            f"{SIZE_LIMIT / 2**30:.1f} GiB for a checkpoint"
        )


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} looks like a safetensors file, but is truncated or damaged ({error}): "
            "download it again"
        ) from error


def _zip(path: Path, trust_pickle: bool) -> Opened:
    """A zip file: torch's own, an archive that holds a program, or none of these."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            held = sorted(archive.namelist())
            place = archive.start_dir
    except Exception as error:  # a damaged one can fail in any way
        raise ValueError(
            f"{path} begins like a checkpoint of torch.save, but is truncated or damaged "
            f"({error}): download it again"
        ) from error
    check_size(path, sum(entry.file_size for entry in entries), "would unpack to")
    inner = {name.partition("/")[2] for name in held}  # without the archive's own name
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return _program(path, "a TorchScript archive", trust_pickle)
    if "archive_format" in inner or "serialized_exported_program.json" in {*inner, *held}:
        return _program(path, "a torch.export archive", trust_pickle)
    if "data.pkl" in inner:
        check_directory(path, place)
        check_entries(path, entries)
        return _torch_file(path, "a pickle", trust_pickle)
    raise ValueError(
        f"{path} is a zip file, but none that torch.save wrote: it holds {shown(held)}. "
        f"{_asked_for(path)}If one of these is the checkpoint, unpack it and give that"
    )


def _program(path: Path, kind: str, trust_pickle: bool) -> Opened:
    """TorchScript and torch.export: programs, not weights."""
    if not trust_pickle:
        raise ValueError(_refusal(path, kind, scan=False))
    with _trusted(path):
        if kind.startswith("a TorchScript"):
            script = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
            return Opened(script, "pickle")
        module = torch.export.load(path).module()
    for part in module.modules():  # its eval() is an error, and it knows no train mode
        part.training = False
    return Opened(module, "pickle")


def _torch_file(path: Path, kind: str, trust_pickle: bool) -> Opened:
    """What torch.save wrote: weights and harmless values, or else a pickle, refused or trusted."""
    try:
        # as an open file: of a name on .safetensors, torch would go by that
        with torch.serialization.safe_globals(harmless()), path.open("rb") as file:
            return Opened(torch.load(file, map_location="cpu", weights_only=True), "weights_only")
    except (pickle.UnpicklingError, NotHarmlessError) as error:
        if not trust_pickle:
            told = f"{kind} (with {error})" if isinstance(error, NotHarmlessError) else kind
            raise ValueError(_refusal(path, told)) from None
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path} was written by torch.save, but is truncated or damaged ({reason}): download "
            "it again"
        ) from error
    with _trusted(path), path.open("rb") as file:
        return Opened(torch.load(file, map_location="cpu", weights_only=False), "pickle")


@contextmanager
def _trusted(path: Path) -> Iterator[None]:
    """Opening what runs code: whatever goes wrong there is told with the file's name."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} can't be opened, though it was trusted ({type(error).__name__}: {error}): "
            "either it is damaged, or the code that it asks for can't be imported here"
        ) from error


def _refusal(path: Path, kind: str, *, scan: bool = True) -> str:
    asked = _asked_for(path) if scan else ""
    return UNSAFE.format(path=path, kind=kind, globals=asked, plain=PLAIN)


def _asked_for(path: Path) -> str:
    """A sentence on the globals of all pickles in a file."""
    names: set[str] = set()
    with path.open("rb") as file:
        if file.read(len(ZIP)) != ZIP:  # by its beginning, as torch does: a zip may be appended
            file.seek(0)
            names.update(globals_of(file))
        else:
            names.update(_of_zip(path))
    usual_last = sorted(names, key=lambda name: (name.startswith(USUAL), name))
    return f"It asks for {shown(usual_last)}. " if names else ""


def _of_zip(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.lower().endswith(PICKLED):
                # torch does not check it, so that a wrong one must not hide the names
                entry.CRC = None  # type: ignore[assignment]
                try:
                    with archive.open(entry) as file:
                        yield from globals_of(file)
                except Exception:
                    yield f"? ({entry.filename} can't be read)"


def _is_pickle(path: Path) -> bool:
    """Whether a file begins with a whole pickle."""
    try:
        with path.open("rb") as file:
            return any(operation.name == "STOP" for operation, _, _ in operations_of(file))
    except Exception:  # whatever else it may be
        return False
