"""What the package imports, it declares; its version, description and data are consistent."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import captum_classpattern

PACKAGE = Path(captum_classpattern.__file__).parent
ROOT = Path(__file__).parent.parent
OPTIONAL = {"timm", "robustbench", "sklearn", "ray"}  # extras, or if installed
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]
NAMES = {"PIL": "pillow"}  # distributions whose modules have another name


def declared():
    """The package's own dependencies, by name."""
    return {re.match(r"[\w.-]+", entry)[0] for entry in PROJECT["dependencies"]}


def imported():
    modules = set()
    for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module.split(".")[0])
    return modules - set(sys.stdlib_module_names) - {"captum_classpattern"}


def test_a_notebook_without_ipywidgets_shows_no_warning():
    """Captum's import of tqdm would warn."""
    notebook = (
        "import sys, types, warnings\n"
        "sys.modules |= {'ipywidgets': None, 'ipykernel.zmqshell': types.ModuleType('')}\n"
        "sys.modules['IPython'] = types.SimpleNamespace(get_ipython=object)\n"
    )
    ours = "import captum_classpattern\ncaptum_classpattern.ClassPattern"
    for code, warned in ((ours, False), ("import captum.attr", True)):
        line = [sys.executable, "-c", notebook + code]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        assert ("IProgress not found" in done.stderr) == warned


def test_what_is_imported_is_declared():
    used = {NAMES.get(module, module) for module in imported() - OPTIONAL}
    assert used == declared()


def test_the_description_is_one_sentence_everywhere():
    """In version 0.1 some places promised what the README denied."""
    assert "as many other images as possible" in PROJECT["description"]
    promise = re.compile(r"(say|predict)s? (a|the|that) class on almost any")
    for path in (*PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        text = " ".join(path.read_text(encoding="utf-8").split())
        for found in promise.finditer(text):
            around = text[max(0, found.start() - 120) : found.end() + 120]
            assert "claim" in around.lower(), f"{path.name}: {around}"


def test_the_version_and_the_last_release_are_the_same_everywhere():
    """A development version has an "Unreleased" section; the release before it is cited."""
    changelog, version = (ROOT / "CHANGELOG.md").read_text(), PROJECT["version"]
    newest = re.search(r"^## \[(.*)\]", changelog, re.M)[1]
    assert newest == ("Unreleased" if ".dev" in version else version)
    released = re.search(r"^## \[(\d.*)\] - (\S+)$", changelog, re.M).groups()
    cited = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)\ndate-released: (.*)$", cited, re.M).groups() == released
    bibtex = (ROOT / "docs" / "index.md").read_text().split("```bibtex")[1]
    in_bibtex = re.search(r"version = \{(.*)\},\n  year = \{(.*)\}", bibtex).groups()
    assert in_bibtex == (released[0], released[1][:4])
    assert all(f"{name}," in bibtex for name in re.findall(r"family-names: ([\w-]+)", cited))


def test_the_notice_names_the_license_of_all_data():
    named = re.findall(r"`([\w/]+/\*?[\w.]*)`", (ROOT / "NOTICE.md").read_text())
    data = {path for path in PACKAGE.rglob("data/**/*") if path.is_file()}
    data = {path for path in data if not path.name.startswith("LICENSE")}
    assert len(data) > 5
    assert not data - {path for glob in named for path in ROOT.glob(glob)}


def test_the_docs_and_the_tools_name_the_oldest_python():
    oldest = PROJECT["requires-python"].removeprefix(">=")
    named = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert named[0] == oldest
    assert SETTINGS["tool"]["mypy"]["python_version"] == oldest
    assert SETTINGS["tool"]["ruff"]["target-version"] == "py" + oldest.replace(".", "")
    assert f"Python {oldest} or newer" in (ROOT / "docs/index.md").read_text()


def test_the_badges_are_true():
    drawn = re.findall(r"<text[^>]*>(.*?)</text>", (ROOT / "docs/images/badges.svg").read_text())
    floors = {"python": PROJECT["requires-python"].removeprefix(">=")}
    floors |= dict(each.split(">=") for each in PROJECT["dependencies"])
    wanted = [(name, f"{floors[name]} or newer") for name in ("python", "torch", "captum")]
    assert [*zip(drawn[::2], drawn[1::2])] == [*wanted, ("licence", PROJECT["license"])]
    readme = (ROOT / "README.md").read_text()
    [text] = re.findall(r"!\[(.*)\]\(docs/images/badges.svg\)", readme)
    values = *(floors[name] for name in ("python", "torch", "captum")), PROJECT["license"]
    assert text == "Python {}+, PyTorch {}+, Captum {}+, {}".format(*values)
