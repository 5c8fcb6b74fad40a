"""The folders of surveys and sweeps. Each class of a model is one file, which appears whole or not
at all, so that a search can continue, and many processes can write into one folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from captum_classpattern._files import write_json
from captum_classpattern._validation import Notice, is_whole
from captum_classpattern.adapters.load import check_folders
from captum_classpattern.classifier import warn
from captum_classpattern.classifier.class_names import as_file_name, file_safe
from captum_classpattern.pattern import Pattern
from captum_classpattern.scores.power import Scores
from captum_classpattern.surveys.findings import Finding
from captum_classpattern.surveys.sources import FAILED, LOADING, ModelSource

RESULTS = "results.json"
SWEEP_FORMAT = "captum_classpattern sweep"
VERSION = "captum_classpattern"  # the one setting that may differ on resume


class Store:
    """The findings in a folder, by class (``found``).

    ``findings/<class>.json`` holds the scores of a class, ``patterns/`` its patterns, and
    ``results.json`` a summary of all. What is in the folder must have been found with the same
    ``settings``, unless these are None.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.settings = None if settings is None else json.loads(json.dumps(settings))
        self.found: dict[int, list[Finding]] = {}
        self._files: set[Path] = set()  # those that were read, or written here
        summary = folder / RESULTS
        self.summary = self._read(summary) if summary.exists() else {}
        self.read_new()

    def read_new(self) -> bool:
        """Reads the classes that were added since the last call; False if there are none."""
        new = set(self.folder.glob("findings/*.json")) - self._files
        for path in new:
            self._read(path)
        self._files |= new
        return bool(new)

    def findings(self) -> list[Finding]:
        """All findings in the folder, class by class, on each kind of canvas."""
        return [finding for target in sorted(self.found) for finding in self.found[target]]

    def add(self, findings: Sequence[Finding]) -> None:
        """Writes all findings of one class."""
        folder, target = self.folder / "patterns", findings[0].target
        folder.mkdir(parents=True, exist_ok=True)
        for finding in findings:
            save_patterns(finding, folder)
        rows = [finding.as_dict() for finding in findings]
        path = self.folder / "findings" / f"{target}.json"
        path.parent.mkdir(exist_ok=True)
        write_json({"settings": self.settings, "rows": rows}, path)
        self.found[target] = [read_finding(row, folder) for row in rows]
        self._files.add(path)

    def write_summary(self, info: Mapping[str, Any]) -> None:
        """Writes results.json, with the classes that other processes search or have added. It is
        complete when all of these are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.read_new()
        path, classes = self.folder / RESULTS, set(info["classes"])
        while True:
            if path.exists():
                classes.update(json.loads(path.read_text()).get("classes", ()))
            summary = {"complete": classes <= self.found.keys(), **info, "classes": sorted(classes)}
            write_json({**summary, "rows": [each.as_dict() for each in self.findings()]}, path)
            if not self.read_new():  # else the summary of another process may be lost
                return

    def _read(self, path: Path) -> dict[str, Any]:
        """Reads a file, and takes over the classes in it of which all kinds of canvas are there."""
        data = read_manifest(path, "survey")
        if self.settings is not None:
            check_same(data["settings"], self.settings, path, "search")
        by_class: dict[int, list[Finding]] = {}
        try:
            for row in data["rows"]:
                finding = read_finding(row, self.folder / "patterns")
                by_class.setdefault(finding.target, []).append(finding)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}): remove it and search its "
                "classes again, or choose another folder"
            ) from error
        for target, findings in by_class.items():
            if len(findings) == len(data["settings"].get("canvases", findings)):
                self.found[target] = findings
        return data


def read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """The file that describes a survey or a sweep."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): choose another folder") from error
    known = data if isinstance(data, dict) else {}
    is_sweep = known.get("format") == SWEEP_FORMAT
    if not (is_sweep if kind == "sweep" else "settings" in known):
        raise ValueError(f"{path} is not from a {kind}: choose another folder")
    return known


def check_same(found: Mapping[str, Any], ours: Mapping[str, Any], path: Path, kind: str) -> None:
    """Raises an error unless a file was made with our settings. Another version is a notice."""
    differing = [key for key in {**ours, **found} if found.get(key) != ours.get(key)]
    if differing == [VERSION]:
        version = found.get(VERSION)
        warn(f"classes in the folder were searched by version {version} of {VERSION}", Notice)
    elif differing:
        listed = "; ".join(f"{k} {found.get(k)} then, {ours.get(k)} now" for k in differing)
        raise ValueError(
            f"{path} is of another {kind} ({listed:.500}): pass the same settings and files, or "
            "choose another folder"
        )


def remove_findings(folder: Path) -> None:
    """Removes the summary and the scores of a survey, so that the folder can hold another."""
    for path in (folder / RESULTS, *folder.glob("findings/*.json")):
        path.unlink(missing_ok=True)


def pattern_file(
    folder: Path, target: int, canvas: str, area: float, name: str | None = None
) -> Path:
    r"""
    The file of a pattern: ``<class>_<name>_<kind of canvas>_<area>.safetensors``.

    Examples::

        >>> pattern_file(Path("patterns"), 1, "white", 0.05, "guinea pig, Cavia cobaya").name
        '1_guinea_pig_white_0.05.safetensors'
    """
    label = f"{target}" if name is None else f"{target}_{as_file_name(name)}"
    return folder / f"{label}_{canvas}_{area:g}.safetensors"


def find_pattern_file(
    folder: Path, target: int, canvas: str, area: float, name: str | None = None
) -> Path:
    """The file of a pattern: by its class's name, or else with any name, or with none."""
    exact = pattern_file(folder, target, canvas, area, name)
    if exact.exists():
        return exact
    named = sorted(folder.glob(f"{target}_*_{canvas}_{area:g}.safetensors"))
    return named[0] if named else pattern_file(folder, target, canvas, area)


def save_patterns(finding: Finding, folder: Path) -> None:
    """Writes a finding's patterns, one file for each area, and once the hashes of the search images
    that they share."""
    for area, pattern in finding.patterns.items():
        name = pattern.info.get("class_name")
        path = pattern_file(folder, finding.target, finding.canvas, area, name)
        pattern.save(path, seen_beside=True)


def read_finding(row: Mapping[str, Any], folder: Path) -> Finding:
    """The finding of a row, or an error of some kind. Its patterns are read from the folder when
    they are used."""
    target, canvas = row["class"], row["canvas"]  # which become parts of the names of files
    if not is_whole(target) or not isinstance(canvas, str) or not row["areas"]:
        raise ValueError(f"it has a class {target!r} with the canvas {canvas!r}")
    scores = {float(area): Scores.from_dict(values) for area, values in row["areas"].items()}
    for area, values in row["areas"].items():
        if not 0 < float(area) < 1 or "search_power" not in values:
            raise ValueError(f"it has an area {area!r} without its search power")
    return Finding(
        SavedPatterns(row, folder, [*scores]), canvas, scores, row["class_name"], row=row
    )


class SavedPatterns(Mapping[float, Pattern]):
    """The patterns of a row by area, each read from its file when it is first used."""

    def __init__(self, row: Mapping[str, Any], folder: Path, areas: Sequence[float]) -> None:
        self._place = folder.absolute(), row["class"], row["canvas"], row["class_name"]
        self._patterns: dict[float, Pattern | None] = dict.fromkeys(areas)

    def __getitem__(self, area: float) -> Pattern:
        pattern = self._patterns[area]
        if pattern is None:
            folder, target, canvas, name = self._place
            pattern = Pattern.load(find_pattern_file(folder, target, canvas, area, name))
            self._patterns[area] = pattern
        return pattern

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy for another process or file has the patterns themselves."""
        return dict, (dict(self),)

    def __iter__(self) -> Iterator[float]:
        return iter(self._patterns)

    def __len__(self) -> int:
        return len(self._patterns)


IDENTITY = ("folder", "path", "hash", *LOADING)  # of a model: its other columns may change


def findings_file(folder: Path, model_folder: str, target: int) -> Path:
    """The file of a finished unit."""
    return folder / model_folder / "findings" / f"{target}.json"


class SweepFolder:
    """``sweep.json``, whose contents are ``data`` ({} without it), a survey's folder for each
    model, and ``failed/``."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path / "sweep.json"
        self.data = self._read()

    def _read(self) -> dict[str, Any]:
        """The file, which may be damaged, or come from a stranger: its folders become parts of
        paths."""
        if not self.file.exists():
            return {}
        data = read_manifest(self.file, "sweep")
        rows, taken = data.get("models"), set[str]()
        if not isinstance(rows, list) or not {"settings", "classes"} <= data.keys():
            raise ValueError(f"{self.file} must hold settings, classes and a list of models")
        for row in rows:
            texts = (row.get("name"), row.get("folder")) if isinstance(row, dict) else (None,)
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(
                    f"each model in {self.file} needs a name and a folder, got {row!r:.200}"
                )
            folder = row["folder"]
            if folder != file_safe(folder) or folder.startswith(".") or not folder:
                raise ValueError(
                    f"{self.file} names the folder {folder!r:.200}, which is not the name of a "
                    "folder next to it"
                )
            if folder.casefold() in taken:  # some file systems ignore upper and lower case
                raise ValueError(f"{self.file} names the folder {folder!r} twice")
            taken.add(folder.casefold())
        return data

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuses other sweeps while the block runs. The operating system lifts the lock when the
        process ends, however it ends."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"another sweep is writing into {self.path}: wait until it is finished, stop it, "
                "or choose another folder"
            ) from None
        try:
            self.data = self._read()  # what the last sweep left
            yield
        finally:
            lock.release()

    def begin(
        self, settings: Mapping[str, Any], sources: Sequence[ModelSource], classes: Sequence[int]
    ) -> None:
        """Writes sweep.json. Models and classes are added to those that are there; settings and
        models of the same name must be the same."""
        settings = json.loads(json.dumps(settings))
        if self.data:
            check_same(self.data["settings"], settings, self.file, "sweep")
        elif (self.path / RESULTS).exists():
            raise ValueError(f"{self.path} holds a survey of one model: choose another folder")
        known = {row["name"]: row for row in self.data.get("models", ())}
        check_folders([*{**known, **{source.name: source for source in sources}}])
        for source in sources:
            row = json.loads(json.dumps(source.as_dict()))
            before = known.get(source.name, row)
            for key in IDENTITY:
                if before.get(key) != row.get(key):
                    raise ValueError(
                        f"{self.path} holds another model {source.name!r} ({key} "
                        f"{before.get(key)!r} then, {row.get(key)!r} now): give this one another "
                        "name, or choose another folder"
                    )
            known[source.name] = row
        self.data = {
            "format": SWEEP_FORMAT,
            "settings": settings,
            "classes": sorted({*self.data.get("classes", ()), *classes}),
            "models": [*known.values()],
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.data, self.file)

    def finished(self, model_folder: str) -> set[int]:
        """The classes of a model whose units are finished."""
        files = findings_file(self.path, model_folder, 0).parent.glob("[0-9]*.json")
        return {int(file.stem) for file in files if file.stem.isdigit()}

    def fail(self, source: ModelSource, target: int, reason: str) -> None:
        """Keeps why a unit failed. The next sweep tries it again."""
        file = self._failed_file(source, target)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json({"model": source.name, "class": target, "error": reason}, file)

    def succeed(self, source: ModelSource, target: int) -> None:
        """Forgets that a unit failed before."""
        self._failed_file(source, target).unlink(missing_ok=True)

    def _failed_file(self, source: ModelSource, target: int) -> Path:
        return self.path / FAILED / f"{source.folder}_{target}.json"

    def failures(self) -> list[dict[str, Any]]:
        """The units that failed, and why, by model and class."""
        found = {row["name"]: self.finished(row["folder"]) for row in self.data["models"]}
        rows = []
        for file in (self.path / FAILED).glob("*.json"):
            with suppress(FileNotFoundError):  # a running sweep has found it now
                row = json.loads(file.read_text(encoding="utf-8"))
                if row["class"] not in found.get(row["model"], {row["class"]}):
                    rows.append(row)
        order = [*found]
        return sorted(rows, key=lambda row: (order.index(row["model"]), row["class"]))

    def summarise(self, source: ModelSource, seconds: float) -> None:
        """Writes a model's results.json again, if a unit of it has begun one. ``seconds`` are added
        to those of earlier sweeps."""
        store = Store(self.path / source.folder)
        if store.summary:
            info = {k: v for k, v in store.summary.items() if k not in ("complete", "rows")}
            store.settings = info["settings"]
            info["seconds"] = round(info.get("seconds", 0.0) + seconds, 1)
            store.write_summary(info)

    def summary_is_old(self, source: ModelSource) -> bool:
        """Whether a model has findings that its results.json may lack."""
        results = self.path / source.folder / RESULTS
        findings = self.path / source.folder / "findings"
        if not results.exists() or not findings.exists():
            return False
        return results.stat().st_mtime_ns <= findings.stat().st_mtime_ns
