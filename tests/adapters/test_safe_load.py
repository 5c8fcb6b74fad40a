"""Opening checkpoints of strangers: none of their code runs, and refusals say why."""

import argparse
import gzip
import io
import os
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from command_line import run
from refusals import refusal
from torch import nn

from captum_classpattern.adapters import CheckpointFile, load_model, safe_load


def open_checkpoint(path, trust_pickle=False):
    """The file, once its content is read."""
    file = CheckpointFile(Path(path), trust_pickle)
    _ = file.content
    return file


class Payload:
    """What pickles into a command that makes a file."""

    def __init__(self, made: Path) -> None:
        self.command = f"touch '{made}'"

    def __reduce__(self):
        return os.system, (self.command,)


def weights():
    return nn.Linear(2, 3).state_dict()


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()  # SHORT_BINUNICODE


def ending(code):
    """Calls the function on the stack with some code, and ends."""
    return b"X" + struct.pack("<I", len(code)) + code.encode() + b"\x85R."  # BINUNICODE, REDUCE


def saved(content, new=True, **settings):
    """What torch.save writes."""
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=new, **settings)
    return written.getvalue()


def zipped(files, compression=zipfile.ZIP_STORED):
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)  # without the time
    return written.getvalue()


def torch_zip(data):
    """A file of torch.save, around these pickled bytes."""
    files = {"data.pkl": data, "version": b"3\n", "byteorder": b"little"}
    return zipped({f"archive/{name}": held for name, held in files.items()})


def wrong_checksum(bad):
    """torch reads a zip whatever its checksums say; Python's reader would stop."""
    data = torch_zip(pickle.dumps(bad, 2))
    right = zipfile.ZipFile(io.BytesIO(data)).getinfo("archive/data.pkl").CRC
    return data.replace(struct.pack("<I", right), b"\1\2\3\4")


def by_torch(data):
    torch.load(io.BytesIO(data), weights_only=False)


def by_unzipping(data):
    pickle.loads(zipfile.ZipFile(io.BytesIO(data)).read("model.pkl"))


EVAL = b"\x80\x04" + text("builtins") + text("eval") + b"\x93"
EXPLOITS = {  # what would run it, and the bytes of a file with an object that runs a command
    "torch.save": (by_torch, saved),
    "in a state dict": (by_torch, lambda bad: saved({"state_dict": {**weights(), "bias": bad}})),
    "in an optimizer": (by_torch, lambda bad: saved({"model": weights(), "state": {0: bad}})),
    "in a list": (by_torch, lambda bad: saved({"net": weights(), "log": [1, [2, (3, bad)]]})),
    "in an array of objects": (by_torch, lambda bad: saved({"a": np.array([bad], object)})),
    "old format": (by_torch, lambda bad: saved({"a": bad, **weights()}, new=False)),
    "old format, protocol 3": (by_torch, lambda bad: saved([bad], new=False, pickle_protocol=3)),
    **{
        f"raw pickle {protocol}": (pickle.loads, partial(pickle.dumps, protocol=protocol))
        for protocol in range(6)
    },
    "eval": (pickle.loads, lambda bad: EVAL + ending(f"__import__('os').system({bad.command!r})")),
    "zip of a pickle": (by_unzipping, lambda bad: zipped({"model.pkl": pickle.dumps(bad)})),
    "wrong checksum": (by_torch, wrong_checksum),
    # with a harmless zip for those who look at the end of a file
    "zip behind": (by_torch, lambda bad: saved({"model": bad}, new=False) + saved(weights())),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_nothing_runs(exploit, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    made, (detonate, build) = tmp_path / "made", EXPLOITS[exploit]
    data = build(Payload(made))
    plain = partial(load_model, arch="resnet18", num_classes=3, mean=0, std=1, format="plain")
    for name in ("model.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(data)
        for opened in (open_checkpoint, load_model, plain):
            with pytest.raises(ValueError, match=r"was not opened|did not write it"):
                opened(tmp_path / name)
    assert not made.exists()
    detonate(data)  # it is a real one
    assert made.exists()


def test_trust_pickle_is_the_only_way_past(tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(pickle.dumps(Payload("made")))
    assert refusal(lambda: open_checkpoint("model.pt")) == snapshot
    result = run(["search", "model.pt", "--data", "."])
    assert (result.exit_code, "was not opened" in result.output) == (2, True)
    assert not Path("made").exists()
    assert open_checkpoint("model.pt", trust_pickle=True).opened_by == "pickle"
    assert Path("made").exists()
    Path("model.pt").write_bytes(saved(weights()))  # read safely if possible
    assert open_checkpoint("model.pt", trust_pickle=True).opened_by == "weights_only"


# refusals of whatever is not a state dict


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


def scalar(kind, raw):
    return Forged(np.float64(1).__reduce__()[0], (kind, raw), None)


FORGED = {  # NumPy's pickle code trusts what it reads
    "a pointer": array(dtype("O8"), (1,), b"A" * 8),
    "flags": array(dtype("f8", flags=63), (1,), b"A" * 8),
    "fields": array(dtype("f8", fields={}), (1,), b"A" * 8),
    "a dtype of another size": array(dtype("f8", size=800), (1,), b"A" * 8),
    "more items than bytes": array(dtype("f8"), (9,), b"A" * 8),
    "a negative shape": array(dtype("f8"), (-1, -1), b"A" * 8),
    "a list instead of bytes": array(dtype("f8"), (1,), [1.5]),
    "an array made by a call": Forged(np.ndarray, ((10**12,),), None),
    "a number of too few bytes": scalar(dtype("f8"), b"A"),
    "a number of too many bytes": scalar(dtype("f8"), b"A" * 16),
    "a number without a kind": scalar(dtype("V8"), b"A" * 8),
    "a namespace of another class": Forged(argparse.Namespace, (), {"__class__": 1}),
    "a namespace with a special name": Forged(argparse.Namespace, (), {"__dict__": {}}),
    "a namespace with a list": Forged(argparse.Namespace, (), [1]),
    "a namespace with a number": Forged(argparse.Namespace, (), {1: 2}),
    "a namespace with slots": Forged(argparse.Namespace, (), (None, {"x": 1})),
}


BARE = pickle.dumps([1])


def filled_twice():
    """An array with two states, of which the second would free what a tensor may share."""
    data = pickle.dumps(np.arange(3.0), 2)
    state = pickle.dumps((1, (3,), np.dtype("f8"), False, b"B" * 24), 2)[2:-1]
    twice = data[:-1] + state + b"b."  # BUILD, and the end
    assert pickle.loads(twice)[0] != 0  # NumPy would do it
    return torch_zip(twice)


def with_two_directories():
    """Python reads the directory before the end, torch the one that the end points to."""
    data = saved(weights())
    place = int.from_bytes(data[-6:-2], "little")
    assert data[place : place + 4] == b"PK\x01\x02"
    return data[:-22] + data[place:-22] + data[-22:]


def behind_other_bytes():
    """Places in the index count from the start of the file, which also begins like a zip."""
    file = io.BytesIO(b"PK\x03\x04" + bytes(26))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo("archive/data.pkl"), BARE)
    return file.getvalue()


def with_a_comment():
    """So the end of the directory is not the end of the file."""
    file = io.BytesIO(torch_zip(BARE))
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = b"of somebody"
    return file.getvalue()


def with_claimed_sizes():
    data = zipped({f"archive/{number}": b"1234567" for number in range(5)})
    return data.replace(struct.pack("<II", 7, 7), struct.pack("<II", 7, 2**32 - 2))


FILES = {
    "nothing": b"",
    "a web page": b"\n <!DOCTYPE html><html>",
    "a short web page": b"<html>404",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid",
    "JSON": b'\n{"error": "denied"}',
    "gzip": gzip.compress(b"x", mtime=0),
    "bzip2": b"BZh91AY&SY",
    "xz": b"\xfd7zXZ\x00",
    "7z": b"7z\xbc\xaf'\x1c",
    "RAR": b"Rar!\x1a\x07",
    "numbers": bytes(range(256)) * 4,
    "text": b"garbage, not weights",
    "half a pickle": pickle.dumps({"a": [1] * 99}, 4)[:-20],
    "a zip of other files": zipped({"a.txt": b"", "b/c.png": b""}),
    "half a zip": zipped({"a": b"", "b": b""})[:40],
    "half a safetensors file": b"\x10" + b"\0" * 7 + b'{"a": {}',
    "a name with control characters": torch_zip(b"\x80\x02ca\x1b[2J\nb\n."),
    "an import": saved({"net": Payload(Path("made"))}),
    # with another name in its own header than in the index
    "a pickle that zipfile can't read": zipped({"a.pkl": BARE}).replace(b"a.pkl", b"b.pkl", 1),
    "a zip that is compressed": zipped({"archive/data.pkl": b"N" * 10**6}, zipfile.ZIP_DEFLATED),
    "a zip with large claims": with_claimed_sizes(),
    "a zip behind other bytes": behind_other_bytes(),
    "a zip with a comment": with_a_comment(),
    "a zip with two directories": with_two_directories(),
    "an array that is filled twice": filled_twice(),
    **{name: saved({"net": weights(), "forged": forged}) for name, forged in FORGED.items()},
}


def test_refusals(tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    said = {"a folder": refusal(lambda: load_model(".."))}
    for case, data in FILES.items():
        Path("model.pt").write_bytes(data)
        text = refusal(lambda: open_checkpoint("model.pt"))
        said[case] = re.sub(r"(damaged, [^(]*)\(.*\)", r"\1(...)", text)  # as libraries word it
    assert "\n".join(f"{case}: {text}" for case, text in said.items()) == snapshot


@pytest.mark.parametrize("limit", ["SIZE_LIMIT", "PICKLE_LIMIT"])
def test_files_over_a_limit(limit, tmp_path, monkeypatch, snapshot):
    monkeypatch.chdir(tmp_path)
    pickled = pickle.dumps({"a": 1}, 2)
    data = torch_zip(pickled)
    size = len(data if limit == "SIZE_LIMIT" else pickled)
    Path("model.pt").write_bytes(data)
    monkeypatch.setattr(safe_load, limit, size)
    assert open_checkpoint("model.pt").content == {"a": 1}
    monkeypatch.setattr(safe_load, limit, size - 1)
    assert refusal(lambda: open_checkpoint("model.pt")) == snapshot


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
def test_truncated_and_damaged_files(kind, tmp_path):
    """Whatever is damaged: either an error that begins with the file's name, or nothing."""
    path, state = tmp_path / "model.pt", nn.Linear(40, 30).state_dict()
    safe = kind == "safetensors"
    whole = safetensors.torch.save(state) if safe else saved(state, new=kind == "new")
    for share in (0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"is damaged, or .* \(.*\): download it again"):
            open_checkpoint(path)
    state, random, raised = weights(), np.random.default_rng(0), []
    whole = safetensors.torch.save(state) if safe else saved(state, new=kind == "new")
    for _ in range(150):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_checkpoint(path)
            except Exception as error:
                raised.append(error)
    assert len(raised) > 50
    assert {type(error) for error in raised} == {ValueError}
    assert all(str(error).startswith(str(path)) for error in raised)


# programs, refused and trusted


@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("kind", ["TorchScript", "torch.export", "new module", "old module"])
def test_programs_are_refused_and_trusted(kind, tmp_path):
    path, images = tmp_path / "model.pt2", torch.rand(4, 3, 2, 2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    if kind == "TorchScript":
        torch.jit.script(net).save(str(path))
    elif kind == "torch.export":
        batch = {0: torch.export.Dim("batch")}
        torch.export.save(torch.export.export(net, (images,), dynamic_shapes=(batch,)), path)
    else:
        path.write_bytes(saved(net.train(), new=kind == "new module"))
    said = refusal(lambda: load_model(path))
    what = r"that imports torch\.nn\.\S+\)" if "module" in kind else f"it is a {kind} archive"
    assert re.search(what, said)
    classifier = load_model(path, trust_pickle=True, mean=0.5, std=0.25)
    assert torch.allclose(classifier(images), net((images - 0.5) / 0.25))
    assert classifier.provenance["opened"] == "pickle"
    assert not any(part.training for part in classifier.modules())


NOWHERE = b"\x80\x02cnowhere.to_be\nFound\n)R."


@pytest.mark.parametrize(
    "data",
    [NOWHERE, torch_zip(NOWHERE), saved([1], new=False).replace(b"\x80\x02]q\x00K\x01a.", NOWHERE)],
    ids=["pickle", "torch", "old"],
)
def test_trusted_but_not_importable(data, tmp_path):
    (tmp_path / "model.pt").write_bytes(data)
    assert "was not opened" in refusal(lambda: open_checkpoint(tmp_path / "model.pt"))
    with pytest.raises(
        ValueError, match=r"imported here \(No module named.*nowhere.*: run this where"
    ):
        open_checkpoint(tmp_path / "model.pt", trust_pickle=True)


# harmless values


def checkpoint():
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
        "big-endian": np.arange(6, dtype=">i2").reshape(2, 3),
        "by columns": np.asfortranarray(np.linspace(0, 1, 12).reshape(3, 4)),
        "others": [np.array([b"x"]), np.array(2.5 + 1j), np.float16(1.5), np.str_("name")],
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("a/b"), size=(3, 32, 32)),
    }


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor | np.ndarray):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and bool((a == b).all())
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("numpy_name", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("path_name", [b"pathlib", b"pathlib._local"])
@pytest.mark.parametrize("new", [True, False])
def test_harmless_values_are_read(numpy_name, path_name, new, tmp_path):
    """By their names in any version, and they are allowed for this file alone."""
    path, content = tmp_path / "checkpoint.pth", checkpoint()

    def patched(data):
        for old, name in (
            (rb"cnumpy\._?core\.multiarray\n", b"c" + numpy_name + b".multiarray\n"),
            (rb"cpathlib(\._local)?\nPosixPath\n", b"c" + path_name + b"\nPosixPath\n"),
        ):
            assert re.search(old, data)
            data = re.sub(old, name, data)
        return data

    data = saved(content, new)
    if new:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        files["archive/data.pkl"] = patched(files["archive/data.pkl"])
    path.write_bytes(zipped(files) if new else patched(data))
    before = set(torch.serialization.get_safe_globals())  # torch gives them in any order
    opened = open_checkpoint(path)
    assert opened.opened_by == "weights_only"
    content["big-endian"] = content["big-endian"].astype("=i2")  # the order of the machine
    assert same(content, opened.content)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_are_distinguished_by_content_and_not_by_name(tmp_path):
    state = {key: value.half() for key, value in weights().items()}
    for name, data, opened_by in (
        ("model.safetensors", safetensors.torch.save(state), "safetensors"),
        ("model.pt", safetensors.torch.save(state), "safetensors"),
        ("saved.safetensors", saved(state), "weights_only"),
        ("old", saved(state, new=False, pickle_protocol=3), "weights_only"),
    ):
        (tmp_path / name).write_bytes(data)
        opened = open_checkpoint(tmp_path / name)
        assert opened.opened_by == opened_by
        assert same(state, {key: opened.content[key] for key in state})
