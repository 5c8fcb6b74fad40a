"""Files that are either complete or not there."""

import os
from pathlib import Path

import pytest

from captum_classpattern._files import write_atomically


def test_the_data_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch):
    path, done = tmp_path / "a.json", []
    path.write_bytes(b"old")
    sync, replace = os.fsync, Path.replace

    def synced(file):
        done.append(("on the disk", os.fstat(file).st_size, path.read_bytes()))
        sync(file)

    def renamed(self, target):
        done.append(("renamed", self.parent, target))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(path, b"new data")
    assert done == [("on the disk", 8, b"old"), ("renamed", tmp_path, path)]
    assert path.read_bytes() == b"new data"


def test_a_full_disk_leaves_the_old_file_alone(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_bytes(b"old")

    def full(file):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "a.json", b"new data")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]
