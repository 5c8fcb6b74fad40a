"""The list of planted bugs fits the package, and the script tells caught from slipped."""

import csv
import subprocess
from pathlib import Path

import pytest
from plant import BUGS, main, planted, read_bugs

ROOT = Path(__file__).resolve().parents[2]
LIST = read_bugs(BUGS)
TOY = """
[[bug]]
name = "doubles nothing"
file = "toy.py"
old = "2 * x"
new = "x"
tests = ["test_toy.py"]

[[bug]]
name = "a triple that is not tested"
file = "toy.py"
old = "3 * x"
new = "x"
tests = ["test_toy.py"]
"""


@pytest.mark.parametrize("bug", LIST, ids=lambda bug: bug["name"])
def test_each_bug_can_be_planted(bug):
    compile(planted(bug, ROOT), bug["file"], "exec")
    assert all((ROOT / test).exists() for test in bug["tests"])


def test_each_bug_has_its_own_name():
    assert len({bug["name"] for bug in LIST}) == len(LIST) >= 60


@pytest.fixture
def toy(tmp_path):
    """A checkout with one tested function and one untested."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "bugs.toml").write_text(TOY)
    (tmp_path / "toy.py").write_text(
        "def double(x):\n    return 2 * x\n\n\ndef triple(x):\n    return 3 * x\n"
    )
    (tmp_path / "test_toy.py").write_text(
        "import toy\n\n\ndef test_double():\n    assert toy.double(2) == 4\n"
    )
    return tmp_path


def test_a_bug_is_caught_or_slips(toy, tmp_path, capsys):
    given = ["--bugs", str(toy / "bugs.toml"), "--out", str(toy / "after.csv"), "--jobs", "1"]
    for _ in range(2):  # the second time with the test that caught it first
        with pytest.raises(SystemExit, match="1"):
            main(given)
        rows = [*csv.DictReader((toy / "after.csv").read_text().splitlines())]
        assert [(row["result"], row["by"]) for row in rows] == [
            ("caught", "test_toy.py::test_double"), ("slipped", "")
        ]  # fmt: skip
        assert capsys.readouterr().out.endswith("1 of 2 caught\n")
    assert "2 * x" in (toy / "toy.py").read_text()


def test_a_bug_whose_code_or_tests_are_gone_is_an_error(toy, capsys):
    (toy / "toy.py").write_text("def double(x):\n    return 2 * x\n")
    given = ["--bugs", str(toy / "bugs.toml"), "--jobs", "1"]
    with pytest.raises(SystemExit, match="1"):
        main(given)
    printed = capsys.readouterr().out
    assert "gone: 'a triple that is not tested': 'old' must occur once in toy.py" in printed
    assert printed.endswith("1 of 1 caught, 1 gone\n")
    (toy / "test_toy.py").unlink()
    with pytest.raises(SystemExit, match="1"):
        main([*given, "--names", "doubles nothing"])
    assert capsys.readouterr().out.startswith("gone: 'doubles nothing': there is no test_toy.py")


def test_tests_that_fail_anyway_are_refused(toy, capsys):
    (toy / "test_toy.py").write_text("def test_double():\n    assert False\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--bugs", str(toy / "bugs.toml")])
    assert "without any bug, test_toy.py::test_double fails" in capsys.readouterr().err
