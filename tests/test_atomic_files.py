"""Files that are either complete or not there: the order of the steps.

That a failing step keeps the old file is a test of patterns."""

import os
from pathlib import Path

import pytest

from captum_classpattern._support import files
from captum_classpattern._support.files import (
    parse_json,
    printable,
    read_text,
    write_atomically,
    write_json,
)


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


@pytest.mark.parametrize("name", ["a" * 255, "\N{KISS MARK}" * 63])
def test_a_file_may_have_the_longest_name_that_the_system_allows(tmp_path, name):
    write_atomically(tmp_path / name, b"data")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_no_json_can_hold_is_written_as_null_and_not_read(tmp_path):
    path = tmp_path / "a.json"
    write_json({"a": [float("nan"), 1.5], "b": float("-inf")}, path)
    assert parse_json(read_text(path)) == {"a": [None, 1.5], "b": None}
    for number in ("NaN", "[-Infinity]", "1e999", "-1e999", "9" * 400):
        with pytest.raises(ValueError, match="it has the number "):
            parse_json(number)
    assert parse_json("[0, -7, 1e-400, 18446744073709551616]") == [0, -7, 0.0, 2**64]


def test_a_text_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_TEXT", 3)
    (tmp_path / "a").write_text("abcd")
    with pytest.raises(ValueError, match="it has 4 bytes"):
        read_text(tmp_path / "a")


NAMES = {
    "\x1b]0;title\x07\x1b[2J": "?]0;title??[2J",
    "a\nb\r\tc": "a?b??c",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{LEFT-TO-RIGHT ISOLATE}": "?gpj.exe?",
    "caf\udce9 \N{ZERO WIDTH SPACE}\x9b": "caf? ??",
    "Köter 犬 50 %": "Köter 犬 50 %",
    "50\N{NO-BREAK SPACE}% of\N{IDEOGRAPHIC SPACE}248": "50 % of 248",
}


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_safe_to_print(name):
    assert printable(name) == NAMES[name]
    assert printable(f"{name}\n", keep="\n") == NAMES[name].replace("a?b", "a\nb") + "\n"


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    path, sync = tmp_path / "a.json", os.fsync

    def with_another_writer(file):
        monkeypatch.setattr(os, "fsync", sync)
        write_atomically(path, b"also whole")
        sync(file)

    monkeypatch.setattr(os, "fsync", with_another_writer)
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"  # the last that is renamed
    assert [*tmp_path.iterdir()] == [path]
