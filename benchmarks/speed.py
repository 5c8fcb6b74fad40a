"""The speed of the search: compared with the paper's loop and the bare network, and how it scales.

    python benchmarks/speed.py --cifar10 FOLDER --photos FOLDER

prints Markdown tables; all ratios come from one run. CIFAR-10 is ``test/<class>/*`` (and
``train/<class>/*`` for the table of growth). The photographs are ``NNNN_wnid/*``, where NNNN is the
ImageNet-1k label; they need ``pip install '.[benchmarks]'``. Without folders, only the embedded
models are used.
"""

import contextlib
import io
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

import torch
from equal_power import compare, latency, saturation
from findings import parser_of
from growth import grow
from overhead import overhead
from problems import Problem, cifar10_problems, demo_problems, photo_problem, row
from strength import strength

from captum_classpattern import ClassPattern, predictive_power
from captum_classpattern.demo import CLASS_NAMES

TABLES = ("power", "strength", "overhead", "growth")
HEAD = "| figure | reference | ours | goal | |\n|---|---|---|---|---|"
DEMO_LIMIT, PHOTO_LIMIT = 60, 60  # seconds
ZEBRA, PHOTO_BUDGET = 340, 2_000  # the class of the photographs; passes
PHOTO_POWER = 0.35  # at least
PHOTO_CLASSES = 10  # on white canvases


def machine(device: torch.device) -> str:
    """A description of the hardware and the torch version."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    threads = f"{torch.get_num_threads()} threads, " if device.type == "cpu" else ""
    return f"{name or platform.machine()}, {threads}torch {torch.__version__}"


def demo_time() -> Iterator[str]:
    """The time of the demo without its comparison."""
    from tempfile import TemporaryDirectory

    from captum_classpattern.cli.demo import CANVASES, ROUNDS, demo

    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        demo(out=Path(folder), comparison=False)
        seconds = time.perf_counter() - started
    canvases = sum(CANVASES.values())
    name = f"the demo: 3 models, {len(CLASS_NAMES)} classes, {canvases} canvases, {ROUNDS} rounds"
    yield row(name, "", f"{seconds:.0f} s", f"<= {DEMO_LIMIT} s", seconds <= DEMO_LIMIT)


def photo_time(problem: Problem, device: torch.device) -> Iterator[str]:
    """The time of one class of a large model, and its power."""
    canvas = problem.images[problem.labels == ZEBRA][:1].to(device)
    explainer = ClassPattern(problem.model, problem.images, problem.labels)
    started = time.perf_counter()
    [pattern] = explainer.search(canvas, ZEBRA, budget=PHOTO_BUDGET)
    seconds = time.perf_counter() - started
    power = predictive_power(problem.model, pattern, problem.held_out, problem.held_out_labels)
    yield row(
        f"{problem.name}: one class, one canvas (power {power.value:.3f} on {power.n} photographs)",
        "", f"{seconds:.0f} s", f"<= {PHOTO_LIMIT} s, power >= {PHOTO_POWER}",
        seconds <= PHOTO_LIMIT and power.value >= PHOTO_POWER,
    )  # fmt: skip


def photo_power(problem: Problem, device: torch.device) -> Iterator[str]:
    """The mean power of some classes of a large model on white canvases."""
    n_classes = problem.model(problem.images[:1].to(device)).shape[1]
    classes = range(0, n_classes, n_classes // PHOTO_CLASSES)
    canvases = torch.ones(len(classes), *problem.images.shape[1:], device=device)
    explainer = ClassPattern(problem.model, problem.images, problem.labels)
    powers = [
        predictive_power(problem.model, pattern, problem.held_out, problem.held_out_labels).value
        for canvas, target in zip(canvases.split(1), classes)
        for pattern in explainer.search(canvas, target, budget=PHOTO_BUDGET)
    ]
    yield (
        f"| {problem.name}: {len(powers)} classes, white, {PHOTO_BUDGET:,} passes a class, "
        f"power {min(powers):.3f} to {max(powers):.3f} | | {mean(powers):.3f} | reported | |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--cifar10", type=Path, help="folder with test/ and train/")
    parser.add_argument("--photos", type=Path, help="folder with one subfolder per class")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--equal-seeds", type=int, default=3, help="for the rows at equal passes")
    parser.add_argument("--models", default="", help="only models with this text in their name")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=TABLES)
    options = parser.parse_args(arguments)
    device = options.device
    small = demo_problems() + (cifar10_problems(options.cifar10) if options.cifar10 else [])
    small = [problem.to(device) for problem in small if options.models in problem.name]
    photos = [photo_problem(options.photos).to(device)] if options.photos else []
    print(f"Measured on {machine(device)}.")
    lines: list[Iterator[str]] = []
    if "power" in options.tables:
        lines += [compare(problem, options.seeds, options.equal_seeds, device) for problem in small]
        lines += [iter(["", HEAD])]
        natural = [problem for problem in small if "natural" in problem.name]
        lines += [latency(problem) for problem in natural]
        lines += [saturation(problem) for problem in natural]
    if "strength" in options.tables:
        more = cifar10_problems(options.cifar10, ("robust8",)) if options.cifar10 else []
        more = [problem.to(device) for problem in more if options.models in problem.name]
        lines += [iter(["", HEAD])] + [strength(problem, options.seeds) for problem in small + more]
    if "overhead" in options.tables:
        lines += [iter(["", HEAD])]
        lines += [overhead(p, n) for p in small if "natural" in p.name for n in (1, 10, 40)]
        for photo in photos:
            lines += [overhead(photo, 1), photo_time(photo, device), photo_power(photo, device)]
        lines += [demo_time()] if device.type == "cpu" and not options.models else []
    if "growth" in options.tables and device.type == "cpu":
        lines += [grow(options.cifar10)]  # it measures the memory of the process
    for table in lines:
        for line in table:
            print(line, flush=True)


if __name__ == "__main__":
    main()
