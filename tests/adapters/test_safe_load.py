"""Opening checkpoints of strangers: none of their code runs, and refusals say why."""

import argparse
import gzip
import io
import json
import os
import pathlib
import pickle
import pickletools
import re
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from safetensors.torch import save_file
from torch import nn

from captum_classpattern.adapters import CheckpointFile, load_model, safe_load
from captum_classpattern.adapters.safe_load import imported_names

SYSTEM = f"{os.system.__module__}.system"  # posix.system


def open_checkpoint(path, trust_pickle=False):
    """The file, once its content is read."""
    file = CheckpointFile(path, trust_pickle)
    _ = file.content
    return file


class Payload:
    """What pickles into a command that makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self):
        return os.system, (f"touch '{self.made}'",)


def weights():
    return nn.Linear(2, 3).state_dict()


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()  # SHORT_BINUNICODE


def ending(code):
    """Calls the function on the stack with some code, and ends."""
    return b"X" + struct.pack("<I", len(code)) + code.encode() + b"\x85R."  # BINUNICODE, REDUCE


MODULE, NAME = SYSTEM.split(".")
DECOYS = {  # pickles that take up posix.system, among names that they do not take up
    "popped": text(MODULE) + text("system") + text("OrderedDict") + b"0\x93",
    "from the memo": text(MODULE) + b"\x94" + text("system") + b"\x9400"
    + text("collections") + text("OrderedDict") + b"00h\x00h\x01\x93",
    "memo by number": text(MODULE) + b"q\x07" + text("system") + b"q\x0900"
    + text("torch") + text("Size") + b"00h\x07h\x09\x93",
    "doubled": text(MODULE) + text("system") + b"2" + text("Size") + b"00\x93",
    "behind a mark": text(MODULE) + text("system") + b"(" + text("torch") + text("Size") + b"1\x93",
    "in a tuple": text(MODULE) + text("system") + text("torch") + text("Size") + b"\x860\x93",
    "in a list": text(MODULE) + text("system") + b"](" + text("torch") + text("Size") + b"e0\x93",
    "old text": text(MODULE) + b"Vsystem\n" + b"S'OrderedDict'\n0\x93",
    "old global": f"c{MODULE}\nsystem\n".encode() + text("torch") + text("Size") + b"00",
}  # fmt: skip


def naive(data):
    """What a scanner that takes the last two texts before each STACK_GLOBAL would report."""
    seen, reported = [], []
    for operation, argument, _ in pickletools.genops(data):
        if isinstance(argument, str):
            seen.append(argument)
        if operation.name == "STACK_GLOBAL":
            reported.append(".".join(seen[-2:]))
    return reported


def zipped(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_pkl", ".pkl"), data)


def torch_zip(path, data):
    """A file of torch.save, around these pickled bytes."""
    zipped(path, archive__data_pkl=data, archive__version=b"3\n", archive__byteorder=b"little")


def by_torch(path):
    with path.open("rb") as file:
        torch.load(file, weights_only=False)


def by_pickle(path):
    pickle.loads(path.read_bytes())


# each writes a file that would run a command, and returns what would run it
def saved(around, **settings):
    def write(path, made):
        torch.save(around(Payload(made)), path, **settings)
        return by_torch

    return write


def raw(protocol):
    def write(path, made):
        path.write_bytes(pickle.dumps({"state_dict": Payload(made)}, protocol))
        return by_pickle

    return write


def decoyed(start):
    def write(path, made):
        torch_zip(path, b"\x80\x04" + start + ending(f"touch '{made}'"))
        return by_torch

    return write


def zip_of_a_pickle(path, made):
    zipped(path, model_pkl=pickle.dumps(Payload(made)), readme=b"weights")
    return lambda path: pickle.loads(zipfile.ZipFile(path).read("model.pkl"))


def wrong_checksum(path, made):
    """torch reads a zip whatever its checksums say; Python's reader would stop."""
    torch_zip(path, pickle.dumps(Payload(made), 2))
    with zipfile.ZipFile(path) as archive:
        right = struct.pack("<I", archive.getinfo("archive/data.pkl").CRC)
    path.write_bytes(path.read_bytes().replace(right, b"\1\2\3\4"))
    return by_torch


def zip_behind(path, made):
    """A pickle of the old format, with a harmless zip for those who look at the end of a file."""
    saved(lambda bad: {"model": bad}, _use_new_zipfile_serialization=False)(path, made)
    harmless = io.BytesIO()
    torch.save(weights(), harmless)
    path.write_bytes(path.read_bytes() + harmless.getvalue())
    return by_torch


EXPLOITS = {
    "torch.save": saved(lambda bad: bad),
    "in a state dict": saved(lambda bad: {"state_dict": {**weights(), "bias": bad}}),
    "in an optimizer": saved(lambda bad: {"model": weights(), "optimizer": {"state": {0: bad}}}),
    "in a list": saved(lambda bad: {"state_dict": weights(), "log": [1, [2, (3, bad)]]}),
    "old format": saved(lambda bad: {"a": bad, **weights()}, _use_new_zipfile_serialization=False),
    "old format, protocol 3": saved(
        lambda bad: [bad], _use_new_zipfile_serialization=False, pickle_protocol=3
    ),
    **{f"raw pickle {protocol}": raw(protocol) for protocol in range(6)},
    **{f"decoys {name}": decoyed(start) for name, start in DECOYS.items()},
    "zip of a pickle": zip_of_a_pickle,
    "wrong checksum": wrong_checksum,
    "zip behind": zip_behind,
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_nothing_runs_and_the_imports_are_reported(exploit, name, tmp_path, monkeypatch):
    path, made = tmp_path / name, tmp_path / "made"
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    detonate = EXPLOITS[exploit](path, made)
    for opened in (open_checkpoint, load_model):
        with pytest.raises(ValueError, match=f"It imports {SYSTEM}"):
            opened(path)
    with pytest.raises(ValueError, match=SYSTEM):
        load_model(path, arch="resnet18", num_classes=3, mean=0.5, std=0.5, format="plain")
    result = run(["search", str(path), "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert SYSTEM in result.output
    assert not made.exists()
    detonate(path)  # it is a real one
    assert made.exists()


def test_trust_pickle_is_the_only_way_past(tmp_path):
    path, made = tmp_path / "model.pkl", tmp_path / "made"
    raw(4)(path, made)
    text = (
        f"{path} was not opened: it is a bare pickle, which can run its author's code when "
        rf"it is opened. It imports {SYSTEM}. Ask for a plain state dict \(torch.save\(model"
        r".state_dict\(\), path\), or .* Only if you trust .* `trust_pickle=True`"
    )
    with pytest.raises(ValueError, match=text):
        open_checkpoint(path)
    assert not made.exists()
    assert open_checkpoint(path, trust_pickle=True).opened_by == "pickle"
    assert made.exists()


def test_eval_is_named(tmp_path):
    path, made = tmp_path / "model.pt", tmp_path / "made"
    code = f"__import__('pathlib').Path({str(made)!r}).touch()"
    path.write_bytes(b"\x80\x04" + text("builtins") + text("eval") + b"\x93" + ending(code))
    with pytest.raises(ValueError, match=r"It imports builtins\.eval"):
        open_checkpoint(path)
    assert not made.exists()
    by_pickle(path)
    assert made.exists()


def test_suspicious_imports_come_first_and_long_lists_are_shortened(tmp_path):
    names = [f"x{number:02}" for number in range(30)]
    listed = b"".join(f"czzz\n{name}\n0".encode() for name in names)
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02ctorch\nSize\n0cnumpy\ndtype\n0" + listed + b"N.")
    with pytest.raises(ValueError, match=r"imports zzz.x00, .*, zzz.x19 and 12 more\. Ask"):
        open_checkpoint(path)


def test_control_characters_are_not_printed(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04" + text("a\x1b[2J") + text("b\n") + b"\x93N.")
    with pytest.raises(ValueError, match=r"imports a\?\[2J\.b\?\. "):
        open_checkpoint(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused_and_trusted(tmp_path):
    path, net = tmp_path / "model.pt", nn.Linear(2, 3).eval()
    torch.jit.script(net).save(str(path))
    text = "model.pt was not opened: it is a TorchScript archive, which can run .*state_dict"
    for opened in (open_checkpoint, load_model):
        with pytest.raises(ValueError, match=text):
            opened(path)
    result = run(["search", str(path), "--data", str(tmp_path)])
    assert (result.exit_code, "TorchScript" in result.output) == (2, True)
    x = torch.rand(4, 2)
    module = open_checkpoint(path, trust_pickle=True).content
    assert torch.equal(module(x), net(x))


@pytest.mark.filterwarnings("ignore")  # torch.export's own
def test_torch_export_is_refused_and_trusted(tmp_path):
    path, net, x = tmp_path / "model.pt2", nn.Linear(2, 3).eval(), torch.rand(4, 2)
    torch.export.save(torch.export.export(net, (x,)), path)
    with pytest.raises(ValueError, match=r"it is a torch\.export archive, which can run"):
        load_model(path)
    result = run(["search", str(path), "--data", str(tmp_path)])
    assert (result.exit_code, "torch.export" in result.output) == (2, True)
    classifier = load_model(path, trust_pickle=True, mean=0, std=1)
    assert torch.equal(classifier.model(x), net(x))
    assert not any(part.training for part in classifier.modules())


def test_a_whole_module_is_refused_with_its_imports_and_trusted(tmp_path):
    path, net = tmp_path / "model.pt", nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    for new in (True, False):
        torch.save(net, path, _use_new_zipfile_serialization=new)
        with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
            load_model(path)
        classifier = load_model(path, trust_pickle=True, mean=0.5, std=0.25)
        images = torch.rand(4, 3, 2, 2)
        assert torch.equal(classifier(images), net((images - 0.5) / 0.25))
        assert not classifier.training
        assert not any(part.training for part in classifier.modules())
        assert classifier.provenance["opened"] == "pickle"


@pytest.mark.parametrize("kind", ["pickle", "torch", "old"])
def test_trusted_but_not_importable(kind, tmp_path):
    path = tmp_path / "model.pt"
    data = b"\x80\x02cnowhere.to_be\nFound\n)R."
    if kind == "pickle":
        path.write_bytes(data)
    elif kind == "torch":
        torch_zip(path, data)
    else:
        torch.save([1], path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"\x80\x02]q\x00K\x01a.", data))
    with pytest.raises(ValueError, match=r"imports nowhere\.to_be\.Found"):
        open_checkpoint(path)
    with pytest.raises(ValueError, match=r"though it was trusted \(ModuleNotFoundError.*nowhere"):
        open_checkpoint(path, trust_pickle=True)


# the globals of a pickle


class Stub:
    """Replaces whatever a pickle imports."""

    def __init__(self, *args, **kwargs): ...
    def __setstate__(self, state): ...
    def __setitem__(self, key, value): ...
    def append(self, value): ...
    def extend(self, values): ...


class Recorder(pickle.Unpickler):
    """Python's reader; it records what a pickle imports, and imports nothing."""

    def __init__(self, data):
        super().__init__(io.BytesIO(data), fix_imports=False)
        self.names = []

    def find_class(self, module, name):
        self.names.append(f"{module}.{name}")
        return Stub


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "held",
    [
        {"a": Payload(Path("x")), "b": [np.float64(3), np.arange(3), {1, 2}]},
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
        argparse.Namespace(out=pathlib.PurePosixPath("a/b"), lr=1e-3, same=[Payload] * 3),
    ],
)
def test_imported_names_are_those_that_python_imports(held, protocol):
    data = pickle.dumps(held, protocol)
    recorder = Recorder(data)
    recorder.load()
    assert len(recorder.names) > 2
    assert list(imported_names(io.BytesIO(data))) == recorder.names


@pytest.mark.parametrize("decoy", DECOYS)
def test_imported_names_follow_the_stack(decoy):
    data = b"\x80\x04" + DECOYS[decoy] + ending("true")
    recorder = Recorder(data)
    recorder.load()
    assert list(imported_names(io.BytesIO(data))) == recorder.names == [SYSTEM]
    assert naive(data) != [SYSTEM]


def test_the_list_of_globals_by_torch_is_not_enough(tmp_path):
    """It reads no pickles of protocol 4. Once it does, it can replace ours for zip files."""
    path = tmp_path / "model.pt"
    torch_zip(path, b"\x80\x04" + DECOYS["popped"] + ending("true"))
    with pytest.raises(pickle.UnpicklingError, match="Unsupported operand"):
        torch.serialization.get_unsafe_globals_in_checkpoint(path)


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (text("os") + b"N\x93", "os.?"),
        (b"N" + text("system") + b"\x93", "?.system"),
        (b"ccodecs\ndecode\nC\x02os\x85R" + text("system") + b"\x93", "codecs.decode"),
        (b"(ios\nsystem\n", "os.system"),
    ],
)
def test_names_computed_while_the_pickle_runs(start, named):
    assert next(imported_names(io.BytesIO(b"\x80\x04" + start + b"."))) == named


def test_a_computed_module_is_reported_as_unknown():
    data = b"\x80\x04ccodecs\ndecode\nC\x02os\x85R" + text("system") + b"\x93."
    assert list(imported_names(io.BytesIO(data))) == ["codecs.decode", "?.system"]


@pytest.mark.parametrize("data", [b"", b"\x93", b"\x80\x04h\x05\x93", b"\xff\xff", b"0001", b"(1"])
def test_imported_names_of_nonsense(data):
    assert set(imported_names(io.BytesIO(data))) <= {"?.?", "?"}


# harmless values


def checkpoint(tmp_path):
    parameter = nn.Parameter(torch.rand(3, 2))
    optimizer = torch.optim.Adam([parameter], amsgrad=True)
    parameter.sum().backward()
    optimizer.step()
    return {
        "state_dict": {"weight": parameter.detach(), "bias": torch.rand(3).half()},
        "optimizer": optimizer.state_dict(),
        "accuracy": np.float64(0.75),
        "epoch": np.int64(3),
        "flag": np.bool_(True),
        "losses": np.arange(6, dtype=np.float32).reshape(2, 3),
        "names": np.array(["a", "bc"]),
        "poisoned": {np.int64(1): np.zeros(2, bool)},
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("a/b"), size=(3, 32, 32)),
    }


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.dtype == b.dtype and bool((a == b).all())
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("numpy_name", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("path_name", [b"pathlib", b"pathlib._local"])
@pytest.mark.parametrize("new", [True, False])
def test_harmless_values_are_read(numpy_name, path_name, new, tmp_path):
    path, content = tmp_path / "checkpoint.pth", checkpoint(tmp_path)
    torch.save(content, path, _use_new_zipfile_serialization=new)
    renamed = [
        (rb"cnumpy\._?core\.multiarray\n", b"c" + numpy_name + b".multiarray\n"),
        (rb"cpathlib(\._local)?\nPosixPath\n", b"c" + path_name + b"\nPosixPath\n"),
    ]

    def patched(data):
        for old, name in renamed:
            assert re.search(old, data)
            data = re.sub(old, name, data)
        return data

    if new:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        files["checkpoint/data.pkl"] = patched(files["checkpoint/data.pkl"])
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        path.write_bytes(patched(path.read_bytes()))
    opened = open_checkpoint(path)
    assert opened.opened_by == "weights_only"
    assert same(content, opened.content)


def test_harmless_values_are_allowed_for_this_file_alone(tmp_path):
    before = set(torch.serialization.get_safe_globals())  # torch gives them in any order
    torch.save(checkpoint(tmp_path), tmp_path / "model.pt")
    open_checkpoint(tmp_path / "model.pt")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pt", weights_only=True)


def test_a_harmless_object_array_is_not_read(tmp_path):
    """An array of objects is a way to any class, so that what it holds is checked like all else."""
    made = tmp_path / "made"
    torch.save({"a": np.array([Payload(made)], object)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=SYSTEM):
        open_checkpoint(tmp_path / "model.pt")
    assert not made.exists()


def test_safetensors_and_half_precision(tmp_path):
    state = {key: value.half() for key, value in weights().items()}
    save_file(state, tmp_path / "model.safetensors")
    save_file(state, tmp_path / "model.pt")  # by content, not by name
    torch.save(state, tmp_path / "saved.safetensors")
    for name in ("model.safetensors", "model.pt"):
        opened = open_checkpoint(tmp_path / name)
        assert opened.opened_by == "safetensors"
        assert same(state, {key: opened.content[key] for key in state})
    opened = open_checkpoint(tmp_path / "saved.safetensors")
    assert opened.opened_by == "weights_only"
    assert same(dict(opened.content), state)


def test_the_old_format_of_another_protocol(tmp_path):
    state = weights()
    torch.save(state, tmp_path / "m", _use_new_zipfile_serialization=False, pickle_protocol=3)
    with pytest.warns(UserWarning, match="pickle protocol 3"):
        opened = open_checkpoint(tmp_path / "m")
    assert same(dict(opened.content), dict(state))


def test_a_trusted_file_is_still_read_safely_if_possible(tmp_path):
    torch.save(weights(), tmp_path / "model.pt")
    assert open_checkpoint(tmp_path / "model.pt", trust_pickle=True).opened_by == "weights_only"


# files that are not checkpoints


def tar(data):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))
    return written.getvalue()


def zip_bytes(names):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"")  # without the time
    return written.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", r"not a checkpoint of a known format: it has 0 bytes and begins with b''\. Was the"),
        (b"\n <!DOCTYPE html><html>", "not a checkpoint: it is a web page, as a failed or blocked"),
        (b"<html>404", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a git-lfs pointer, not the file"),
        (b'{"error": "denied"}', "it is JSON text"),
        (b'\n{"a": 1}', "it is JSON text"),
        (gzip.compress(b"x", mtime=0), "it is compressed with gzip: unpack it first"),
        (b"BZh91AY&SY", "compressed with bzip2"),
        (b"\xfd7zXZ\x00", "compressed with xz"),
        (b"7z\xbc\xaf'\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras"),
        (tar(b""), "is a tar archive: unpack it, and give the checkpoint inside"),
        (bytes(range(256)) * 4, "not a checkpoint of a known format: it has 1024 bytes and beg"),
        (b"garbage, not weights", "begins with b'garbage, not wei'. Was the download complete?"),
        (pickle.dumps({"a": [1] * 99})[:-20], "checkpoint of a known format.*download complete"),
        (zip_bytes(["a.txt", "b/c.png"]), r"zip file, but torch\.save did not write it: it contain"
         r"s a\.txt, b/c\.png\. If one of these is the checkpoint, unpack it"),
        (zip_bytes(["a", "b"])[:40], "begins like a checkpoint of torch.save, but is truncated"),
        (b"\x10" + b"\0" * 7 + b'{"a": {}', "looks like a safetensors file, but is truncated"),
    ],
)  # fmt: skip
def test_other_kinds_of_files(data, text, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=text) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    result = run(["search", str(path), "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert str(path) in result.output


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint file at .*/model\.pt$"):
        open_checkpoint(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .* \(this is a folder\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_truncated_files(kind, tmp_path):
    path, state = tmp_path / "model.pt", nn.Linear(40, 30).state_dict()
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "new")
    whole = path.read_bytes()
    for share in (0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"truncated or damaged \(.*\): download it again"):
            open_checkpoint(path)


def error_of(path):
    try:
        open_checkpoint(path)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_errors_on_damaged_files_name_the_file(kind, tmp_path):
    """Whatever is damaged: either an error that begins with the file's name, or nothing."""
    path, state = tmp_path / "model.pt", weights()
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "new")
    whole, random, errors = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            errors.append(error_of(path))
    raised = [error for error in errors if error is not None]
    assert len(raised) > 50
    assert {type(error) for error in raised} == {ValueError}
    assert all(str(error).startswith(str(path)) for error in raised)


def test_too_large(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    torch.save(weights(), path)
    monkeypatch.setattr(safe_load, "SIZE_LIMIT", path.stat().st_size)
    assert open_checkpoint(path).opened_by == "weights_only"
    monkeypatch.setattr(safe_load, "SIZE_LIMIT", path.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"has 0\.0 GiB, more than the limit of 0\.0 GiB for a"):
        open_checkpoint(path)


def test_a_zip_bomb(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**22)
    assert path.stat().st_size < 2**14
    monkeypatch.setattr(safe_load, "SIZE_LIMIT", 2**21)
    with pytest.raises(ValueError, match=r"model\.pt would unpack to 0\.0 GiB, more than"):
        open_checkpoint(path)


def test_a_zip_that_claims_to_be_large(tmp_path):
    """By the sizes that it declares, before anything is unpacked."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(5):
            archive.writestr(f"archive/{number}", b"1234567")
    size, huge = struct.pack("<II", 7, 7), struct.pack("<II", 7, 2**32 - 2)
    path.write_bytes(path.read_bytes().replace(size, huge))
    with pytest.raises(ValueError, match=r"would unpack to 20\.0 GiB, more than the limit of 16"):
        open_checkpoint(path)


def test_an_unreadable_pickle_in_a_zip(tmp_path):
    path = tmp_path / "model.pt"
    zipped(path, model_pkl=pickle.dumps([1]))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"model.pkl", b"nodel.pkl", 1))  # its own header, not the index
    with pytest.raises(ValueError, match=r"It imports \? \(model\.pkl can't be read\)"):
        open_checkpoint(path)


def test_json_is_recognised_whatever_its_name(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text(json.dumps({"weight": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="it is JSON text"):
        load_model(path)


# NumPy's pickle code trusts what it reads


class Forged:
    """Pickled as a call of a name, with a state."""

    def __init__(self, call, arguments, state):
        self.reduced = (call, arguments, state)

    def __reduce__(self):
        return self.reduced


def dtype(code, flags=0, size=-1, fields=None):
    return Forged(np.dtype, (code, False, True), (3, "|", None, None, fields, size, -1, flags))


def array(kind, shape, raw):
    reconstruct = np.zeros(1).__reduce__()[0]
    return Forged(reconstruct, (np.ndarray, (0,), b"b"), (1, shape, kind, False, raw))


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        (
            array(dtype("O8"), (1,), b"A" * 8),
            "other than numbers and text",
        ),  # a pointer of its choice
        (array(dtype("f8", flags=63), (1,), b"A" * 8), "with fields or flags"),
        (array(dtype("f8", fields={}), (1,), b"A" * 8), "with fields or flags"),
        (array(dtype("f8", size=800), (1,), b"A" * 8), "of the wrong size"),
        (array(dtype("f8"), (9,), b"A" * 8), "whose shape does not fit its bytes"),
        (array(dtype("f8"), (-1, -1), b"A" * 8), "an array of objects|array of objects"),
        (array(dtype("f8"), (1,), [1.5]), "array of objects"),
        (Forged(np.ndarray, ((10**12,),), None), "that was not pickled by NumPy"),
        (Forged(np.float64(1).__reduce__()[0], (dtype("f8"), b"A"), None), "bytes do not fit"),
        (
            Forged(np.float64(1).__reduce__()[0], (dtype("V8"), b"A" * 8), None),
            "other than numbers",
        ),
    ],
)
def test_forged_arrays_never_reach_numpy(forged, why, tmp_path):
    torch.save({"state_dict": weights(), "accuracy": forged}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=why) as error:
        open_checkpoint(tmp_path / "model.pt")
    assert "was not opened: it is a pickle (with a NumPy" in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.linspace(0, 1, 12).reshape(3, 4)),
        np.array(["ab", "c"]), np.array([b"x"]), np.array(2.5 + 1j),
        np.float16(1.5), np.str_("name"), np.bool_(True), np.array([True, False]),
    ],
    ids=str,
)  # fmt: skip
def test_numpy_values_are_unchanged(value, tmp_path):
    torch.save({"state_dict": weights(), "value": value}, tmp_path / "model.pt")
    read = open_checkpoint(tmp_path / "model.pt").content["value"]
    as_numpy_reads = pickle.loads(pickle.dumps(value, 2))  # in the byte order of the machine
    assert (read.dtype, read.shape) == (as_numpy_reads.dtype, value.shape)
    np.testing.assert_array_equal(read, value)


def test_a_file_that_would_unpack_to_much_more(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N" * 10**6)
    with pytest.raises(ValueError, match=r"compressed inside \(archive/data.pkl\), which torch.sa"):
        open_checkpoint(path)
    torch.save(weights(), path)
    monkeypatch.setattr(safe_load, "PICKLE_LIMIT", 10)
    with pytest.raises(ValueError, match=r"besides its tensors, more than the limit of 0 MiB"):
        open_checkpoint(path)


def test_only_the_beginning_of_an_endless_pickle_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_load, "MAX_OPERATIONS", 100)
    assert list(imported_names(io.BytesIO(b"cposix\nsystem\n" + b"N" * 200 + b"cos\nlate\n."))) == [
        "posix.system", "os.late",
    ][:1]  # fmt: skip


def test_an_array_is_filled_once(tmp_path):
    """A tensor may share its memory, which a second filling would free."""
    data = bytearray(pickle.dumps(np.arange(3.0), 2))
    build = data.index(b"b.")  # BUILD, and the end: the state again, and BUILD
    state = pickle.dumps((1, (3,), np.dtype("f8"), False, b"B" * 24), 2)[2:-1]
    (tmp_path / "twice.pkl").write_bytes(bytes(data[: build + 1]) + state + b"b.")
    assert pickle.loads((tmp_path / "twice.pkl").read_bytes())[0] != 0  # NumPy would do it
    path = torch_zip(tmp_path / "model.pt", (tmp_path / "twice.pkl").read_bytes())
    with pytest.raises(ValueError, match="a NumPy array that is filled twice"):
        open_checkpoint(tmp_path / "model.pt" if path is None else path)


@pytest.mark.parametrize("state", [{"__class__": 1}, [1], {1: 2}, None])
def test_a_namespace_takes_only_names(state, tmp_path):
    forged = Forged(argparse.Namespace, (), state if state is not None else (None, {"x": 1}))
    torch.save({"state_dict": weights(), "args": forged}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"a pickle \(with an argparse.Namespace with unusual"):
        open_checkpoint(tmp_path / "model.pt")


def test_a_zip_of_two_directories(tmp_path):
    """Python reads the directory before the end, torch the one that the end points to."""
    path = tmp_path / "model.pt"
    torch.save(weights(), path)
    data = path.read_bytes()
    place = int.from_bytes(data[-6:-2], "little")
    assert data[place : place + 4] == b"PK\x01\x02"
    path.write_bytes(data[:-22] + data[place:-22] + data[-22:])
    with pytest.raises(ValueError, match="its directory in another place than its end says"):
        open_checkpoint(path)
