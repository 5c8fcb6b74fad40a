"""Code, documentation and notebooks avoid phrases that are not plain English."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
AVOID = {  # phrases as regular expressions, and what to write instead
    "told": "'reported', 'distinguished', or a name that says what the value is",
    "tells? of|says? of": "'reports', 'describes', 'predicts for'",
    "in the mean": "'on average'",
    "hangs? on": "'depends on'",
    "by lot": "'at random'",
    "(is|are) no (proof|evidence|measure|patch|patches)": "'does not prove', 'is not a patch'",
    "(stands?|stood) beside": "'is shown next to'",
    "made of whose": "two sentences",
    "as (it comes|they come)": "'unchanged', 'in its order'",
    "(one|a map|a row|a pattern) an? (class|image|model|canvas)": "'one per class'",
    "of each the best": "'each at its best'",
    "(is|are) had": "'exists', 'is available'",
    "taken as (it is|they are)": "'used unchanged'",
    "(go|goes|going|went) on with": "'continue with'",
    "so many of": "'the same number of', 'at most this many'",
    "that is none": "'that is not one'",
    "(say|says|saying) (a|the|that) class": "'predict the class'",
    "turns? (the |most |many |other |all )?(images|photos) into": "'make the model predict'",
    "(become|becomes) the class": "'is predicted as the class'",
    "(networks|models) of (CIFAR|Fashion|ImageNet)": "'networks trained on CIFAR-10'",
    ", too(?=[.:;,)])": "'also', 'so does'",
}
EXCEPTIONS = {"tests/project/test_language.py"}  # lists the phrases
FILES = (
    *("*.py", "*.md", "*.toml", "*.cff", ".ci/*", "docs/*.py", "docs/*.md", "docs/api/*"),
    "docs/results/*",
    *(
        "benchmarks/*",
        "benchmarks/*/*.py",
        "tutorials/*.py",
        "tutorials/*.md",
        "tutorials/*.ipynb",
        "tests/**/*.py",
    ),
    *(f"captum_classpattern/**/*.{suffix}" for suffix in ("py", "pyi", "html", "js", "css")),
)
GAP = r"\s+(?:# )?"  # a phrase can continue in the next line, also of a comment
PHRASE = re.compile(
    "|".join(f"(?<![a-z])(?:{phrase.replace(' ', GAP)})(?![a-z])" for phrase in AVOID),
    re.IGNORECASE,
)


def text_of(path):
    """The text of a file; of a notebook, the sources of its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return text


def phrases_in(text):
    """(line number, phrase) of all phrases to avoid."""
    return [
        (text.count("\n", 0, found.start()) + 1, " ".join(found[0].replace("#", "").split()))
        for found in PHRASE.finditer(text)
    ]


def test_no_file_has_a_phrase_to_avoid():
    paths = {path for pattern in FILES for path in ROOT.glob(pattern) if path.is_file()}
    found = [
        f"{name}:{line}: {phrase}"
        for name, path in sorted((path.relative_to(ROOT).as_posix(), path) for path in paths)
        if name not in EXCEPTIONS
        for line, phrase in phrases_in(text_of(path))
    ]
    assert not found, "\n".join(["use plain English instead (see AVOID):", *found])


def test_phrases_are_found_in_names_and_across_lines():
    assert phrases_in("# the pixels are drawn by\n    # lot") == [(1, "by lot")]
    assert phrases_in("\nIt tells\nof a class; told_all") == [(2, "tells of"), (3, "told")]
    assert phrases_in("untold, retold, in the meantime; on average") == []
