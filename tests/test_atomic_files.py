"""Files that are either complete or not there: the order of the steps.

That a failing step keeps the old file is a test of patterns."""

import os
from pathlib import Path

import pytest

from captum_classpattern._files import replace_file, write_atomically, write_json


@pytest.mark.parametrize(
    ("write", "data"),
    [
        (lambda path: write_atomically(path, b"new data"), b"new data"),
        (lambda path: write_json("new d", path), b'"new d"\n'),
    ],
    ids=["bytes", "JSON"],
)
def test_the_data_is_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch, write, data):
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
    write(path)
    assert done == [("on the disk", 8, b"old"), ("renamed", tmp_path, path)]
    assert path.read_bytes() == data


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "a.json"
    with replace_file(path) as first, replace_file(path) as second:
        first.write(b"whole")
        second.write(b"also whole")
    assert path.read_bytes() == b"whole"  # the last that is renamed
