"""What to report from a GPU: masks beside the CPU's, times, waits and memory, as Markdown tables.

It needs no images, and takes about five minutes on a GPU. On a CPU, with few classes and rounds, it
only shows that it works. The ResNet-50 has random weights: it is there for its time and memory.
"""

import platform
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from findings import parser_of
from torch import Tensor
from torchvision.models import resnet50

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    PixelClassifier,
    demo_images,
    demo_models,
    select_canvases,
)
from captum_classpattern.attribution import versions
from captum_classpattern.scores.power import Scorer

COMPARED = 5  # classes whose masks are compared with the CPU's
SAME_BATCHES = 32  # images in one call, on both devices
SCORED = 5  # patterns


def demo() -> tuple[PixelClassifier, LabelledImages, LabelledImages]:
    images = demo_images()
    return demo_models()["natural"], images.search, images.held_out


def photos() -> tuple[PixelClassifier, LabelledImages, LabelledImages]:
    torch.manual_seed(0)
    model = PixelClassifier(resnet50(num_classes=10).eval(), mean=0.45, std=0.23)
    noise, labels = torch.rand(300, 3, 224, 224), torch.arange(300) % 10
    return model, LabelledImages(noise[:200], labels[:200]), LabelledImages(noise[200:])


NETWORKS = {"demo": demo, "resnet50": photos}


class Searches:
    """Searches of a network's classes on a device, one canvas for each."""

    def __init__(self, network: str, device: str, rounds: int | None) -> None:
        model, self.images, self.held_out = NETWORKS[network]()
        self.model, self.device, self.rounds = model.to(device), device, rounds
        self.explainer = ClassPattern(self.model, self.images, check_accuracy=False)

    def run(self, classes: int, **options: Any) -> list[Pattern]:
        """The patterns of so many classes, beginning again where there are no more."""
        targets = [number % 10 for number in range(classes)]
        places = [number * 7 % len(self.images) for number in range(classes)]
        canvases = self.images.take(places).to(self.device)
        patterns = self.explainer.search(canvases, targets, **{"n_steps": self.rounds, **options})
        float(patterns[0].mask.sum())  # waits for the device
        return patterns


def describe(device: torch.device) -> dict[str, Any]:
    """The device, and the versions."""
    name = platform.processor() or platform.machine()
    facts: dict[str, Any] = {"device": name, "system": platform.platform(), **versions()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        capability = f"{card.major}.{card.minor}"
        facts["device"] = f"{card.name}, {card.total_memory >> 20:,} MiB, {capability}"
        facts["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
        facts["cards"] = torch.cuda.device_count()
    return facts


def compare_masks(device: str, rounds: int | None, precision: str) -> dict[str, Any]:
    """How many pixels of the demo's patterns differ from the CPU's."""
    how = {"precision": precision, "internal_batch_size": SAME_BATCHES}
    found = [Searches("demo", each, rounds).run(COMPARED, **how) for each in ("cpu", device)]
    pairs = [(here.topk(0.05).mask, there.topk(0.05).mask.cpu()) for here, there in zip(*found)]
    powers = [[each.info["search_power"] for each in patterns] for patterns in found]
    return {
        "precision": f"{precision}: {' and '.join(each[0].info['precision'] for each in found)}",
        "pixels": int(sum(here.sum() for here, _ in pairs)),
        "that differ": int(sum(((here > 0) & (there == 0)).sum() for here, there in pairs)),
        "power on the CPU": f"{sum(powers[0]) / COMPARED:.1%}",
        "on the device": f"{sum(powers[1]) / COMPARED:.1%}",
    }


def time_searches(network: str, device: str, rounds: int | None, classes: int) -> dict[str, Any]:
    """The time of a search of so many classes together, and its peak of memory."""
    searches, on_cuda = Searches(network, device, rounds), device.startswith("cuda")
    searches.run(classes, n_steps=1)  # so that libraries are loaded, and memory is taken
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    patterns = searches.run(classes)
    seconds = time.perf_counter() - started
    peak = f"{torch.cuda.max_memory_allocated(device) >> 20:,}" if on_cuda else "-"
    return {
        **{"network": network, "classes": classes, "seconds": f"{seconds:.2f}"},
        "a class": f"{seconds / classes:.3f}",
        "passes a second": f"{patterns[0].info['passes_together'] / seconds:,.0f}",
        "precision": patterns[0].info["precision"],
        "peak MiB": peak,
    }


def time_scoring(network: str, device: str) -> dict[str, Any]:
    """The time of scoring patterns on held-out images."""
    searches = Searches(network, device, 1)
    scorer = Scorer(searches.model, searches.held_out.to(torch.device(device), torch.float32))
    [pattern] = searches.run(1)
    scorer.power(pattern)
    started = time.perf_counter()
    scored = sum(scorer.power(pattern.topk(0.05)).n for _ in range(SCORED))
    rate = scored / (time.perf_counter() - started)
    return {"network": network, "scored images a second": f"{rate:,.0f}"}


def waits_in(call: Callable[[], object]) -> int:
    """How often the host waits for a CUDA device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


def count_waits(device: str, first: int = 20, last: int = 40) -> dict[str, Any]:
    """The waits in a round of a search: what comes before 20 and 40 rounds is as long."""
    counts = {}
    for solver in ("swap", "learned"):
        searches = Searches("demo", device, None)
        few, many = (
            waits_in(lambda n=n: searches.run(1, n_steps=n, solver=solver)) for n in (first, last)
        )
        counts[f"waits a round, {solver}"] = (many - few) / (last - first)
    return counts


def write_table(rows: Sequence[dict[str, Any]]) -> None:
    print("| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0]), sep="\n")
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser = parser_of(__doc__)
    parser.add_argument("--device", default=usual, help=f"default: {usual}")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--classes", nargs="+", type=int, default=[1, 5, 20, 32])
    parser.add_argument("--rounds", type=int, help="of each search; default: the usual length")
    options = parser.parse_args(arguments)
    device, rounds = options.device, options.rounds
    write_table([{"what": "package", "value": "captum_classpattern"}] + [
        {"what": what, "value": value} for what, value in describe(torch.device(device)).items()
    ])  # fmt: skip
    write_table([compare_masks(device, rounds, precision) for precision in ("full", "auto")])
    for network in options.networks:
        write_table([time_searches(network, device, rounds, n) for n in options.classes])
    write_table([time_scoring(network, device) for network in options.networks])
    if device.startswith("cuda"):
        write_table([count_waits(device)])


if __name__ == "__main__":
    main()
