"""Imports run one way, by the syntax trees."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import captum_classpattern
from captum_classpattern import results
from captum_classpattern.pages import kinds

PACKAGE = Path(captum_classpattern.__file__).parent
NAME = "captum_classpattern"

# What each module or package may import of the package; each line only names those above it.
ALLOWED = {
    "_validation": set(),
    "_files": set(),
    "results": set(),
    "pattern": {"_files", "_validation", "results"},
    "classifier": {"_validation", "pattern"},
    "images": {"_validation", "classifier", "pattern"},
    "triggers": {"_validation", "pattern"},
    "demo": {"classifier", "images", "pattern", "triggers"},
    "datasets": {"_files", "_validation", "classifier", "images", "pattern"},
    "adapters": {"_validation", "classifier", "datasets", "pattern"},
    "scores": {"_validation", "classifier", "images", "pattern", "results"},
    "optimization": {"_validation", "classifier", "images", "pattern", "scores"},
    "attribution": {"_validation", "classifier", "images", "optimization", "pattern"},
    "surveys": {
        "_files",
        "_validation",
        "adapters",
        "attribution",
        "classifier",
        "images",
        "optimization",
        "pattern",
        "results",
        "scores",
    },
    "scanning": {
        "_files",
        "_validation",
        "attribution",
        "classifier",
        "images",
        "optimization",
        "pattern",
        "results",
        "scores",
    },
    "comparison": {
        "_validation",
        "attribution",
        "classifier",
        "images",
        "optimization",
        "pattern",
        "results",
        "scores",
    },
    "visualization": {
        "_validation",
        "classifier",
        "comparison",
        "images",
        "pattern",
        "scanning",
        "scores",
        "surveys",
    },
    "pages": {
        "_files",
        "_validation",
        "adapters",
        "classifier",
        "comparison",
        "datasets",
        "images",
        "pattern",
        "results",
        "scanning",
        "scores",
        "surveys",
        "visualization",
    },
}
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


def imported(name):
    """All that a module imports, anywhere in it, as absolute names."""
    found = set()
    for node in ast.walk(tree_of(name)):
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


# What is imported by a name that is made up, which the tables above don't see: the hook by which a
# result finds what draws it, old names of modules, optional packages, and a user's module:name.
HOOKS = {"results", "pages.kinds", "", "_validation"}


def test_results_have_one_hook_to_what_draws_them():
    users = {
        name
        for name in MODULES
        for node in ast.walk(tree_of(name))
        if (isinstance(node, ast.Name) and node.id in ("import_module", "__import__"))
        or (isinstance(node, ast.Attribute) and node.attr == "import_module")
    }
    assert users == HOOKS
    assert f"{NAME}.pages.kinds" == results.KINDS
    modules = {kind for kind in kinds.KINDS.values() if isinstance(kind, str)}
    assert {f"pages.kinds.{module}" for module in modules} <= set(MODULES)


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
    assert reached("pattern") == {"_files", "_validation", "results"}


CORE = {"_validation", "_files", "pattern", "classifier", "images", "results", "triggers"}
CORE |= {"scores", "optimization", "attribution"}
CORE_LIBRARIES = {"torch", "captum", "numpy", "scipy", "safetensors", "tqdm"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) in CORE))
def test_the_core_needs_few_libraries(name):
    libraries = {part(other) for other in imported(name)} - sys.stdlib_module_names - {NAME}
    assert libraries <= CORE_LIBRARIES | ({"pandas"} if name == "results" else set())


@pytest.mark.parametrize(
    ("library", "parts"),
    [
        ("matplotlib", {"visualization"}),
        ("torchvision", {"datasets", "adapters"}),
        ("jinja2", {"pages"}),
        ("cyclopts", {"cli"}),
        ("rich", {"cli"}),
        ("ray", {"surveys"}),
        ("ipywidgets", {"pages"}),
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
