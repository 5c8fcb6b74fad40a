"""The documentation site: ``sphinx-build docs OUT``. It downloads nothing and runs no notebook."""

import os
import re
import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "captum_classpattern"
author = "The captum_classpattern founders"
version = release = installed(project)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # the notebooks are committed with their outputs
nb_merge_streams = True
smartquotes = False  # they make one dash of "--help"
suppress_warnings = ["misc.highlighting_failure"]  # their shell lines, "!classpattern ..."
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give the types, with shapes
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 80
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = project
html_logo = html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_math_renderer = "mathml"

# The menu of the site: pages below a page. It is not in these pages, where a code host would show
# it as text.
MENU = {
    "index": {
        "Get started": ["Start here <self>", "tutorials/index", "README <project/readme>"],
        "How-to": [
            "bring_your_own_model",
            "read_a_pattern",
            "scan",
            "compare",
            "many_models",
            "extend",
        ],
        "Understand": ["method"],
        "Evidence": [
            "results_to_cite",
            "results/index",
            "project/benchmarks",
            "project/claims_protocol",
            "project/scan_protocol",
            "project/photos_protocol",
            "project/fine_tuned_protocol",
            "project/development_log",
        ],
        "API": [
            "api/index",
            "project/command_line",
            "api/json",
            "project/changelog",
            "project/contributing",
            "project/notice",
        ],
    },
    "tutorials/index": {"Tutorials": ["[0-9]*"]},
    "results/index": {"Tables": ["*"]},
    "api/index": {
        "Reference": [
            "search",
            "scores",
            "surveys",
            "visualization",
            "scanning",
            "sweeps",
            "comparison",
            "adapters",
            "datasets",
            "triggers",
            "demo",
        ]
    },
}

# Files outside docs/ that become pages of the site; copied when a build starts.
COPIED = {
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "NOTICE.md": "project/notice.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "benchmarks/claims/PROTOCOL.md": "project/claims_protocol.md",
    "benchmarks/zoo/PROTOCOL.md": "project/scan_protocol.md",
    "benchmarks/photos/PROTOCOL.md": "project/photos_protocol.md",
    "benchmarks/fine_tuned/PROTOCOL.md": "project/fine_tuned_protocol.md",
    "benchmarks/development_log.md": "project/development_log.md",
    "tutorials/README.md": "tutorials/index.md",
    **{
        f"tutorials/{name.name}": f"tutorials/{name.name}"
        for name in ROOT.glob("tutorials/*.ipynb")
    },
}
LINK = re.compile(r"\[([^][]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def adapt_links(text: str, original: Path, page: Path) -> str:
    """The text of a file, with its links adapted to the location of its page in the site.

    Links to pages stay links, links to other files become downloads, and links to folders become
    plain text.
    """

    def adapted(link: re.Match[str]) -> str:
        label, path, anchor = link.groups(default="")
        target = (original.parent / path).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        if target.is_dir():
            return label
        name = target.relative_to(ROOT).as_posix()
        location = DOCS / COPIED.get(name, target)
        return f"[{label}]({Path(os.path.relpath(location, page.parent)).as_posix()}{anchor})"

    return LINK.sub(adapted, text)


def write(page: Path, text: str) -> None:
    """Writes a page if its text is new: Sphinx rebuilds only pages that have changed."""
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def copy_pages(app):
    """Copies the pages from outside docs/, and writes the page of the command line."""
    for name, location in COPIED.items():
        original, page = ROOT / name, DOCS / location
        write(page, adapt_links(original.read_text(encoding="utf-8"), original, page))
    for page in DOCS.glob("tutorials/*.ipynb"):
        if f"tutorials/{page.name}" not in COPIED:
            page.unlink()  # its notebook is gone
    code = f"from {project}.cli import app; print(app.generate_docs())"
    documented = subprocess.run(  # not here: usage lines would name "python -m sphinx"
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    text = documented.stdout.replace("# classpattern", "# Command line", 1)
    write(DOCS / "project/command_line.md", text)


def adapt_page(app, docname, source):
    """Adapts the links of the pages in docs/, and adds their menus."""
    page = Path(app.env.doc2path(docname))
    if page.suffix == ".md":
        source[0] = adapt_links(source[0], page, page)
    for caption, pages in MENU.get(docname, {}).items():
        lines = "\n".join(pages)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:glob:\n:caption: {caption}\n\n{lines}\n```\n"


def write_inline(self, node):
    """A formula as MathML, which browsers render without external scripts."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def write_block(self, node):
    formula = convert(node.astext(), display="block")
    self.body.append(f'<div class="math-block">{formula}</div>')
    raise nodes.SkipNode


def find_by_name(app, env, node, content):
    """Resolves ``:func:`name```: docstrings name the package's functions without their module."""
    if node.get("refdomain") != "py" or node.get("refspecific"):
        return None
    node["refspecific"] = True  # look in all modules
    kind, name = node["reftype"], node["reftarget"]
    python = env.domains["py"]
    return python.resolve_xref(env, node["refdoc"], app.builder, kind, name, node, content)


def keep_percent(app, doctree):
    """No line ends between a number and its per cent sign."""
    code = (nodes.literal, nodes.literal_block, nodes.doctest_block, nodes.raw, nodes.math)
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, code):
            text.parent.replace(text, nodes.Text(re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)))


def setup(app):
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    app.connect("builder-inited", copy_pages)
    app.connect("source-read", adapt_page)
    app.connect("doctree-read", keep_percent)
    app.connect("missing-reference", find_by_name)
