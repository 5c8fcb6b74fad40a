"""The scripts beside the package can be imported, say what they need, and are documented."""

import pytest
from scripts import ROOT, imported

SCRIPTS = [
    path.relative_to(ROOT)
    for folder in ("benchmarks", "tutorials")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "\ndef main(" in path.read_text(encoding="utf-8")
]
PARTS = sorted((ROOT / "benchmarks").glob("*/*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_script_says_what_it_needs(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        imported(str(script.parent), script.stem).main(["--help"])
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_parts_of_scripts_can_be_imported():
    assert len(PARTS) > 30
    imported("benchmarks", *(f"{path.parent.name}.{path.stem}" for path in PARTS))


def test_every_script_is_in_a_document():
    pages = [ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    named = "".join(page.read_text(encoding="utf-8") for page in pages)
    scripts = [each for each in SCRIPTS if each.parent.name == "benchmarks"]
    assert not [each for each in scripts if f"benchmarks/{each.name}" not in named]


@pytest.mark.script
def test_the_report_from_a_gpu_can_be_tried_on_a_cpu(capsys):
    tried = "--device cpu --networks demo --classes 1 2 --rounds 1"
    imported("benchmarks", "gpu").main(tried.split())
    tables = capsys.readouterr().out.split("\n\n")
    assert len(tables) == 5  # the last one is empty
    [*_, full, automatic] = tables[1].splitlines()
    for line, precision in ((full, "full"), (automatic, "auto")):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == precision
        assert cells[1] == cells[2]
        assert cells[4] == "0"  # pixels that differ
    assert [line.split("|")[3].strip() for line in tables[2].splitlines()[2:]] == ["1", "2"]
