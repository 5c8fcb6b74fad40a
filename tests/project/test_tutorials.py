"""The tutorials run from top to bottom in a fresh kernel, and are committed with their outputs."""

import os
import re
import sys
import zipfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

TUTORIALS = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("[0-9]_*.ipynb"))
assert len(NOTEBOOKS) == 7
EMBEDDED = [path for path in NOTEBOOKS if path.name[0] in "1234"]  # need only the package
NEED_DATA = [path for path in NOTEBOOKS if path not in EMBEDDED]
DATA_FOLDER = Path(os.environ.get("CLASSPATTERN_DATA") or "-")
ARCHIVES = {"cifar10.zip": "cifar10", "imagenet_sample.zip": "imagenet"}
MAX_PER_CLASS = 1000  # images of each folder: all test images of CIFAR-10
LOCAL_PATH = re.compile(r"/(home|root|tmp|Users|usr|opt|var|work)/|[A-Z]:\\\\?\w|site-packages")
NO_DATA = "CLASSPATTERN_DATA names no folder with images of CIFAR-10 and ImageNet"


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def run(notebook, folder=TUTORIALS):
    """Executes a notebook in a new kernel; raises the first error of a cell."""
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # such as raises-exception, which lets errors pass
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    return outputs_of(notebook)


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


@pytest.fixture
def _as_in_ci(monkeypatch, tmp_path):
    """Kernels start without the user's settings."""
    monkeypatch.setenv("CLASSPATTERN_QUICK", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    scripts = str(
        Path(sys.executable).parent
    )  # the command's folder, even without an activated environment
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with cifar10/train, cifar10/test and imagenet."""
    if not all((DATA_FOLDER / name).is_file() for name in ARCHIVES):
        return DATA_FOLDER.resolve()
    return extract(DATA_FOLDER, tmp_path_factory.mktemp("data"))


@pytest.mark.notebook
@by_name(EMBEDDED)
@pytest.mark.usefixtures("_as_in_ci")
def test_it_runs_on_the_embedded_data(path, monkeypatch):
    monkeypatch.delenv("CLASSPATTERN_DATA", raising=False)
    assert run(nbformat.read(path, 4))


@pytest.mark.notebook
@by_name(NEED_DATA)
@pytest.mark.skipif(not DATA_FOLDER.is_dir(), reason=NO_DATA)
@pytest.mark.usefixtures("_as_in_ci")
def test_it_runs_on_external_data(path, monkeypatch, data):
    monkeypatch.setenv("CLASSPATTERN_DATA", str(data))
    assert run(nbformat.read(path, 4))


@by_name(NOTEBOOKS)
def test_it_was_committed_after_a_full_run(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "not executed from top to bottom"
    kinds = Counter(output.get("name", output.output_type) for output in outputs_of(notebook))
    assert not kinds["error"]
    assert not kinds["stderr"], "warnings or progress bars in the outputs"
    assert any("image/png" in output.get("data", ()) for output in outputs_of(notebook))
    assert path.stat().st_size < 600_000


@by_name(NOTEBOOKS)
def test_its_outputs_have_no_local_paths(path):
    for output in outputs_of(nbformat.read(path, 4)):
        contents = [output.get("text", ""), *output.get("data", {}).values()]
        texts = [text for text in contents if not text.startswith("iVBOR")]  # not PNGs
        assert not [found for text in texts if (found := LOCAL_PATH.search(text))]


@by_name(NOTEBOOKS)
def test_it_has_the_structure_of_captums_tutorials(path):
    cells = nbformat.read(path, 4).cells
    title, *paragraphs = cells[0].source.split("\n\n")
    assert title.startswith("# ")
    assert paragraphs[0].startswith("This tutorial demonstrates ")
    unexplained = [
        cell.source
        for before, cell in pairwise(cells)
        if cell.cell_type == "code" and before.cell_type != "markdown"
    ]
    assert not unexplained, "code cells without a text cell before them"
    assert cells[-1].source.startswith("## What to take away\n")
    asserting = [cell for cell in cells if re.search("^ *assert ", cell.source, re.MULTILINE)]
    assert cells[-1] not in asserting
    assert asserting, "the conclusions are not asserted"


def test_the_overview_links_all_tutorials():
    page = (TUTORIALS / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in page] == []


# ---- tests of these checks


@pytest.mark.usefixtures("_as_in_ci")
def test_a_broken_notebook_fails_with_the_error_of_its_cell(tmp_path):
    conclusion = "power, rival = 0.2, 0.1\nassert power > 3 * rival, 'the rival is as strong'"
    tagged = new_code_cell(conclusion, metadata={"tags": ["raises-exception"]})
    broken = new_notebook(cells=[new_markdown_cell("# Broken"), new_code_cell("1"), tagged])
    with pytest.raises(CellExecutionError, match=r"AssertionError.*: the rival is as strong"):
        run(broken, tmp_path)


@pytest.mark.usefixtures("_as_in_ci")
def test_the_kernel_uses_the_python_of_the_tests_and_plots_inline(tmp_path):
    prints = "import os, sys; print(sys.prefix, os.getcwd(), os.environ['CLASSPATTERN_QUICK'])"
    draws = "from matplotlib import pyplot\n_ = pyplot.plot([0, 1])"
    outputs = run(new_notebook(cells=[new_code_cell(prints), new_code_cell(draws)]), tmp_path)
    assert outputs[0].text == f"{sys.prefix} {tmp_path} 1\n"
    assert "image/png" in outputs[-1].data


def test_archives_are_extracted_into_the_folders_that_the_tutorials_read(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "MAX_PER_CLASS", 2)
    images = {"cifar10.zip": "train/cat/{}.jpg", "imagenet_sample.zip": "0000_n01440764/{}.jpg"}
    for name, member in images.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for i in range(3):
                archive.writestr(member.format(i), b"")
    found = extract(tmp_path, tmp_path / "data").rglob("*.jpg")
    assert sorted(str(path.relative_to(tmp_path / "data")) for path in found) == [
        "cifar10/train/cat/0.jpg",
        "cifar10/train/cat/1.jpg",
        "imagenet/0000_n01440764/0.jpg",
        "imagenet/0000_n01440764/1.jpg",
    ]
