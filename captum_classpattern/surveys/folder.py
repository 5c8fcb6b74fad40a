"""The folder in which a survey, a sweep or a scan keeps what is finished. Each file appears whole
or not at all, so that a search can continue, and many processes can write into one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from captum_classpattern._support import files
from captum_classpattern._support.validation import Notice
from captum_classpattern.classifier import difference, warn
from captum_classpattern.surveys.finding_file import pack_findings, read_findings
from captum_classpattern.surveys.findings import Finding

RESULTS = "results.json"
FINDING = "findings/{}.safetensors"  # of a class
REMEDY = "remove it, or choose another folder"
OUR_VERSION = "captum_classpattern"  # the setting that has it
MODEL = "model"  # the setting that says which model it is
OF_0_4 = {"predictions", "outputs", "threads"}  # settings of its folders


@dataclass
class Folder:
    """Files of JSON, each with the ``settings`` that it depends on. Those that are read must have
    been written with the same settings, unless these are None.

    Args:
        path (Path): The folder. It is made when the first file is written.
        settings (Mapping, optional): All that the files depend on. Default: None (any).
        kind (str): What error messages call the search. Default: "search".
        any_version (bool): Whether another version of the package is a notice, not an error.
            Default: True.
        format (str, optional): What each file says, if others could be taken for it. Default: None.
    """

    path: Path
    settings: Mapping[str, Any] | None = None
    kind: str = "search"
    any_version: bool = True
    format: str | None = None

    def read(self, name: str) -> dict[str, Any]:
        """What a file holds; nothing if there is none."""
        path = self.path / name
        if not path.is_file():
            return {}
        with files.reading(path, f"is not from a {self.kind}", REMEDY):
            data = files.parse_json(files.read_text(path))
        values = data if isinstance(data, dict) else {}
        settings = values.get("settings", ())
        if not isinstance(settings, dict | None) or values.get("format") != self.format:
            raise ValueError(f"{path} is not from a {self.kind}: choose another folder")
        self.check_same(settings or {}, path)
        return values

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Writes a file, in place of one that is there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        format = {"format": self.format} if self.format else {}
        files.write_json({**format, "settings": self.settings, **data}, path)

    def check_same(self, theirs: Mapping[str, Any], path: Path) -> None:
        """Raises an error unless a file has our settings, if we have any."""
        if self.settings is None:
            return
        ours = files.parse_json(files.to_json(self.settings))
        models = theirs.get(MODEL), ours.get(MODEL)
        if OF_0_4 & theirs.keys():
            raise ValueError(
                f"{path} is of version {theirs.get(OUR_VERSION)}, which did not write down what "
                "tells one model from another: choose another folder"
            )
        both = {key: (theirs.get(key), ours.get(key)) for key in {**ours, **theirs}}
        differing = {k: pair for k, pair in both.items() if k != MODEL and pair[0] != pair[1]}
        if differing.keys() - ({OUR_VERSION} if self.any_version else set()):
            listed = "; ".join(f"{k} {a} then, {b} now" for k, (a, b) in differing.items())
            raise ValueError(
                f"{path} is of another {self.kind} ({listed:.500}): pass the same settings and "
                "files, or choose another folder"
            )
        with files.reading(path, f"is not from a {self.kind}", REMEDY):
            other = difference(*models) if MODEL in ours else ""
        if other:
            raise ValueError(
                f"{path} is of another model ({other} differ): pass the same model, with the same "
                "settings of its own, or choose another folder"
            )
        if differing:
            version = theirs.get(OUR_VERSION)
            warn(f"what the folder holds was found by version {version} of {OUR_VERSION}", Notice)


@dataclass
class SurveyFolder(Folder):
    """The findings in a survey's folder.

    ``findings/<class>.safetensors`` holds all that was found for a class, and ``results.json`` a
    summary of all.
    """

    _by_class: dict[int, list[Finding]] = field(default_factory=dict, init=False)

    def contents(self) -> tuple[dict[str, Any], list[Finding]]:
        """The summary, if there is one, and all findings, class by class, on each kind of canvas;
        an error if any file has other settings."""
        if any(self.path.glob("findings/*.json")):
            raise ValueError(
                f"{self.path} was written by version 0.4 or earlier, which kept findings in other "
                "files: choose another folder, or read it with that version"
            )
        summary = self.summary()
        self._read_new()
        return summary, self._all()

    def _all(self) -> list[Finding]:
        return [finding for target in sorted(self._by_class) for finding in self._by_class[target]]

    def add(self, findings: Sequence[Finding]) -> None:
        """Writes all findings of one class."""
        target = findings[0].target
        path = self.path / FINDING.format(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, pack_findings(findings, self.settings))
        self._by_class[target] = self._read_class(path)

    def write_summary(self, info: Mapping[str, Any]) -> None:
        """Writes results.json, with the classes that other processes search or have added. It is
        complete when all of these are there."""
        classes = set(info["classes"])
        while True:
            classes.update(self.summary().get("classes", ()))
            rows = [finding.as_dict() for finding in self._all()]
            complete = classes <= self._by_class.keys()
            summary = {**info, "complete": complete, "classes": sorted(classes), "rows": rows}
            self.write(RESULTS, summary)
            if not self._read_new():  # else the summary of another process may be lost
                return

    def summary(self) -> dict[str, Any]:
        """What results.json holds, or nothing."""
        values = self.read(RESULTS)
        with files.reading(self.path / RESULTS, "is not from a survey", REMEDY):
            files.check_kinds(values, n_classes=int, provenance=dict, accuracy=Real)
            if "classes" in values:
                values["classes"] = [*map(int, values["classes"])]
        return values

    def _read_new(self) -> bool:
        """Reads the classes that were added since the last call; False if there are none."""
        known = {self.path / FINDING.format(target) for target in self._by_class}
        new = {*self.path.glob(FINDING.format("*"))} - known
        for path in new:
            findings = self._read_class(path)
            self._by_class[findings[0].target] = findings
        return bool(new)

    def _read_class(self, path: Path) -> list[Finding]:
        """The findings of a class; an error if they have other settings."""
        settings, findings = read_findings(path)
        self.check_same(settings, path)
        return findings
