"""The tutorials run from top to bottom in a fresh kernel, and are committed with their pictures."""

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
EMBEDDED = [path for path in NOTEBOOKS if path.name[0] in "1234"]  # need nothing but the package
WITH_DATA = [path for path in NOTEBOOKS if path not in EMBEDDED]
GIVEN = Path(os.environ.get("CLASSPATTERN_DATA") or "-")
ARCHIVES = {"cifar10.zip": "cifar10", "imagenet_sample.zip": "imagenet"}
MOST_OF_A_CLASS = 1000  # of each folder of images: all test images of CIFAR-10
LOCAL_PATH = re.compile(r"/(home|root|tmp|Users|usr|opt|var|work)/|[A-Z]:\\\\?\w|site-packages")
WITHOUT_THE_DATA = "CLASSPATTERN_DATA names no folder with images of CIFAR-10 and ImageNet"


def by_name(paths):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def run(notebook, folder=TUTORIALS):
    """Executes a notebook in a kernel of its own; the first error of a cell is raised."""
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # such as raises-exception, which lets errors pass
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources=where).execute()
    return outputs_of(notebook)


def unpacked(archives, folder):
    """The images of the archives in the folders that the tutorials read."""
    for name, place in ARCHIVES.items():
        with zipfile.ZipFile(archives / name) as archive:
            count = Counter()
            for member in archive.namelist():
                count[parent := str(Path(member).parent)] += 1
                if count[parent] <= MOST_OF_A_CLASS:
                    archive.extract(member, folder / place)
    return folder


@pytest.fixture
def _as_in_ci(monkeypatch, tmp_path):
    """Kernels start without the settings of whoever runs the tests."""
    monkeypatch.setenv("CLASSPATTERN_QUICK", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    scripts = str(Path(sys.executable).parent)  # where the command is, activated or not
    monkeypatch.setenv("PATH", scripts + os.pathsep + os.environ["PATH"])


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder that holds cifar10/train, cifar10/test and imagenet."""
    if not all((GIVEN / name).is_file() for name in ARCHIVES):
        return GIVEN.resolve()
    return unpacked(GIVEN, tmp_path_factory.mktemp("data"))


@pytest.mark.notebook
@by_name(EMBEDDED)
@pytest.mark.usefixtures("_as_in_ci")
def test_it_runs_on_the_embedded_data(path, monkeypatch):
    monkeypatch.delenv("CLASSPATTERN_DATA", raising=False)
    assert run(nbformat.read(path, 4))


@pytest.mark.notebook
@by_name(WITH_DATA)
@pytest.mark.skipif(not GIVEN.is_dir(), reason=WITHOUT_THE_DATA)
@pytest.mark.usefixtures("_as_in_ci")
def test_it_runs_on_data_of_its_own(path, monkeypatch, data):
    monkeypatch.setenv("CLASSPATTERN_DATA", str(data))
    assert run(nbformat.read(path, 4))


@by_name(NOTEBOOKS)
def test_it_was_committed_as_it_ran(path):
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
def test_its_outputs_tell_nothing_of_the_machine(path):
    for output in outputs_of(nbformat.read(path, 4)):
        shown = [output.get("text", ""), *output.get("data", {}).values()]
        texts = [text for text in shown if not text.startswith("iVBOR")]  # all but PNGs
        assert not [found for text in texts if (found := LOCAL_PATH.search(text))]


@by_name(NOTEBOOKS)
def test_it_is_told_in_the_manner_of_captums(path):
    cells = nbformat.read(path, 4).cells
    title, *rest = cells[0].source.split("\n\n")
    assert title.startswith("# ")
    assert rest[0].startswith("This tutorial demonstrates ")
    untold = [
        cell.source
        for before, cell in pairwise(cells)
        if cell.cell_type == "code" and before.cell_type != "markdown"
    ]
    assert not untold, "code cells without a text cell before them"
    assert cells[-1].source.startswith("## What to take away\n")
    asserting = [cell for cell in cells if re.search("^ *assert ", cell.source, re.MULTILINE)]
    assert cells[-1] not in asserting
    assert asserting, "the conclusions are not asserted"


def test_the_page_of_tutorials_links_them_all():
    page = (TUTORIALS / "README.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in page] == []


# ---- the checks themselves


@pytest.mark.usefixtures("_as_in_ci")
def test_a_broken_notebook_fails_with_the_error_of_its_cell(tmp_path):
    conclusion = "power, rival = 0.2, 0.1\nassert power > 3 * rival, 'the rival is as strong'"
    tagged = new_code_cell(conclusion, metadata={"tags": ["raises-exception"]})
    broken = new_notebook(cells=[new_markdown_cell("# Broken"), new_code_cell("1"), tagged])
    with pytest.raises(CellExecutionError, match=r"AssertionError.*: the rival is as strong"):
        run(broken, tmp_path)


@pytest.mark.usefixtures("_as_in_ci")
def test_the_kernel_is_the_python_of_the_tests_and_draws_inline(tmp_path):
    told = "import os, sys; print(sys.prefix, os.getcwd(), os.environ['CLASSPATTERN_QUICK'])"
    drawn = "from matplotlib import pyplot\n_ = pyplot.plot([0, 1])"
    outputs = run(new_notebook(cells=[new_code_cell(told), new_code_cell(drawn)]), tmp_path)
    assert outputs[0].text == f"{sys.prefix} {tmp_path} 1\n"
    assert "image/png" in outputs[-1].data


def test_archives_are_unpacked_into_the_folders_that_the_tutorials_read(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "MOST_OF_A_CLASS", 2)
    images = {"cifar10.zip": "train/cat/{}.jpg", "imagenet_sample.zip": "0000_n01440764/{}.jpg"}
    for name, member in images.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for i in range(3):
                archive.writestr(member.format(i), b"")
    found = unpacked(tmp_path, tmp_path / "data").rglob("*.jpg")
    assert sorted(str(path.relative_to(tmp_path / "data")) for path in found) == [
        "cifar10/train/cat/0.jpg",
        "cifar10/train/cat/1.jpg",
        "imagenet/0000_n01440764/0.jpg",
        "imagenet/0000_n01440764/1.jpg",
    ]
