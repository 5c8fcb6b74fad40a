"""What to report from a GPU: masks beside the CPU's, times, waits and memory, as Markdown tables.

It needs no images, and should take about five minutes on a GPU. The ResNet-50 has random weights:
it is there for its time and memory.
"""

import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from checking import checked
from findings import head, line, parser_of
from torchvision.models import resnet50

from captum_classpattern import (
    ClassPattern,
    LabelledImages,
    Pattern,
    PixelClassifier,
    demo_images,
    demo_models,
)
from captum_classpattern.optimization.settings import versions
from captum_classpattern.scores.power import Scorer

AREA = 0.05
COMPARED, SCORED = 5, 5  # classes whose masks are compared, and patterns
SAME_BATCH = 32  # images in one call, on both devices
ROUNDS = 20, 40  # the start is as long in both


class Network:
    """A network on a device, with its images."""

    def __init__(self, name: str, device: str) -> None:
        if name == "demo":
            model, images = demo_models()["natural"], demo_images()
            self.search_images, self.held_out = images.search, images.held_out
        else:
            torch.manual_seed(0)
            model = PixelClassifier(resnet50(num_classes=10).eval(), mean=0.45, std=0.23)
            noise = LabelledImages(torch.rand(300, 3, 224, 224), torch.arange(300) % 10)
            self.search_images, self.held_out = noise.halves(0)
        self.model, self.device = model.to(device), torch.device(device)
        self.explainer = ClassPattern(self.model, self.search_images, check_accuracy=False)

    def search(self, classes: int, **options: Any) -> list[Pattern]:
        """Patterns of so many classes together; more than ten begin anew on other canvases."""
        places = [7 * number % len(self.search_images) for number in range(classes)]
        canvases = self.search_images.take(places).to(self.device)
        targets = [number % 10 for number in range(classes)]
        patterns = self.explainer.search(canvases, targets, area=AREA, **options)
        float(patterns[0].mask.sum())  # waits for the device
        return patterns

    def waits(self, **options: Any) -> int:
        """How often the host waits for a CUDA device in a search of one class."""
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.search(1, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing CUDA operation" in str(each.message) for each in caught)


def describe(device: torch.device) -> dict[str, Any]:
    """The device, and the versions."""
    facts: dict[str, Any] = {"device": device, "system": platform.platform(), **versions()}
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device)
        capability = f"compute capability {card.major}.{card.minor}"
        facts["card"] = f"{card.name}, {card.total_memory >> 20:,} MiB, {capability}"
        facts["CUDA"] = f"{torch.version.cuda or torch.version.hip}"
        facts["cuDNN"] = torch.backends.cudnn.version()
    return facts


def compare_masks(device: str, precision: str, rounds: int | None) -> dict[str, Any]:
    """How many pixels of the demo's patterns are not those of the CPU."""
    how = {"precision": precision, "internal_batch_size": SAME_BATCH, "n_steps": rounds}
    here, there = (Network("demo", each).search(COMPARED, **how) for each in ("cpu", device))
    masks = [torch.cat([each.topk(AREA).mask.cpu() for each in found]) for found in (here, there)]
    powers = [sum(each.info["search_power"] for each in found) for found in (here, there)]
    return {
        "precision": precision,
        "CPU": here[0].info["precision"],
        "device": there[0].info["precision"],
        "pixels": int(masks[0].sum()),
        "that differ": int((masks[0] > masks[1]).sum()),
        "mean power on the CPU": f"{powers[0] / COMPARED:.1%}",
        "on the device": f"{powers[1] / COMPARED:.1%}",
    }


def time_search(name: str, network: Network, classes: int, rounds: int | None) -> dict[str, Any]:
    """The time of a search of so many classes together, and its peak of memory."""
    on_cuda = network.device.type == "cuda"
    network.search(classes, n_steps=1)  # libraries are loaded, and memory is taken
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(network.device)
    started = time.perf_counter()
    [first, *_] = network.search(classes, n_steps=rounds)
    seconds = time.perf_counter() - started
    peak = f"{torch.cuda.max_memory_allocated(network.device) >> 20:,}" if on_cuda else "-"
    return {
        **{"network": name, "precision": first.info["precision"], "classes": classes},
        **{"seconds": f"{seconds:.2f}", "seconds a class": f"{seconds / classes:.3f}"},
        "passes a second": f"{first.info['passes_together'] / seconds:,.0f}",
        "peak MiB": peak,
    }


def time_scoring(name: str, network: Network) -> dict[str, Any]:
    """The time of scoring patterns on held-out images."""
    held_out = network.held_out.to(network.device, torch.float32)
    scorer = Scorer(checked(network.model, held_out), held_out)
    [pattern] = network.search(1, n_steps=1)
    scorer.power(pattern)
    started = time.perf_counter()
    images = sum(scorer.power(pattern.topk(AREA)).n for _ in range(SCORED))
    rate = images / (time.perf_counter() - started)
    return {"network": name, "scored images a second": f"{rate:,.0f}"}


def count_waits(network: Network, solver: str) -> dict[str, Any]:
    """The waits in a round of a search."""
    few, many = (network.waits(n_steps=rounds, solver=solver) for rounds in ROUNDS)
    return {"solver": solver, "waits a round": (many - few) / (ROUNDS[1] - ROUNDS[0])}


def print_table(*rows: Mapping[str, Any]) -> None:
    print(head(*rows[0]), *(line(*row.values()) for row in rows), "", sep="\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    parser = parser_of(__doc__)
    parser.add_argument("--device", default=usual, help=f"default: {usual}")
    parser.add_argument("--networks", nargs="+", default=["demo", "resnet50"])
    parser.add_argument("--classes", nargs="+", type=int, default=[1, 5, 20, 32])
    parser.add_argument("--rounds", type=int, help="of each search; default: the usual length")
    options = parser.parse_args(arguments)
    device, rounds = options.device, options.rounds
    print_table(describe(torch.device(device)))
    print_table(*(compare_masks(device, each, rounds) for each in ("full", "auto")))
    for name in options.networks:
        network = Network(name, device)
        print_table(*(time_search(name, network, n, rounds) for n in options.classes))
        print_table(time_scoring(name, network))
    if device.startswith("cuda"):
        print_table(*(count_waits(Network("demo", device), each) for each in ("swap", "learned")))


if __name__ == "__main__":
    main()
