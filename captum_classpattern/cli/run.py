"""A search of many classes in a folder, which can be interrupted and gone on with."""

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from captum_classpattern.adapters import PixelClassifier
from captum_classpattern.attribution import versions
from captum_classpattern.class_names import name_of
from captum_classpattern.classifier import check_classifier, device_and_dtype
from captum_classpattern.cli.printing import console, draw_best, print_tables
from captum_classpattern.images import LabelledImages, predictions
from captum_classpattern.surveys.results import (
    read_finding,
    save_patterns,
    strongest_class,
    write_json,
)
from captum_classpattern.surveys.survey import Finding, survey

BATCH = 64
TOGETHER = 5  # classes on a GPU; on a CPU one fills it, and is finished sooner
PROOF = (
    "A strong pattern is no proof of a backdoor: clean classes can have one. Compare with a clean "
    "model of the same kind, and look at the pattern.\n"
)


@dataclass
class Run:
    """A search of many classes in a folder, which holds all that is finished at any moment."""

    model: PixelClassifier
    images: LabelledImages
    held_out: LabelledImages
    classes: list[int]
    canvases: dict[str, int]
    areas: tuple[float, ...]
    n_steps: int | None
    seed: int
    precision: str
    internal_batch_size: int | None
    out: Path
    findings: list[Finding] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Takes over what an earlier run has finished, if there was one."""
        path = self.out / "results.json"
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            return
        try:
            earlier = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): pass another --out") from error
        if "settings" not in earlier:
            raise ValueError(f"{path} is not of classpattern search: pass another --out")
        self._check_settings({"precision": "auto", **earlier["settings"]}, path)
        counted = Counter(row["class"] for row in earlier["rows"])
        whole = [row for row in earlier["rows"] if counted[row["class"]] == len(self.canvases)]
        self.findings = [read_finding(row, self.out / "patterns") for row in whole]

    def _check_settings(self, earlier: dict[str, Any], path: Path) -> None:
        """Raises an error unless the finished part was searched with the same settings."""
        ours = json.loads(json.dumps(self.settings))
        differing = [key for key in ours if earlier.get(key) != ours[key]]
        if differing == ["captum_classpattern"]:
            print(
                f"Note: what is finished was searched by version {earlier.get(differing[0])} of "
                "captum_classpattern.",
                file=sys.stderr,
            )
        elif differing:
            listed = "; ".join(f"{k} {earlier.get(k)} then, {ours[k]} now" for k in differing)
            raise ValueError(
                f"{path} is of another search ({listed:.500}): pass the same settings and files, "
                "or another --out"
            )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that the result of a class depends on."""
        told = self.model.provenance
        normalisation = told["normalisation"]
        return {
            "model": told.get("sha256", told["source"]),
            "arch": told.get("arch"),
            "weights": told.get("weights"),
            "num_classes": told.get("num_classes"),
            "mean": normalisation["mean"],
            "std": normalisation["std"],
            "output": self.model.output,
            "search_images": _fingerprint(self.images),
            "held_out_images": _fingerprint(self.held_out),
            "canvases": self.canvases,
            "areas": self.areas,
            "n_steps": self.n_steps,
            "seed": self.seed,
            "precision": self.precision,
            "captum_classpattern": versions()["captum_classpattern"],
        }

    @property
    def _device(self) -> torch.device:
        return device_and_dtype(self.model, self.images.images)[0]

    def describe(self) -> None:
        """Says what was loaded, and how well the model knows the held-out images."""
        told = self.model.provenance
        print(
            f"{told['source']}: {told['format']}, {told.get('arch') or 'the network in it'}; "
            f"normalised by {told['normalisation']['from']}.\n"
            f"{len(self.images)} images to search with, {len(self.held_out)} held out"
            f" ({self.held_out.duplicates_dropped} copies dropped)."
        )
        if self.accuracy is not None:
            print(f"The model classifies {self.accuracy:.1%} of the held-out images correctly.")
        if self.findings:
            done = sorted({finding.target for finding in self.findings})
            named = (name_of(self.model, target) or str(target) for target in done)
            print(f"Finished already: {', '.join(named)}.")

    @cached_property
    def accuracy(self) -> float | None:
        """Share of the held-out images that the model classifies correctly."""
        if self.held_out.labels is None:
            return None
        said = predictions(self.model, self.held_out)
        return float((said == self.held_out.labels).float().mean())

    def go(self) -> None:
        """Searches what is not finished; whatever happens, what is finished stays."""
        done = {finding.target for finding in self.findings}
        left = [target for target in self.classes if target not in done]
        try:
            self._search(left)
        except KeyboardInterrupt:
            self._write(complete=False)
            print(f"\nInterrupted: --resume goes on in {self.out}.", file=sys.stderr)
            raise SystemExit(130) from None
        self._write(complete=True)
        names = self.model.class_names
        draw_best(
            self.model,
            self.findings,
            self.held_out,
            self.out / "patterns.png",
            "The better canvas of each class",
            self.seed,
            names,
        )
        print_tables({self.model.provenance["source"]: self.findings}, names)
        for kind in self.canvases:
            for area in self.areas:
                text = strongest_class(self.findings, kind, area, names, n_classes=self._n_classes)
                console().print(text, markup=False)  # names may hold brackets
        console().print(PROOF)
        print(f"patterns.png, patterns/ and results.json are in {self.out}.")

    def _search(self, left: Sequence[int]) -> None:
        total = len(self.findings) + len(left) * len(self.canvases)
        with tqdm(total=total, initial=len(self.findings), desc="patterns", unit="pattern") as bar:
            for finding in (
                survey(
                    self.model,
                    self.images,
                    self.held_out,
                    classes=left,
                    canvases=self.canvases,
                    areas=self.areas,
                    n_steps=self.n_steps,
                    seed=self.seed,
                    precision=self.precision,
                    internal_batch_size=self.internal_batch_size,
                    classes_together=1 if self._device.type == "cpu" else TOGETHER,
                    show_progress=sys.stderr.isatty(),
                )
                if left
                else ()
            ):
                save_patterns(finding, self.out / "patterns")
                self.findings.append(finding)
                self._write(complete=False)
                bar.update()

    def _write(self, *, complete: bool) -> None:
        names = self.model.class_names
        write_json(
            {
                "complete": complete,
                "seconds": round(time.perf_counter() - self.started, 1),
                "settings": self.settings,
                "provenance": self.model.provenance,
                "accuracy": self.accuracy,
                "search_images": self.images.counts,
                "held_out_images": self.held_out.counts,
                "versions": versions(),
                "rows": [
                    {"class_name": names[f.target] if names else None, **f.as_dict()}
                    for f in self.findings
                ],
            },
            self.out / "results.json",
        )

    @cached_property
    def _n_classes(self) -> int:
        """Number of classes that the model has, searched or not."""
        sample = self.images.images[:1].to(self._device)
        return check_classifier(self.model, sample, [])


def _fingerprint(images: LabelledImages) -> str:
    """A hash of images and labels."""
    digest = hashlib.blake2b(repr(tuple(images.images.shape)).encode(), digest_size=16)
    for batch in torch.split(images.images, BATCH):
        digest.update((batch * 255).round().byte().numpy().tobytes())
    if images.labels is not None:
        digest.update(images.labels.numpy().tobytes())
    return digest.hexdigest()
