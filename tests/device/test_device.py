"""The tests on a second device run in a process of their own, where it stays registered."""

import os
import subprocess
import sys
from pathlib import Path

import pretend
import pytest

TESTS = Path(__file__).parent / "second_device.py"


@pytest.mark.script
@pytest.mark.skipif(not pretend.IS_SUPPORTED, reason="torch can't register a device in Python")
def test_all_works_on_a_second_device():
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rs", TESTS]
    ours = {"OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    others = {name: value for name, value in os.environ.items() if "PYTEST_XDIST" not in name}
    done = subprocess.run(command, capture_output=True, text=True, env=others | ours)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
