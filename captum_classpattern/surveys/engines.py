"""Where units run: in this process, or on a Ray cluster. Both yield each outcome at once."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from captum_classpattern._validation import check_count, check_positive, import_optional
from captum_classpattern.classifier import warn
from captum_classpattern.surveys.sources import ModelSource

ENGINES = ("local", "ray")
RETRIES = 3  # of a unit whose worker or node dies
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds, and of how many
UNITS_AHEAD = 2  # in flight for each that can run: a worker never waits for the next


class Unit(NamedTuple):
    """One class of one model."""

    source: ModelSource
    target: int


class Outcome(NamedTuple):
    """What became of a unit: the reason if it failed, how long it took, and what a worker warned
    of."""

    error: str | None = None
    seconds: float = 0.0
    warnings: tuple[tuple[type[UserWarning], str], ...] = ()


Run: TypeAlias = Callable[[Unit], Outcome]  # it travels to each worker once
Engine: TypeAlias = Callable[[Run, Iterator[Unit]], Iterator[tuple[Unit, Outcome]]]


def find_engine(engine: str, threads: int, **options: Any) -> Engine:
    """The engine of this name, with ``options`` of :func:`run_on_ray`."""
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    given = [name for name, value in options.items() if value is not None]
    if engine == "local":
        if given:
            raise ValueError(f"`{given[0]}` is for `engine='ray'`: leave it out, or choose that")
        return run_locally
    import_optional("ray")
    if "workers" in given:
        check_count("workers", options["workers"])
    if "gpus_per_task" in given:
        check_positive("gpus_per_task", options["gpus_per_task"])
    return partial(run_on_ray, threads=threads, **options)


def run_locally(run: Run, units: Iterator[Unit]) -> Iterator[tuple[Unit, Outcome]]:
    """Runs unit after unit in this process."""
    for unit in units:
        yield unit, run(unit)


def run_on_ray(
    run: Run,
    units: Iterator[Unit],
    *,
    address: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    gpus_per_task: float | None = None,
) -> Iterator[tuple[Unit, Outcome]]:
    """Runs units as tasks of a Ray cluster. A cluster that is not connected yet is connected, or
    else started here, and left at the end."""
    ray = import_optional("ray")
    joined = not ray.is_initialized()
    if joined:
        start_ray(ray, address, workers, threads)
    elif workers is not None:
        raise ValueError(
            f"`workers={workers}` is for a cluster that is started here, but this process is "
            "connected to one already: leave `workers` out, or call ray.shutdown() first"
        )
    try:
        check_resources(ray, threads, gpus_per_task or 0)
        yield from _run_tasks(ray, run, units, threads, gpus_per_task or 0)
    finally:
        if joined:
            ray.shutdown()


def usable_cores() -> int:
    """The cores that this process may use: those of its job, and no more than its container's
    quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = map(int, CPU_QUOTA.read_text().split())
    except (OSError, ValueError):  # there is none
        return cores
    return max(1, min(cores, quota // period))


def start_ray(ray: Any, address: str | None, workers: int | None, threads: int) -> None:
    """Connects to a cluster, or starts one on this machine."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    variable = os.environ.get("RAY_ADDRESS")
    if (address or variable or "local") != "local":
        if workers is not None:
            given = "an address" if address else f"the address in RAY_ADDRESS ({variable})"
            raise ValueError(
                f"`workers={workers}` is for a cluster that is started here: leave it out with "
                f"{given}, since all cores of that cluster are used"
            )
        ray.init(address=address, **options)
        return
    ray.init(
        address="local",
        num_cpus=workers * threads if workers else max(threads, usable_cores()),
        include_dashboard=False,
        _system_config={"task_oom_retries": RETRIES},  # Ray would try forever
        **options,
    )


def _run_tasks(
    ray: Any, run: Run, units: Iterator[Unit], threads: int, gpus: float
) -> Iterator[tuple[Unit, Outcome]]:
    task = ray.remote(_run_in_worker).options(
        num_cpus=threads, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False
    )
    shared = [ray.put(run)]  # in a list, so that workers get it once and not with every task
    given: dict[str, Any] = {}  # the model that units are being submitted for, as a reference
    pending: dict[Any, Unit] = {}
    warned: set[tuple[str, str]] = set()
    try:
        while True:
            room = max(0, _most_pending(ray, threads, gpus) - len(pending))
            for unit in islice(units, room):
                source = unit.source
                if source.fetch is not None:  # the model is put into Ray's object store, once
                    if source.name not in given:
                        given.clear()  # units come model by model; tasks keep their reference
                        given[source.name] = ray.put(source.fetch())
                    source = replace(source, fetch=partial(ray.get, given[source.name]))
                pending[task.remote(shared, Unit(source, unit.target))] = unit
            if not pending:
                return
            [finished], _ = ray.wait([*pending], num_returns=1)
            unit = pending.pop(finished)
            outcome = _outcome(ray, finished)
            del finished  # a reference keeps its result in the object store
            for category, text in outcome.warnings:
                if (unit.source.name, text) not in warned:
                    warned.add((unit.source.name, text))
                    warn(f"{text} (model {unit.source.name!r})", category)
            yield unit, outcome
    finally:
        for unfinished in pending:
            ray.cancel(unfinished, force=True)


def _most_pending(ray: Any, threads: int, gpus: float) -> int:
    """How many units may be in flight: more as nodes join."""
    resources = ray.cluster_resources()
    places = resources.get("CPU", 0) // threads
    if gpus:
        places = min(places, resources.get("GPU", 0) // gpus)
    return UNITS_AHEAD * max(1, int(places))


def check_resources(ray: Any, threads: int, gpus: float) -> None:
    """Warns if no node of the cluster has what a unit needs, so that it would wait forever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(n.get("CPU", 0) >= threads and n.get("GPU", 0) >= gpus for n in nodes):
        return
    needed = f"{threads} cores" + (f" and {gpus:g} GPUs" if gpus else "")
    warn(
        f"no machine of the Ray cluster has the {needed} that a unit needs: the sweep waits until "
        "one joins; pass fewer `threads` or a smaller `gpus_per_task`"
    )


def _outcome(ray: Any, finished: Any) -> Outcome:
    """The outcome of a task, also of one whose worker died each time."""
    try:
        return Outcome(*ray.get(finished))
    except ray.exceptions.OutOfMemoryError:
        reason = (
            f"its worker ran out of memory, {RETRIES + 1} times: give fewer workers, a smaller "
            "internal_batch_size, or more memory"
        )
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
        reason = f"its worker died, {RETRIES + 1} times"
    except ray.exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).strip()[-500:]}"
    return Outcome(reason)


def _run_in_worker(shared: list[Any], unit: Unit) -> Outcome:
    """The task: the outcome, with what a user should be warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome: Outcome = _kept(shared[0])(unit)
    said = [(w.category, str(w.message)) for w in caught if issubclass(w.category, UserWarning)]
    return outcome._replace(warnings=tuple(said))


@lru_cache(maxsize=1)
def _kept(reference: Any) -> Any:
    """What runs the units, fetched once by each worker."""
    return import_optional("ray").get(reference)
