"""Imports run one way, by the syntax trees."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import captum_classpattern

PACKAGE = Path(captum_classpattern.__file__).parent
NAME = "captum_classpattern"

# What each module or package may import of the package; each line only names those above it.
ALLOWED = {
    "_validation": set(),
    "_files": set(),
    "pages": set(),
    "pattern": {"_files", "_validation"},
    "classifier": {"_validation", "pattern"},
    "class_names": {"_validation", "classifier"},
    "images": {"_validation", "class_names", "classifier", "pattern"},
    "fingerprints": {"classifier", "images"},
    "canvases": {"_validation", "class_names", "classifier", "images"},
    "triggers": {"_validation", "pattern"},
    "scores": {"_validation", "classifier", "images", "pattern"},
    "optimization": {
        "_validation",
        "class_names",
        "classifier",
        "images",
        "pattern",
        "scores",
    },
    "attribution": {
        "_validation",
        "class_names",
        "classifier",
        "images",
        "optimization",
        "pattern",
    },
    "visualization": {
        "_files",
        "_validation",
        "class_names",
        "classifier",
        "images",
        "pages",
        "pattern",
        "scores",
    },
    "invariance": {"_validation", "classifier", "images", "pattern", "scores", "visualization"},
    "datasets": {"_files", "_validation", "class_names", "classifier", "images", "pattern"},
    "adapters": {"_validation", "class_names", "classifier", "pattern"},
    "surveys": {
        "_files",
        "_validation",
        "attribution",
        "canvases",
        "class_names",
        "classifier",
        "fingerprints",
        "images",
        "optimization",
        "pattern",
        "scores",
        "visualization",
    },
    "sweeps": {
        "_validation",
        "adapters",
        "attribution",
        "class_names",
        "classifier",
        "fingerprints",
        "images",
        "optimization",
        "scores",
        "surveys",
        "visualization",
    },
    "scanning": {
        "_files",
        "_validation",
        "attribution",
        "class_names",
        "classifier",
        "fingerprints",
        "images",
        "optimization",
        "pattern",
        "scores",
        "visualization",
    },
    "comparison": {
        "_validation",
        "attribution",
        "class_names",
        "classifier",
        "fingerprints",
        "images",
        "optimization",
        "pattern",
        "scores",
        "visualization",
    },
    "report": {"_files", "comparison", "pages", "pattern", "scores", "visualization"},
    "explorer": {
        "_validation",
        "class_names",
        "classifier",
        "datasets",
        "images",
        "pattern",
        "scores",
        "surveys",
        "visualization",
    },
    "gallery": {
        "_files",
        "adapters",
        "class_names",
        "pages",
        "pattern",
        "report",
        "scores",
        "surveys",
        "sweeps",
        "visualization",
    },
    "demo": {"classifier", "images", "pattern", "triggers"},
}
# A result shows itself: inside a method, it imports what draws it, which needs its type.
SHOWN_BY = {"pattern": "visualization", "scores": "visualization", "comparison": "report"}
ANYTHING = {"", "cli"}  # the package itself gives names to users; the command line uses all


def name_of(path):
    """``demo`` for demo/__init__.py, ``demo.network`` for demo/network.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def part(name):
    """The top-level module or package that a module belongs to."""
    return name.split(".")[0]


def tree_of(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def nodes_of(name):
    """The nodes of a module, without the imports in methods by which a result shows itself."""
    tree, shown = tree_of(name), set()
    methods = [m for c in tree.body if isinstance(c, ast.ClassDef) for m in c.body]
    for node in (node for method in methods for node in ast.walk(method)):
        module = node.module if isinstance(node, ast.ImportFrom) else ""
        if part(module.removeprefix(f"{NAME}.")) == SHOWN_BY.get(part(name)):
            shown.add(node)
    return [node for node in ast.walk(tree) if node not in shown]


def imported(name):
    """All that a module imports, anywhere in it, as absolute names."""
    found = set()
    for node in nodes_of(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix(f"{NAME}.") in MODULES
                found.add(full if is_module else node.module)
    return found


def imported_here(name):
    """The modules of the package that a module imports."""
    ours = {other for other in imported(name) if other == NAME or other.startswith(f"{NAME}.")}
    return {other.removeprefix(NAME).removeprefix(".") for other in ours}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) not in ANYTHING))
def test_imports_run_one_way(name):
    assert part(name) in ALLOWED, f"{name} is new: give it a line in ALLOWED"
    parts = {part(other) for other in imported_here(name)}
    assert parts <= ALLOWED[part(name)] | {part(name)}


def test_the_table_has_no_cycle():
    above = set()
    for name, allowed in ALLOWED.items():
        assert allowed <= above
        above.add(name)


def test_the_table_has_no_entry_that_is_not_used():
    used = {name: set() for name in ALLOWED}
    for name in MODULES:
        if part(name) in used:
            used[part(name)] |= {part(other) for other in imported_here(name)} - {part(name)}
    assert used == ALLOWED


def test_no_module_imports_itself_through_others():
    """Not even inside functions, or under TYPE_CHECKING."""
    imports = {name: imported_here(name) for name in MODULES}
    TopologicalSorter(imports).prepare()  # raises CycleError


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) != "cli"))
def test_nothing_imports_the_command_line_or_the_whole_package(name):
    assert not [other for other in imported_here(name) if part(other) == "cli"]
    assert "" not in imported_here(name)


def reached(name):
    """All modules of the package that a module needs, directly or through others."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(imported_here(module) for module in new)) - found
    return found - {name}


@pytest.mark.parametrize("name", ["demo", "triggers"])
def test_demo_and_triggers_know_no_search(name):
    parts = {part(other) for other in reached(name)}
    assert not parts & {"optimization", "attribution", "surveys", "scores"}


def test_a_pattern_knows_no_model():
    assert reached("pattern") == {"_files", "_validation"}


CORE = {"_validation", "_files", "pattern", "classifier", "class_names", "images", "canvases"}
CORE |= {"triggers", "scores", "optimization", "attribution", "invariance"}
CORE_LIBRARIES = {"torch", "captum", "numpy", "scipy", "safetensors", "tqdm"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) in CORE))
def test_the_core_needs_few_libraries(name):
    libraries = {part(other) for other in imported(name)} - sys.stdlib_module_names - {NAME}
    assert libraries <= CORE_LIBRARIES | ({"pandas"} if name == "scores.tables" else set())


@pytest.mark.parametrize(
    ("library", "parts"),
    [
        ("matplotlib", {"visualization"}),
        ("torchvision", {"datasets", "adapters"}),
        ("jinja2", {"pages"}),
        ("cyclopts", {"cli"}),
        ("rich", {"cli"}),
        ("ray", {"sweeps"}),
        ("ipywidgets", {"explorer"}),
    ],
)
def test_libraries_stay_in_their_place(library, parts):
    for name in MODULES:
        uses = any(part(other) == library for other in imported(name))
        assert not uses or part(name) in parts, f"{name} imports {library}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) != "cli"))
def test_only_the_command_line_prints(name):
    calls = [node.func for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled_or_evaluated(name):
    allowed = (
        {"pickle"} if name == "adapters.safe_load" else set()
    )  # only where one trusts the file
    assert not ({"pickle", "dill", "joblib"} & imported(name)) - allowed
    calls = [node.func for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id in ("eval", "exec")]
