"""The tutorials run from top to bottom in an empty kernel, and are committed with their outputs.

The conclusions of ``tutorials/N_name.ipynb`` are checked by ``tests/tutorials/N_name.py``.
"""

import os
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from notebooks import (
    CONCLUSIONS,
    TUTORIALS,
    conclusions_of,
    kernel,
    outputs_of,
    quick,
    run,
    shows_a_picture,
)

NOTEBOOKS = sorted(TUTORIALS.glob("[0-9]_*.ipynb"))
DATA_FOLDER = Path(os.environ.get("CLASSPATTERN_DATA") or "-")
ARCHIVES = {"cifar10.zip": "cifar10", "imagenet_sample.zip": "imagenet"}
MAX_PER_CLASS = 1000  # images of each folder: all test images of CIFAR-10
LOCAL_PATH = re.compile(r"/(home|root|tmp|Users|usr|opt|var|work)/|[A-Z]:\\\\?\w|site-packages")
PICTURE_DATA = re.compile(r"data:image/\w+;base64,[\w+/=]+")
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def extract(archives, folder):
    """Extracts the archives into the folders that the tutorials read."""
    for name, place in ARCHIVES.items():
        with zipfile.ZipFile(archives / name) as archive:
            count = Counter()
            for member in archive.namelist():
                count[parent := str(Path(member).parent)] += 1
                if count[parent] <= MAX_PER_CLASS:
                    archive.extract(member, folder / place)
    return folder


@pytest.fixture(scope="module")
def _as_in_ci(tmp_path_factory):
    """Kernels start without the user's settings, and notebooks take their quick form."""
    scripts = Path(sys.executable).parent  # of the command, also without an activated environment
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLASSPATTERN_QUICK", "1")
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.delenv("MPLBACKEND", raising=False)
        patch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with cifar10/train, cifar10/test and imagenet; None if there is none."""
    if not all((DATA_FOLDER / name).is_file() for name in ARCHIVES):
        return DATA_FOLDER.resolve() if DATA_FOLDER.is_dir() else None
    return extract(DATA_FOLDER, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def client(_as_in_ci, data):
    """One kernel for all notebooks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLASSPATTERN_DATA", str(data or ""))
        with kernel() as client:
            yield client


@pytest.mark.notebook
@by_name
def test_its_conclusions_hold(path, client, data):
    if data is None and "CLASSPATTERN_DATA" in path.read_text(encoding="utf-8"):
        pytest.skip("CLASSPATTERN_DATA names no folder with images of CIFAR-10 and ImageNet")
    assert run(quick(path), client, conclusions_of(path))


@by_name
def test_it_was_committed_after_a_full_run(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not executed from top to bottom"
    kinds = Counter(output.get("name", output.output_type) for output in outputs_of(notebook))
    assert not kinds["error"]
    assert not kinds["stderr"], "warnings or progress bars in the outputs"
    assert path.stat().st_size < 600_000


@by_name
def test_it_has_pictures_controls_and_no_local_paths(path):
    notebook = nbformat.read(path, 4)
    title, first = notebook.cells[:2]
    linked = re.search(r"!\[.+\]\((.+)\)", title.source)
    assert linked is None or (TUTORIALS / linked[1]).is_file()
    assert linked or any(map(shows_a_picture, first.outputs)), "no picture in the first two cells"
    for cell in notebook.cells:
        if cell.cell_type == "code" and re.search(r"\bplot(_\w+)?\(", cell.source):
            assert any(map(shows_a_picture, cell.outputs)), cell.source
    for output in outputs_of(notebook):
        data = output.get("data", {})
        finding = data.get("text/plain", "")
        assert not finding.startswith("Finding(") or "controls at most" in finding
        contents = [data[kind] for kind in data if not kind.startswith("image/")]
        texts = [PICTURE_DATA.sub("", text) for text in (output.get("text", ""), *contents)]
        assert not [found for text in texts if (found := LOCAL_PATH.search(text))]


def test_the_overview_links_all_tutorials_and_all_conclusions_have_one():
    page = (TUTORIALS / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in page] == []
    assert 1 <= len(NOTEBOOKS) <= 7
    assert {path.stem for path in CONCLUSIONS.glob("*.py")} == {path.stem for path in NOTEBOOKS}
