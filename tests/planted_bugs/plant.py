"""Plants the bugs of a list, one at a time, and says which the tests of their module catch.

    python tests/planted_bugs/plant.py --out tests/planted_bugs/after.csv
    python tests/planted_bugs/plant.py --names "a name in bugs.toml" --jobs 1

A bug is one replaced piece of text in a copy of the checkout; a test that fails has caught it. The
test that caught it the last time, in ``after.csv``, runs first; if it passes, all tests of the file
run. At the end, the tests that failed must pass without any bug. A bug whose text or tests are gone
is an error: the status is 1, as it is if a bug slips.
"""

import argparse
import contextlib
import csv
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypedDict

BUGS = Path(__file__).resolve().parent / "bugs.toml"
SECONDS = 1800  # tests that a bug keeps from ending are stopped; the bug is caught


class Bug(TypedDict):
    """In ``file``, ``old`` becomes ``new``; ``tests`` are the tests of that file."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]


def read_bugs(path: Path) -> list[Bug]:
    """The bugs of a list."""
    bugs: list[Bug] = tomllib.loads(path.read_text(encoding="utf-8"))["bug"]
    return bugs


def planted(bug: Bug, root: Path) -> str:
    """The text of the bug's file under ``root`` with the bug; ValueError for a stale one."""
    text = (root / bug["file"]).read_text(encoding="utf-8")
    if text.count(bug["old"]) != 1 or bug["old"] == bug["new"]:
        raise ValueError(f"{bug['name']!r}: 'old' must occur once in {bug['file']}, and change.")
    return text.replace(bug["old"], bug["new"])


def first_failure(tests: Sequence[str], copy: Path) -> str:
    """Runs tests in a copy until one fails; returns its name without its parameters, or "" if all
    pass; ValueError if there are no such tests."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "--tb=no", "-rfE"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    # bytecode of the bug before, of the same second and length, would be taken for this one
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        run = subprocess.run(
            [*command, "-p", "no:cacheprovider", *tests],
            cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {SECONDS} s"
    if run.returncode in (4, 5):  # pytest's for wrong arguments, and for no tests
        raise ValueError(f"pytest finds no tests: {' '.join(tests)}")
    if not run.returncode:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", run.stdout, re.MULTILINE)
    return failed[1] if failed else f"pytest ends with status {run.returncode}"


def caught_by(bug: Bug, copy: Path, last: str = "") -> str:
    """Plants the bug in a copy, runs its tests, first the one that caught it the last time, and
    takes it out again."""
    path, text = copy / bug["file"], planted(bug, copy)
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        with contextlib.suppress(ValueError):  # the test has another name now
            if last and (caught := first_failure([last], copy)):
                return caught
        return first_failure(bug["tests"], copy)
    finally:
        path.write_text(before, encoding="utf-8")


def stale(bug: Bug, root: Path) -> str:
    """Why a bug cannot be planted; "" if it can."""
    if gone := [name for name in (bug["file"], *bug["tests"]) if not (root / name).exists()]:
        return f"{bug['name']!r}: there is no {gone[0]}"
    try:
        planted(bug, root)
    except ValueError as error:
        return str(error)
    return ""


def copy_checkout(root: Path, copy: Path) -> None:
    """Copies the files that Git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs all bugs, or those that are named, and writes a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--names", nargs="+", default=[], help="names of bugs (all)")
    parser.add_argument("--bugs", type=Path, default=BUGS, help="the list, in the checkout to test")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at a time (2)")
    parser.add_argument("--out", type=Path, help="a CSV file for the result")
    given = parser.parse_args(argv)
    bugs = [bug for bug in read_bugs(given.bugs) if bug["name"] in given.names or not given.names]
    if unknown := set(given.names) - {bug["name"] for bug in bugs}:
        parser.error(f"the list has no bug {sorted(unknown)}")
    command = ["git", "rev-parse", "--show-toplevel"]
    root = Path(
        subprocess.run(
            command, cwd=given.bugs.resolve().parent, capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    reasons = [reason for bug in bugs if (reason := stale(bug, root))]
    bugs = [bug for bug in bugs if not stale(bug, root)]
    for reason in reasons:
        print(f"gone: {reason}", flush=True)
    record = given.bugs.parent / "after.csv"
    with record.open(encoding="utf-8") if record.exists() else io.StringIO() as file:
        last = {row["bug"]: row["by"] for row in csv.DictReader(file) if "::" in row["by"]}

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.jobs) as pool:
        free: SimpleQueue[Path] = SimpleQueue()
        for i in range(given.jobs):
            copy_checkout(root, Path(folder, str(i)))
            free.put(Path(folder, str(i)))

        def run(bug: Bug) -> str:
            copy = free.get()
            try:
                return caught_by(bug, copy, last.get(bug["name"], ""))
            finally:
                free.put(copy)

        rows = [["file", "bug", "result", "by"]]
        for bug, test in zip(bugs, pool.map(run, bugs), strict=True):
            rows.append([bug["file"], bug["name"], "caught" if test else "slipped", test])
            print(f"{rows[-1][2]}: {bug['name']} ({bug['file']}) {test}", flush=True)
        tests = sorted({row[3] for row in rows if "::" in row[3]})
        if tests and (failed := first_failure(tests, Path(folder, "0"))):
            parser.error(f"without any bug, {failed} fails")
    if given.out:
        with given.out.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    caught = sum(row[2] == "caught" for row in rows)
    print(f"{caught} of {len(bugs)} caught" + f", {len(reasons)} gone" * bool(reasons))
    if caught < len(bugs) or reasons:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
