"""Sweeps on Ray: throughput, overhead, time to continue after a kill, and memory.

    python benchmarks/sweep.py

Each measurement runs in a separate process, because the peak memory of a process never falls. The
processes have one thread each; nothing else should run on the machine.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_classpattern import sweep
from captum_classpattern._validation import import_optional
from captum_classpattern.demo import demo_images, demo_models
from captum_classpattern.surveys.engines import Outcome, Unit, run_on_ray, start_ray
from captum_classpattern.surveys.sources import ModelSource
from captum_classpattern.surveys.sweep_results import begin as begin_sweep
from captum_classpattern.surveys.sweep_run import run_missing

LONG_UNIT = 20.0  # seconds: what the overhead is compared with
GOALS = {"throughput": ">= 1.8", "overhead": "<= 3 %", "lost": "0", "memory": "<= 1.2"}


@dataclass
class Sleeping:
    """Units that only sleep, or do nothing."""

    seconds: float
    wanted: dict[str, list[int]]

    def run(self, unit: Unit) -> Outcome:
        time.sleep(self.seconds)
        return Outcome(seconds=self.seconds)


def search_demo(folder: Path, units: int, rounds: int, workers: int | None) -> None:
    """A sweep of the demo's models; ``workers`` None is serial."""
    models, images = demo_models(), demo_images()
    per_model = -(-units // len(models))
    sweep(
        models,
        images.search,
        images.held_out,
        folder=folder,
        classes=range(min(10, per_model)),
        canvases={"white": 1},
        areas=(0.05,),
        n_steps=rounds,
        engine="local" if workers is None else "ray",
    )


def sleep_units(count: int, seconds: float = 0.0) -> float:
    """Seconds for units that only sleep, through all that a sweep does with each."""
    with tempfile.TemporaryDirectory() as folder:
        source = ModelSource("sleeping", "sleeping.pt")
        begun = begin_sweep(Path(folder), {}, [source], range(count))
        work = Sleeping(seconds, {source.name: [*range(count)]})
        started = time.perf_counter()
        run_missing(begun, work, run_on_ray)
        return time.perf_counter() - started


def warm_up(workers: int) -> float:
    """Starts Ray and its workers; returns the seconds that took."""
    started = time.perf_counter()
    start_ray(import_optional("ray"), "local", workers, 1)
    sleep_units(2 * workers, 1.0)
    return time.perf_counter() - started


class StorePeak(threading.Thread):
    """The peak of Ray's object store in MiB, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.value = 0.0

    def run(self) -> None:
        ray = import_optional("ray")
        while ray.is_initialized():
            total, free = ray.cluster_resources(), ray.available_resources()
            used = total["object_store_memory"] - free.get("object_store_memory", 0.0)
            self.value = max(self.value, used / 2**20)
            time.sleep(0.1)


def measure(given: dict[str, Any]) -> dict[str, float]:
    """One measurement, in this process."""
    workers, found = given["workers"], {}
    store = StorePeak()
    if workers is not None:
        found["start"] = warm_up(workers)
        if "folder" not in given:  # it would take time from the throughput
            store.start()
    started = time.perf_counter()
    if "folder" in given:
        search_demo(Path(given["folder"]), given["units"], given["rounds"], workers)
    else:
        sleep_units(given["units"])
    found["seconds"] = time.perf_counter() - started
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found["store"] = store.value
    if workers is not None:
        import_optional("ray").shutdown()
    return found


def begin(**given: Any) -> "subprocess.Popen[str]":
    """A measurement in a new process."""
    line = [sys.executable, __file__, "--measure", json.dumps(given)]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def run(**given: Any) -> dict[str, float]:
    with begin(**given) as process:
        printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise RuntimeError(f"the measurement {given} failed")
    measured: dict[str, float] = json.loads(printed.splitlines()[-1])
    return measured


def files_in(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.glob("*/findings/*.json")}


def wait_for_more(folder: Path, than: int, process: "subprocess.Popen[str]") -> None:
    """Returns when more units are finished."""
    while len(files_in(folder)) <= than:
        if process.poll() is not None:
            return
        time.sleep(0.05)


def kill_and_continue(folder: Path, searched: dict[str, int]) -> tuple[float, int]:
    """Seconds from a kill of the driver until the next unit is finished by the same command, and
    how many units were lost or repeated."""
    given = {"folder": str(folder), **searched}
    with begin(**given) as process:
        wait_for_more(folder, 0, process)
        process.send_signal(signal.SIGKILL)
    killed = time.perf_counter()
    before = files_in(folder)
    with begin(**given) as process:
        wait_for_more(folder, len(before), process)
        seconds = time.perf_counter() - killed
        process.wait()
    after = files_in(folder)
    return seconds, sum(after.get(name) != written for name, written in before.items())


def throughput_rows(folder: Path, searched: dict[str, int]) -> list[str]:
    """Serial, and the workers on the same units."""
    serial = run(**{**searched, "workers": None}, folder=str(folder / "serial"))["seconds"]
    found = run(**searched, folder=str(folder / "ray"))
    ratio, start = serial / found["seconds"], f"{found['start']:.1f} s"
    times = f"{found['seconds']:.1f} s | {ratio:.2f} | {GOALS['throughput']} | {start}"
    return [f"| serial | {serial:.1f} s | 1 | | |", f"| Ray, {searched['workers']} | {times} |"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=12, help="units of the demo's models")
    parser.add_argument("--rounds", type=int, default=400, help="rounds of each")
    parser.add_argument("--workers", type=int, default=2, help="of Ray; the goals are for 2")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 100, 10_000])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        print(json.dumps(measure(json.loads(given.measure))))
        return
    searched = {"units": given.units, "rounds": given.rounds, "workers": given.workers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| engine, workers | time | throughput over serial | goal | start of Ray |")
        print("|---|---|---|---|---|")
        for row in throughput_rows(folder, searched):
            print(row, flush=True)
        seconds, wrong = kill_and_continue(folder / "killed", searched)
    print("\n| figure | measured | goal |\n|---|---|---|")
    print(f"| from a kill to the next finished unit | {seconds:.1f} s | |")
    print(f"| finished units lost or repeated | {wrong} | {GOALS['lost']} |", flush=True)
    print("\n| empty units | driver's peak memory | object store, peak | time |")
    print("|---|---|---|---|")
    peaks = {}
    for count in given.counts:
        found = run(units=count, workers=given.workers)
        peaks[count] = found["memory"]
        print(
            f"| {count:,} | {found['memory']:.0f} MiB | {found['store']:.1f} MiB | "
            f"{found['seconds']:.1f} s |",
            flush=True,
        )
    most, usual = given.counts[-1], given.counts[-2:][0]
    ratio, each = peaks[most] / peaks[usual], given.workers * found["seconds"] / most
    print(f"\nMemory of {most:,} units over {usual:,}: {ratio:.2f} (goal {GOALS['memory']}).")
    print(
        f"Ray's overhead a unit: {1000 * each:.0f} ms, {each / LONG_UNIT:.2%} of {LONG_UNIT:.0f} s "
        f"(goal {GOALS['overhead']})."
    )


if __name__ == "__main__":
    main()
