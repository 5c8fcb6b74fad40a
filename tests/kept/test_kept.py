"""A change of the code finds the same masks, verdicts and powers, bit for bit.

Only processors of one kind round alike, so this runs on demand: ``pytest tests/kept --kept``
compares with ``kept.json``, which may be of another kind, and ``--kept FILE`` with a file that
``record.py`` wrote on this machine before the change.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER, ONE_SCAN = Path(__file__).parent, "backdoored, seed 0"
SAME_SUMS = {  # one thread, and the instructions that every processor has
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
}


@pytest.mark.parametrize("part", ["searches", "comparison", "scan"])
def test_what_was_found_is_found_again(part, request):
    if not (file := request.config.getoption("kept")):
        pytest.skip("runs with --kept alone")
    command = [sys.executable, FOLDER / "record.py", part]
    run = subprocess.run(command, env={**os.environ, **SAME_SUMS}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kept = json.loads(Path(file).read_text())
    kept["scan"] = {name: each for name, each in kept["scans"].items() if name == ONE_SCAN}
    assert json.loads(run.stdout) == {part: kept[part]}
