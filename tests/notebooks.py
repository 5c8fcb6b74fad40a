"""The tutorials: how they run, and how their conclusions are checked.

    python tests/notebooks.py tutorials/1_first_class_pattern.ipynb

runs a tutorial from top to bottom in a new kernel, in full, checks its conclusions, and saves its
outputs, without progress bars.
"""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parent.parent
TUTORIALS = ROOT / "tutorials"
CONCLUSIONS = ROOT / "tests" / "tutorials"  # a file of assertions for each notebook
PROGRESS = re.compile(  # tqdm's bars, its advice where there is no ipywidgets, expected times
    r"^.*(?:\d%\||IProgress not found|import tqdm as|This takes about).*\n?", re.MULTILINE
)
QUICKER = {  # what the quick form replaces in a notebook's cells; the conclusions hold all the same
    "1_first_class_pattern": {
        'target="Bag", held_out=held_out)': 'target="Bag", held_out=held_out, budget=1_000)',
        'target="Sneaker", held_out=held_out': 'target="Sneaker", held_out=held_out, budget=500',
    },
    "2_captum_workflow": {
        'attribute(canvas, target="Bag")': 'attribute(canvas, target="Bag", n_steps=4)',
        "(canvases, target=targets)": "(canvases, target=targets, n_steps=4)",
        "nt_samples=4, stdevs=0.02": "nt_samples=2, stdevs=0.02, n_steps=4",
        "budget=1000": "budget=500",
        "max_images=300": "max_images=150",
    },
    "4_your_own_network": {"steps = 200": "steps = 150", "steps=160": "steps=60"},
    "3_is_this_model_backdoored": {'"n_steps": 5': '"n_steps": 3', "range(10)": "range(8)"},
    "6_imagenet_class": {'"budget": 500}': '"n_steps": 46}', "n_steps=25": "n_steps=10"},
    "7_imagenet_trojan": {
        "limit=2).halves()": "limit=2).subset(range(0, 300, 2)).halves()",
        "steps=80": "steps=50",
    },
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def conclusions_of(path):
    """The file whose assertions check the conclusions of a notebook."""
    return CONCLUSIONS / f"{path.stem}.py"


@contextmanager
def kernel(folder=TUTORIALS):
    """A kernel that runs one notebook after the other: importing torch takes seconds."""
    client = NotebookClient(
        new_notebook(),
        kernel_name="python3",
        timeout=600,
        iopub_timeout=600,  # a busy machine would otherwise lose outputs
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        yield client
    finally:
        client.nb = new_notebook()
        client.execute()  # ends it


def run(notebook, client, conclusions=None):
    """Executes a notebook in a kernel that is emptied first, and then a file of assertions over
    its variables; raises the first error. Returns the outputs of the notebook's own cells."""
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)  # such as raises-exception, which lets errors pass
    own = list(notebook.cells)
    checks = [] if conclusions is None else [new_code_cell(conclusions.read_text(encoding="utf-8"))]
    client.nb = new_notebook(cells=[new_code_cell("%reset -fs"), *own, *checks])
    client.execute(cleanup_kc=False)
    for cell in own:
        if cell.cell_type == "code":
            for each in (cell, *cell.outputs):
                if each.get("execution_count"):
                    each.execution_count -= 1  # without the cell before
    return outputs_of(notebook)


def quick(path):
    """A notebook with fewer passes and images."""
    notebook = nbformat.read(path, 4)
    for usual, quicker in QUICKER.get(path.stem, {}).items():
        [cell] = [cell for cell in notebook.cells if usual in cell.source]
        cell.source = cell.source.replace(usual, quicker)
    return notebook


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def shows_a_picture(output):
    data = output.get("data", {})
    return any(kind.startswith("image/") for kind in data) or "<img" in data.get("text/html", "")


def without_progress(outputs):
    """The outputs without the progress bars."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr":
            output.text = PROGRESS.sub("", output.text)
            if not output.text.strip():
                continue
        kept.append(output)
    return kept


def save(path):
    """Runs a notebook, checks its conclusions, and saves its outputs."""
    notebook = nbformat.read(path, 4)
    with kernel(path.parent) as client:
        run(notebook, client, conclusions_of(path))
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = without_progress(cell.outputs)
    notebook.metadata = METADATA
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        save(Path(given))
