"""Imports run one way, by the syntax trees."""

import ast
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import captum_classpattern

PACKAGE = Path(captum_classpattern.__file__).parent
NAME = "captum_classpattern"

# What each module or package imports of the package; each line only names those above it. The
# package itself gives names to users, and the command line uses everything.
ALLOWED = {
    "_support": "",
    "visualization": "_support",
    "pages": "_support visualization",
    "results": "_support pages",
    "pattern": "_support results visualization",
    "triggers": "_support pattern",
    "classifier": "_support pattern",
    "images": "_support classifier",
    "datasets": "_support classifier images",
    "demo": "classifier images pattern triggers",
    "adapters": "_support classifier datasets pattern",
    "scores": "_support classifier images pattern results visualization",
    "optimization": "_support classifier images pattern scores",
    "surveys": """
        _support adapters classifier images optimization pages pattern results scores visualization
    """,
    "scanning": """
        _support classifier images optimization pages pattern results scores surveys visualization
    """,
    "comparison": """
        _support classifier images optimization pages pattern results scores visualization
    """,
}
ALLOWED = {name: set(allowed.split()) for name, allowed in ALLOWED.items()}


def name_of(path):
    """``demo`` for demo/__init__.py, ``demo.network`` for demo/network.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def part(name):
    """The top-level module or package that a module belongs to."""
    return name.split(".")[0]


def imported(name):
    """All that a module imports to run, also inside functions, as absolute names."""
    found, typed = set(), set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typed |= {inner for child in node.body for inner in ast.walk(child)}
        if node in typed:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full.removeprefix(f"{NAME}.") in MODULES else node.module)
    return found


IMPORTED = {name: imported(name) for name in MODULES}
IMPORTS = {  # of the package
    name: {
        other.removeprefix(NAME).removeprefix(".")
        for other in found
        if other == NAME or other.startswith(f"{NAME}.")
    }
    for name, found in IMPORTED.items()
}


def test_imports_run_one_way():
    """Nothing imports the command line or the whole package. A new module needs a line above."""
    used = defaultdict(set)
    for name, others in IMPORTS.items():
        used[part(name)] |= {part(other) for other in others} - {part(name)}
    assert "cli" not in used.pop("")
    del used["cli"]
    assert used == ALLOWED
    above = set()
    for name, allowed in ALLOWED.items():
        assert allowed <= above
        above.add(name)


def test_no_module_imports_itself_through_others():
    """No circle of files, not even inside functions."""
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError


def test_only_optional_packages_are_imported_by_a_name_that_is_made_up():
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in ("import_module", "__import__"))
        or (isinstance(node, ast.Attribute) and node.attr == "import_module")
    }
    assert users == {"_support.validation"}  # also a user's module:name


def reached(name):
    """All modules of the package that a module needs, directly or through others."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(IMPORTS[module] for module in new)) - found
    return found - {name}


def test_a_pattern_knows_no_model_and_demo_and_triggers_know_no_search():
    """A result draws itself, so a pattern reaches figures and pages."""
    parts = {part(other) for other in reached("pattern")}
    assert parts <= {"_support", "results", "visualization", "pages"}
    for name in ("demo", "triggers", "classifier", "images"):
        parts = {part(other) for other in reached(name)}
        assert not parts & {"optimization", "surveys", "scores", "scanning", "comparison"}


CORE = {"_support", "pattern", "classifier", "images", "triggers", "scores", "optimization"}
CORE_LIBRARIES = {"torch", "captum", "numpy", "scipy", "safetensors", "tqdm"}
PLACES = {  # the parts, or the modules, that a library is for
    "matplotlib": {"visualization"},
    "torchvision": {"datasets", "adapters"},
    "jinja2": {"pages"},
    "cyclopts": {"cli"},
    "ray": {"surveys.on_ray"},
}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_libraries_stay_in_their_place_and_the_core_needs_few(name):
    libraries = {part(other) for other in IMPORTED[name]} - sys.stdlib_module_names - {NAME}
    for library in libraries & set(PLACES):
        assert PLACES[library] & {name, part(name)}, library
    if part(name) in CORE:
        assert libraries <= CORE_LIBRARIES


def test_only_the_command_line_prints_and_nothing_is_unpickled_or_evaluated():
    for name, tree in TREES.items():
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {function.id for function in calls if isinstance(function, ast.Name)}
        assert not called & {"eval", "exec"}, name
        assert "print" not in called or part(name) == "cli", name
        # only where one trusts the file
        allowed = {"pickle"} if name == "adapters.safe_load" else set()
        assert not ({"pickle", "dill", "joblib"} & IMPORTED[name]) - allowed, name
