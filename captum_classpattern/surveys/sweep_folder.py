"""The folder of a sweep: which units are finished, which failed, and the lock that lets only one
sweep write."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from captum_classpattern._files import write_json
from captum_classpattern.classifier.class_names import file_safe
from captum_classpattern.surveys.sources import FAILED, LOADING, ModelSource
from captum_classpattern.surveys.store import (
    RESULTS,
    SWEEP_FORMAT,
    Store,
    check_same,
    read_manifest,
)

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
        data = read_manifest(self.file, "sweep") if self.file.exists() else {}
        if data:
            self._check(data)
        return data

    def _check(self, data: Mapping[str, Any]) -> None:
        """The file may be damaged, or come from a stranger; its folders become parts of paths."""
        rows, taken = data.get("models"), set[str]()
        if not isinstance(rows, list) or not {"settings", "classes"} <= data.keys():
            raise ValueError(f"{self.file} must hold settings, classes and a list of models")
        for row in rows:
            named = isinstance(row, dict) and all(
                isinstance(row.get(key), str) for key in ("name", "folder")
            )
            if not named:
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
        folders = {row["folder"].casefold(): name for name, row in known.items()}
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
            other = folders.setdefault(source.folder.casefold(), source.name)
            if other != source.name:
                raise ValueError(
                    f"{self.path} holds a model {other!r}, and {source.name!r} would be written to "
                    "the same folder: give it another name"
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

    def finished(self, source: ModelSource) -> set[int]:
        """The classes of a model whose units are finished."""
        files = (self.path / source.folder / "findings").glob("[0-9]*.json")
        return {int(file.stem) for file in files if file.stem.isdigit()}

    def fail(self, source: ModelSource, target: int, reason: str) -> None:
        """Keeps why a unit failed. The next sweep tries it again."""
        file = self._failed_file(source, target)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json({"model": source.name, "class": target, "error": reason}, file)

    def succeed(self, source: ModelSource, target: int) -> None:
        """Forgets that a unit failed before."""
        self._failed_file(source, target).unlink(missing_ok=True)

    def failures(self) -> list[dict[str, Any]]:
        """The units that failed, and why, by model and class."""
        known = {row["name"]: row["folder"] for row in self.data["models"]}
        order = {name: number for number, name in enumerate(known)}
        rows = []
        for file in (self.path / FAILED).glob("*.json"):
            try:
                row = json.loads(file.read_text(encoding="utf-8"))
            except FileNotFoundError:  # a running sweep has found it now
                continue
            if row["model"] in known and not self.has_found(known[row["model"]], row["class"]):
                rows.append(row)
        return sorted(rows, key=lambda row: (order[row["model"]], row["class"]))

    def has_found(self, model_folder: str, target: int) -> bool:
        """Whether a unit is finished."""
        return findings_file(self.path, model_folder, target).exists()

    def _failed_file(self, source: ModelSource, target: int) -> Path:
        return self.path / FAILED / f"{source.folder}_{target}.json"

    def summary_is_old(self, source: ModelSource) -> bool:
        """Whether a model has findings that its results.json may lack."""
        results = self.path / source.folder / RESULTS
        findings = self.path / source.folder / "findings"
        if not results.exists() or not findings.exists():
            return False
        return results.stat().st_mtime_ns <= findings.stat().st_mtime_ns

    def summarise(self, source: ModelSource, seconds: float) -> None:
        """Writes a model's results.json again, if a unit of it has begun one. ``seconds`` are added
        to those of earlier sweeps."""
        store = Store(self.path / source.folder)
        if store.summary:
            info = {k: v for k, v in store.summary.items() if k not in ("complete", "rows")}
            store.settings = info["settings"]
            info["seconds"] = round(info.get("seconds", 0.0) + seconds, 1)
            store.write_summary(info)
