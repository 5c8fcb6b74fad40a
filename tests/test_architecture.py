"""Imports run one way, by the syntax trees."""

import ast
from pathlib import Path

import pytest

import captum_classpattern

PACKAGE = Path(captum_classpattern.__file__).parent
NAME = "captum_classpattern"

# What each module may import of the package; each line only names modules of the lines above.
ALLOWED = {
    "errors": set(),
    "suggestions": set(),
    "class_names": {"suggestions"},
    "hashes": set(),
    "pattern": {"hashes"},
    "classifier": {"pattern"},
    "checks": {"class_names", "classifier"},
    "images": {"checks", "classifier", "hashes"},
    "datasets": {"checks", "class_names", "classifier", "hashes", "suggestions"},
    "settings": {"checks"},
    "schedule": {"images", "settings"},
    "objective": {"classifier", "schedule"},
    "acceleration": {"checks", "classifier"},
    "search": {
        "acceleration",
        "checks",
        "classifier",
        "images",
        "objective",
        "pattern",
        "schedule",
        "settings",
    },
    "canvases": {"checks", "classifier", "images"},
    "statistics": set(),
    "metrics": {"checks", "classifier", "images", "pattern", "statistics"},
    "localisation": {"pattern"},
    "simplicity": set(),
    "stability": set(),
    "judging": {"classifier", "images", "metrics", "pattern"},
    "attribution": {
        "checks",
        "class_names",
        "classifier",
        "hashes",
        "images",
        "judging",
        "metrics",
        "pattern",
        "search",
        "settings",
    },
    "survey": {
        "attribution",
        "canvases",
        "checks",
        "classifier",
        "images",
        "metrics",
        "pattern",
        "statistics",
    },
    "results": {"class_names", "metrics", "pattern", "survey"},
    "visualization": {"checks", "classifier", "images", "metrics", "pattern"},
    "comparison": {
        "attribution",
        "checks",
        "class_names",
        "classifier",
        "hashes",
        "images",
        "localisation",
        "metrics",
        "pattern",
        "settings",
        "simplicity",
        "stability",
        "statistics",
        "visualization",
    },
    "report": {"comparison", "metrics", "pattern", "visualization"},
    "poisoning": set(),
    "triggers": {"pattern", "poisoning"},
    "adapters": {"class_names", "classifier", "pattern"},
    "demo.network": set(),
    "demo": {"classifier", "demo.network", "pattern", "triggers"},
    "demo.training": {"demo", "demo.network", "triggers"},
    "demo.story": {"demo", "metrics", "pattern", "results", "statistics", "survey"},
}
ANYTHING = {"", "cli"}  # the package itself gives names to users; the command line uses all
EVERYWHERE = {"errors"}  # knows nothing, and may be raised by all


def name_of(path):
    """``demo`` for demo/__init__.py, ``demo.training`` for demo/training.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(name):
    """Files of a folder without a line of their own follow the line of the folder."""
    own = name in ALLOWED or name in ANYTHING or "." not in name
    return name if own else name.rpartition(".")[0]


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
                part = f"{node.module}.{alias.name}"
                is_module = part.removeprefix(f"{NAME}.") in MODULES
                found.add(part if is_module else node.module)
    return found


def imported_here(name):
    own = {part for part in imported(name) if part == NAME or part.startswith(f"{NAME}.")}
    return {part.removeprefix(NAME).removeprefix(".") for part in own} - EVERYWHERE


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) not in ANYTHING))
def test_imports_run_one_way(name):
    assert room(name) in ALLOWED, f"{name} is new: give it a line in ALLOWED"
    rooms = {room(other) for other in imported_here(name)}
    assert rooms <= ALLOWED[room(name)] | {room(name)}


def test_the_table_has_no_circle():
    above = set()
    for name, allowed in ALLOWED.items():
        assert allowed <= above
        above.add(name)


def test_the_table_is_what_the_files_do():
    """The core's edges are all in use, so that the table tells how the package is built."""
    core = ("classifier", "checks", "images", "settings", "schedule", "objective", "acceleration")
    rest = ("search", "pattern", "metrics", "judging", "canvases", "attribution", "triggers")
    for name in (*core, *rest, "demo"):
        assert imported_here(name) == ALLOWED[name]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) != "cli"))
def test_nothing_imports_the_command_line_or_the_whole_package(name):
    assert not [other for other in imported_here(name) if room(other) == "cli"]
    assert "" not in imported_here(name)


def reached(name):
    """All modules of the package behind a module, however far."""
    found, new = set(), {name}
    while new:
        found |= new
        new = set().union(*(imported_here(module) for module in new)) - found
    return found - {name}


@pytest.mark.parametrize("name", ["demo", "demo.training", "triggers"])
def test_demo_and_triggers_know_no_search(name):
    found = reached(name)
    assert not found & {"search", "schedule", "objective", "attribution", "survey", "metrics"}


def test_a_pattern_knows_no_model():
    assert reached("pattern") == {"hashes"}


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("matplotlib", {"visualization"}),
        ("torchvision", {"datasets", "adapters"}),
        ("typer", {"cli"}),
        ("rich", {"cli", "results"}),
        ("jinja2", {"report"}),
    ],
)
def test_libraries_stay_in_their_rooms(library, rooms):
    for name in MODULES:
        uses = any(part.split(".")[0] == library for part in imported(name))
        assert not uses or name.split(".")[0] in rooms, f"{name} imports {library}"


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"demo.training"}))
def test_nothing_is_printed(name):
    calls = [node.func for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id == "print"]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_is_unpickled_or_evaluated(name):
    allowed = {"pickle"} if name == "adapters.opening" else set()  # only where one trusts the file
    assert not ({"pickle", "dill", "joblib"} & imported(name)) - allowed
    calls = [node.func for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    assert not [f for f in calls if isinstance(f, ast.Name) and f.id in ("eval", "exec")]
