"""Explains a class with the package that was built, in an empty folder: python check_wheel.py"""

from pathlib import Path

import captum_classpattern as cp

CHECKOUT = Path(__file__).parent.parent / "captum_classpattern"
BUILT = Path(cp.__file__).parent


def files(package):
    """The names of its files, without bytecode."""
    names = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    return {name for name in names if "__pycache__" not in name.parts}


assert BUILT != CHECKOUT, "this checks the wheel, not the checkout"
assert files(BUILT) == files(CHECKOUT), files(BUILT) ^ files(CHECKOUT)

images = cp.demo_images()
settings = {"area": 0.01, "canvases": {"white": 1}, "n_steps": 2, "show_progress": False}
model = cp.demo_models()["backdoored"]
found = cp.explain_class(
    model, images.search, target="T-shirt", held_out=images.held_out, **settings
)
assert found.scores[0.01].power.value > 0.3, found
assert "T-shirt" in found.to_html("found.html").read_text(encoding="utf-8")
