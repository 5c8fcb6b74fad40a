"""The examples of the documentation run, and its API reference is complete."""

import importlib
import inspect
import re
from pathlib import Path

import matplotlib
import pytest
from extend import DEFINITIONS

import captum_classpattern
from captum_classpattern.optimization import canvases

DOCS = Path(__file__).parents[2] / "docs"
FOLD = re.MULTILINE | re.DOTALL
PUBLIC = (
    "",
    ".adapters",
    ".comparison",
    ".datasets",
    ".optimization",
    ".pages",
    ".pages.explorer",
    ".scanning",
    ".scores",
    ".scores.invariance",
    ".surveys",
    ".triggers",
    ".visualization",
)


def documented():
    """(module, name, options) of every entry of the API reference."""
    for page in sorted((DOCS / "api").glob("*.rst")):
        module = ""
        entry = r"^\.\. (currentmodule|auto\w+):: ([\w.]+)((?:\n   :.*)*)"
        for kind, name, options in re.findall(entry, page.read_text(), re.MULTILINE):
            if kind == "currentmodule":
                module = name
            else:
                yield module, name, options


def run(page, folder, monkeypatch):
    """Runs the Python code of a page in a folder; returns the page and the code's variables."""
    monkeypatch.chdir(folder)
    matplotlib.use("Agg")
    text = (DOCS / page).read_text()
    names = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec"), names)
    matplotlib.pyplot.close("all")
    return text, names


def test_the_reference_lists_all_public_names():
    entries = [getattr(importlib.import_module(module), name) for module, name, _ in documented()]
    for suffix in PUBLIC:
        module = importlib.import_module(captum_classpattern.__name__ + suffix)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert any(entry is thing for entry in entries), f"{module.__name__}.{name}"


def test_the_members_in_the_reference_exist():
    for module, name, options in documented():
        entry = getattr(importlib.import_module(module), name)
        for member in re.findall(r"\w+", "".join(re.findall(r":members: (.*)", options))):
            assert hasattr(entry, member), f"{name}.{member}"


def test_the_start_page_finds_the_backdoor(tmp_path, monkeypatch):
    _, names = run("index.md", tmp_path, monkeypatch)
    power = names["found"].scores[0.01].power
    assert power.interval[0] > power.without
    assert power.value > 0.5
    assert (tmp_path / "pattern.png").stat().st_size > 10_000


def test_the_page_on_what_a_pattern_is_shows_it_above_its_controls(tmp_path, monkeypatch):
    _, names = run("what_a_pattern_is.md", tmp_path, monkeypatch)
    pattern, *controls = names["powers"]
    assert all(pattern.interval[0] > 0.5 > control.interval[1] for control in controls)
    assert (tmp_path / "controls.png").stat().st_size > 10_000


def test_pages_have_no_markup_that_a_code_host_shows_as_text():
    for page in (*DOCS.glob("*.md"), *DOCS.glob("api/*.md")):
        text = page.read_text()
        assert not re.search(r"^(:::|```\{)|\{[a-z:]+\}`", text, re.MULTILINE), page.name


def test_folds_are_closed_have_a_summary_and_no_headings():
    """A heading inside would start a section that the fold does not contain."""
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        folds = re.findall(
            r"^<details><summary>[^\n]+</summary>\n\n(.*?)\n\n</details>$", text, FOLD
        )
        assert len(folds) == text.count("<details") == text.count("</details>"), page.name
        assert not any(re.search(r"^#", fold, re.MULTILINE) for fold in folds), page.name


def test_the_page_on_the_gallery_makes_one(tmp_path, monkeypatch):
    _, names = run("gallery.md", tmp_path, monkeypatch)
    pages = {path.name for path in names["index"].parent.glob("models/backdoored/*.html")}
    assert pages == {"0_T-shirt.html", "8_Bag.html"}


def test_the_page_on_canvases_tries_every_strategy(tmp_path, monkeypatch):
    text, names = run("choose_canvases.md", tmp_path, monkeypatch)
    assert sorted(names["found"]) == sorted(canvases.STRATEGIES)
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(canvases.STRATEGIES)


def test_the_page_on_patterns_explains_all_keys_of_info(tmp_path, monkeypatch):
    text, names = run("read_a_pattern.md", tmp_path, monkeypatch)
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    explained = re.findall(r"`(\w+)`", " ".join(rows))
    [pattern] = names["found"][0.05]
    assert sorted(explained) == sorted(pattern.info)


def test_the_page_on_invariance_runs(tmp_path, monkeypatch):
    _, names = run("invariance.md", tmp_path, monkeypatch)
    assert names["profile"].power.value > 0.5
    assert {*names["profile"].curves} == {"shift", "pixel loss"}
    assert names["profile"].curves["shift"].half_power_range.high < 12
    assert names["of_pattern"].curves["brightness of the pattern"].transform.of == "canvas"
    assert (tmp_path / "invariance.png").stat().st_size > 5_000


def test_the_page_on_the_explorer_runs(tmp_path, monkeypatch):
    pytest.importorskip("ipywidgets")
    _, names = run("explore.md", tmp_path, monkeypatch)
    assert names["explorer"].finding.label == "Bag"
    saved = captum_classpattern.Pattern.load(tmp_path / "bag.safetensors")
    assert int(saved.mask.sum()) == 39
    assert names["stamped"].shape == (1, 28, 28)


def test_the_page_on_sanity_checks_runs(tmp_path, monkeypatch):
    _, names = run("sanity_checks.md", tmp_path, monkeypatch)
    check = names["check"]
    assert check.steps == [0, 1, 19]
    verdicts = {(row["method"], row["ranking"]): row["verdict"] for row in check.verdicts()}
    assert verdicts["RandomPixels", "signed"] == "random"
    assert verdicts["Saliency", "signed"] in ("part stays", "gone")
    assert not check.failures
    assert (tmp_path / "sanity.png").stat().st_size > 5_000


def test_the_page_on_comparing_writes_its_report(tmp_path, monkeypatch):
    _, names = run("compare.md", tmp_path, monkeypatch)
    assert {"ClassPattern", "Smooth"} <= {record.method for record in names["comparison"].records}
    assert not names["comparison"].failures
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_every_claim_has_its_table_in_the_docs():
    page = (DOCS / "claims.md").read_text()
    assert not re.search(r"\{\{|being written|MISSING", page)
    parts = re.split(r"^## ", page, flags=re.MULTILINE)
    measured = [part for part in parts if part.startswith(("Claim", "Which", "During", "Random"))]
    assert len(measured) == 7
    assert all("\n|---" in part for part in measured)


def test_the_page_on_extensions_runs_and_each_extension_is_short(tmp_path, monkeypatch, capsys):
    _, names = run("extend.md", tmp_path, monkeypatch)
    assert names["pattern"].info["settings"]["solver"] == "random swaps"
    assert names["classifier"].provenance["format"] == "training run"
    assert names["comparison"].table()["distance"].notna().all()
    assert "distance from the centre (pixels)" in (tmp_path / "report.html").read_text()
    assert not names["own"].failures
    assert {record.method for record in names["own"].records} == {"Unusual"}
    assert (tmp_path / "mean.html").read_text().count("<img ") == 1
    assert names["axes"].shape == (1, 2)
    for definition in DEFINITIONS:
        assert len(definition.strip().splitlines()) < 30


def test_the_page_on_sweeps_runs(tmp_path, monkeypatch):
    _, names = run("sweep.md", tmp_path, monkeypatch)
    assert len(names["found"].table()) == 3 * 2
    assert (tmp_path / "power.png").stat().st_size > 5_000


def test_the_page_on_stability_runs(tmp_path, monkeypatch):
    _, names = run("stability.md", tmp_path, monkeypatch)
    assert names["common"].info["seeds"] == [0, 1, 2]
    assert int(names["common"].mask.sum()) == 39


def test_the_page_on_quantus_runs(tmp_path, monkeypatch):
    pytest.importorskip("quantus", exc_type=ImportError)  # OpenCV needs libGL
    _, names = run("quantus.md", tmp_path, monkeypatch)
    assert list(names["scores"]) == list(names["metrics"])
    assert all(len(values) == 2 for values in names["scores"].values())
