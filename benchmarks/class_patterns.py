"""Class patterns of many models under one protocol, and the paper's claims: one row per model.

    python benchmarks/class_patterns.py measure --fashion FASHION --data CIFAR10 --out FOLDER
    python benchmarks/class_patterns.py transfer --fashion FASHION --data CIFAR10 --out FOLDER
    python benchmarks/class_patterns.py tables benchmarks/results
    python benchmarks/class_patterns.py figure benchmarks/results --data CIFAR10 --figure claims.png

FASHION is a folder with the four ``*-ubyte.gz`` files of Fashion-MNIST, CIFAR10 one with
``train/<class>/*`` and ``test/<class>/*`` images. ``measure`` trains each model of
``claims/models.py`` whose weights are not in FOLDER, searches the patterns of all classes on the
canvases that all models of a data set share, scores them, and adds a row to
``class_patterns.jsonl``. It takes all models of the given data sets, or those of ``--names``.
Several processes can share a folder: a model that one of them works on is skipped by the others. An
interrupted run continues after its last epoch or its last class. ``transfer`` tests the natural
networks' patterns on all other networks of their data set, one row of
``class_patterns_transfer.jsonl`` per pair. ``tables`` prints all tables and the verdicts, whose
rule is in ``claims/pooled.py``; ``figure`` draws some patterns. What is done on CIFAR-10, and how
it is pooled, is frozen in ``claims/PROTOCOL.md``.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from claims import statements
from claims.figure import DPI, draw
from claims.images import Canvases, Images, images_of, shared_canvases
from claims.learnt import learnt
from claims.measure import Study
from claims.models import CIFAR10, FASHION, Entry, entries
from claims.rows import FILE, TRANSFER, add_rows, check_shared
from claims.tables import tables
from claims.training import classifier_of
from claims.transfer import missing, pairs, tested_models
from filelock import FileLock, Timeout
from findings import parser_of, print_tables, read_rows

Folders = Mapping[str, Path | None]  # of images, by data set


@cache
def shared(data: str, folder: Path | None, out: Path) -> tuple[Images, Canvases]:
    """The images and canvases of all models of a data set."""
    images = images_of(data, folder)
    return images, shared_canvases(out / f"canvases_{data}.json", data, images)


def draw_figure(folder: Path, data: Path, file: Path) -> None:
    """Draws patterns of the rows of a folder, with its canvases."""
    rows = {row["model"]: row for row in read_rows(folder / FILE)}
    draw(rows, shared(CIFAR10, data, folder)[1]).savefig(file, dpi=DPI)


def each_alone(chosen: Sequence[Entry], out: Path, work: Callable[[Entry], None]) -> None:
    """Works on each model, except those that another process works on."""
    out.mkdir(parents=True, exist_ok=True)
    for entry in chosen:
        try:
            with FileLock(out / f".{entry.name}.lock", timeout=0):
                work(entry)
        except Timeout:
            print(f"{entry.name}: skipped, since another process works on it", flush=True)


def measure(entry: Entry, folders: Folders, out: Path) -> None:
    """Adds a model's row, if the file lacks it."""
    rows = read_rows(out / FILE)
    if any(row["model"] == entry.name for row in rows):
        print(f"{entry.name}: measured already", flush=True)
        return
    data = folders[entry.data]
    images, canvases = shared(entry.data, data, out)
    classifier = classifier_of(entry, data, out)
    reached = learnt(entry, classifier, images, data)
    study = Study(entry, classifier, images, canvases, reached)
    check_shared({"model": entry.name, "data": entry.data, **study.depends_on}, rows)
    row = study.row(out / f"{entry.name}.json")
    check_shared(row, read_rows(out / FILE))  # other processes may have added some
    add_rows(out / FILE, [row])


def stamp_on(entry: Entry, folders: Folders, out: Path) -> None:
    """Adds the pairs with this model as the tested one that the file lacks, if it is measured."""
    rows = read_rows(out / FILE)
    wanted, data = missing(read_rows(out / TRANSFER), rows, entry), folders[entry.data]
    if wanted and any(row["model"] == entry.name for row in rows):
        print(f"{len(wanted)} natural networks on {entry.name}", flush=True)
        classifier = classifier_of(entry, data, out)
        found = pairs(wanted, entry, classifier, *shared(entry.data, data, out))
        add_rows(out / TRANSFER, list(found))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    known = {entry.name: entry for entry in entries()}
    for name in ("measure", "transfer"):
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, help="folder with CIFAR-10's train/ and test/")
        command.add_argument("--fashion", type=Path, help="folder with Fashion-MNIST's files")
        command.add_argument("--out", type=Path, default=Path("classpattern-claims"))
        command.add_argument("--names", nargs="+", choices=known, help="only these models")
    commands.add_parser("tables").add_argument("rows", type=Path, help="their folder")
    figure = commands.add_parser("figure")
    figure.add_argument("rows", type=Path, help="their folder")
    figure.add_argument("--data", type=Path, required=True, help="folder of CIFAR-10's images")
    figure.add_argument("--figure", type=Path, required=True)
    given = parser.parse_args(arguments)
    if given.command == "figure":
        return draw_figure(given.rows, given.data, given.figure)
    if given.command == "tables":
        print_tables(statements.tables(given.rows))
        print_tables(table for data in (FASHION, CIFAR10) for table in tables(given.rows, data))
        return
    folders = {CIFAR10: given.data, FASHION: given.fashion}
    names = given.names or [name for name, entry in known.items() if folders[entry.data]]
    if not names:
        parser.error("give --fashion, --data or both, the folders of images; or --names")
    chosen = [known[name] for name in names]
    if given.command == "transfer":
        tested = tested_models(chosen)
        each_alone(tested, given.out, partial(stamp_on, folders=folders, out=given.out))
    else:
        each_alone(chosen, given.out, partial(measure, folders=folders, out=given.out))


if __name__ == "__main__":
    main()
