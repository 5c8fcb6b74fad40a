"""Files that are either complete or not there: the order of the steps.

That a failing step keeps the old file is a test of patterns."""

import os
from pathlib import Path

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
