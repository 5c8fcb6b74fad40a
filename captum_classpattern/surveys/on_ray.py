"""Runs the surveys of a sweep as tasks of a Ray cluster. All that knows Ray
is here."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from captum_classpattern._support import validation

RETRIES = 3  # of a task whose worker or node dies


def check_engine(
    engine: str,
    address: str | None,
    workers: int | None,
    needs: Mapping[str, Any],
    devices: Iterable[tuple[str, Any]],
) -> None:
    """Raises an error unless tasks, of models on these devices, can be run as they should, before
    anything is written."""
    if engine not in ("local", "ray"):
        raise ValueError(f"engine must be local or ray, got {engine!r}")
    if engine == "local" and (address, workers) != (None, None):
        raise ValueError("`address` and `workers` are for `engine='ray'`")
    if engine == "ray":
        validation.import_optional("ray")
    validation.check_count("workers", 1 if workers is None else workers)
    for name in needs.keys() & {"num_cpus", "num_gpus"}:
        validation.check_positive(name, 1 if needs[name] == 0 else needs[name])
    for name, device in devices if engine == "ray" and not needs.get("num_gpus") else ():
        if str(device).startswith("cuda"):  # all would take the first GPU
            raise ValueError(
                f"the model {name!r} is for a GPU, but its task has none: ask for one by "
                '`ray_options`, such as {"num_gpus": 1}, or for a share of one'
            )


def run_on_ray(
    run: Callable[[Any], tuple[Any, ...]],
    sources: Sequence[Any],
    address: str | None,
    workers: int | None,
    needs: Mapping[str, Any],
) -> Iterator[tuple[Any, ...]]:
    """Each source as its task ends, with what ``run`` returns. Disconnects from a cluster that it
    connected to or started."""
    ray = validation.import_optional("ray")
    connected_here = _connect(ray, address, workers, needs["num_cpus"])
    waiting, pending = [*reversed(sources)], dict[Any, Any]()
    try:
        cores, gpus = needs["num_cpus"], needs.get("num_gpus", 0)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        rooms = [(node.get("GPU", 0), node.get("CPU", 0)) for node in nodes]
        if not any(room[0] >= gpus and room[1] >= cores for room in rooms):  # it would wait forever
            has = "the largest node has {1:g} cores and {0:g} GPUs".format(*max(rooms))
            raise ValueError(
                f"a model needs {cores:g} cores and {gpus:g} GPUs, {has}: ask for less"
            )
        options = {"max_retries": RETRIES, **needs}
        # Ray makes tasks of functions alone, and ``run`` may be a bound method
        task = ray.remote(lambda run, source: run(source)).options(**options)
        shared = ray.put(run)
        while waiting or pending:
            room = ray.cluster_resources().get("CPU", 1) // (cores or 1)
            while waiting and len(pending) < max(1, 2 * room):  # a cluster that grows sees work
                source = waiting.pop()  # models may be large
                pending[task.remote(shared, source)] = source
            [done], _ = ray.wait([*pending])
            source = pending.pop(done)
            try:
                yield source, *ray.get(done)
            except ray.exceptions.RayError as lost:  # each time
                yield source, f"{type(lost).__name__}: {str(lost).strip()[:500]}", []
    finally:
        for unfinished in pending:
            ray.cancel(unfinished, force=True)
        if connected_here:
            ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None, threads: float) -> bool:
    """Connects to a cluster, or starts one here, unless connected; returns whether it did."""
    connect = not ray.is_initialized()
    start = connect and (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    if workers is not None and not start:
        raise ValueError(f"`workers={workers}` is for a cluster that is started here: leave it out")
    if start:
        ours = {"include_dashboard": False, "_system_config": {"task_oom_retries": RETRIES}}
        threads = max(1, int(threads))
        least = workers or threads > (os.cpu_count() or 1)  # else Ray counts the cores
        ray.init("local", num_cpus=least * threads or None, logging_level="WARNING", **ours)
    elif connect:
        ray.init(address, logging_level="WARNING")
    return connect
