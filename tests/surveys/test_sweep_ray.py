"""Sweeps on a local Ray cluster of two nodes: equal to serial, whatever dies on the way."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
import torch
import torchvision
from swept import HELD_OUT, QUICK, SEARCH, findings_of, network, slow, times_of, two, units_in
from torch import nn

from captum_classpattern import sweep
from captum_classpattern.datasets import load_images
from captum_classpattern.demo.network import SmallResNet
from captum_classpattern.surveys import engines
from captum_classpattern.surveys.engines import Outcome, Unit
from captum_classpattern.surveys.sources import ModelSource

ray = pytest.importorskip("ray")
IGNORED = (  # of Ray's own code
    *("DeprecationWarning", "FutureWarning", "ResourceWarning"),
    "pytest.PytestUnraisableExceptionWarning",
)
pytestmark = [
    pytest.mark.cluster,
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in IGNORED),
]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
LIMIT = 300  # seconds


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # as serial runs, on a busy machine
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def run(folder, models, engine="ray", **more):
    return sweep(models, SEARCH, HELD_OUT, folder=folder, engine=engine, **{**QUICK, **more})


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serial")
    run(folder, two(), engine="local")
    return folder


def test_a_cluster_finds_the_same_as_one_process(cluster, serial, tmp_path):
    found = run(tmp_path, two())
    assert findings_of(tmp_path) == findings_of(serial)
    assert found.failures == []
    assert ray.is_initialized()  # a cluster that was connected before stays so


def test_checkpoints_and_images_of_a_folder_travel_by_their_paths(cluster, tmp_path):
    images, failures = [], []
    for name, given in {"search": SEARCH, "held_out": HELD_OUT}.items():
        for i, (image, label) in enumerate(zip(*given)):
            file = tmp_path / name / f"{label}" / f"{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            torchvision.utils.save_image(image, file)
        images.append(load_images(tmp_path / name, channels=1, cache=tmp_path / "cache"))
    assert all(len(pickle.dumps(each)) < 8_000 for each in images)  # names, no pixels
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    torch.manual_seed(0)
    torch.save(SmallResNet().state_dict(), tmp_path / "good.pt")
    described = {"arch": "captum_classpattern.demo.network:SmallResNet", "mean": 0, "std": 1}
    models = {name: {"path": tmp_path / f"{name}.pt", **described} for name in ("bad", "good")}
    for engine in ("ray", "local"):
        more = {"folder": tmp_path / engine, "engine": engine, "classes": [0, 2]}
        failures.append(sweep(models, *images, **more, **QUICK).failures)
    assert units_in(tmp_path / "ray") == {("good", 0), ("good", 2)}
    assert findings_of(tmp_path / "ray") == findings_of(tmp_path / "local")
    assert failures[0] == failures[1]
    assert ["bad.pt" in row["error"] for row in failures[0]] == [True, True]


class Doomed(nn.Module):
    """Ends its process the first time that it is run on a worker, or so many times."""

    def __init__(self, marker, times):
        super().__init__()
        marker.mkdir()
        self.inner, self.marker, self.times = network(0), str(marker), times
        self.driver = os.getpid()

    def forward(self, images):
        died = len(os.listdir(self.marker))
        if os.getpid() != self.driver and died < self.times:
            open(os.path.join(self.marker, str(died)), "w").close()
            os._exit(1)
        return self.inner(images)


@pytest.fixture
def by_value():
    """Workers can't import this module: its classes travel with the models."""
    modules = [sys.modules[name] for name in (__name__, "swept")]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)


def test_a_unit_whose_worker_dies_is_tried_again(cluster, serial, tmp_path, by_value, monkeypatch):
    monkeypatch.setattr(engines, "RETRIES", 1)  # each takes a new worker
    doomed = {name: Doomed(tmp_path / name, n).eval() for name, n in (("old", 1), ("never", 99))}
    found = run(tmp_path / "out", {**doomed, "good": network(1)}, classes=[0])
    assert found.failures == [{"model": "never", "class": 0, "error": "its worker died, 2 times"}]
    assert units_in(tmp_path / "out") == {("old", 0), ("good", 0)}
    assert [len([*(tmp_path / name).iterdir()]) for name in doomed] == [1, 2]
    expected, ours = findings_of(serial), findings_of(tmp_path / "out")
    assert ours["old", "0_white_0.1.safetensors"] == expected["old", "0_white_0.1.safetensors"]


def test_a_node_killed_in_the_middle_loses_and_repeats_nothing(cluster, serial, tmp_path, by_value):
    extra = cluster.add_node(num_cpus=2, object_store_memory=80_000_000)
    killed = []

    def kill():
        deadline = time.monotonic() + LIMIT
        while not units_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        killed.append(times_of(tmp_path))
        cluster.remove_node(extra, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    found = run(tmp_path, slow())
    thread.join()
    assert 0 < len(killed[0]) < 6
    assert killed[0].items() <= times_of(tmp_path).items()
    assert found.failures == []
    assert findings_of(tmp_path) == findings_of(serial)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import ray
import swept
from captum_classpattern import sweep

ray.cloudpickle.register_pickle_by_value(swept)
sweep(swept.slow(), swept.SEARCH, swept.HELD_OUT, folder=Path({folder!r}),
      engine="ray", address={address!r}, **swept.QUICK)
"""


def test_the_driver_killed_and_started_again(cluster, serial, tmp_path, by_value):
    tests = os.path.dirname(os.path.dirname(__file__))
    code = SCRIPT.format(tests=tests, folder=str(tmp_path), address=cluster.address)
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + LIMIT
        while not units_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(ValueError, match="another sweep is writing into"):
            run(tmp_path, slow())
        process.send_signal(signal.SIGKILL)
    before = times_of(tmp_path)
    assert 0 < len(before) < 6
    run(tmp_path, slow())
    assert before.items() <= times_of(tmp_path).items()
    assert findings_of(tmp_path) == findings_of(serial)


def test_warnings_of_workers_reach_the_user_once(cluster, tmp_path, by_value):
    class Wary(nn.Module):
        def forward(self, images):
            warnings.warn("mind the gap", UserWarning, stacklevel=2)
            return images

    with pytest.warns(UserWarning, match=r"mind the gap \(model 'wary'\)") as caught:
        assert run(tmp_path, {"wary": nn.Sequential(Wary(), network(0)).eval()}).failures == []
    assert len([w for w in caught if "mind the gap" in str(w.message)]) == 1


def sleep(unit):
    """A unit that does nothing else."""
    time.sleep(0.01)
    return Outcome(seconds=0.01)


def test_few_units_are_in_flight(cluster, by_value):
    drawn, seen = [], []

    def units():
        for target in range(60):
            drawn.append(target)
            yield Unit(ModelSource("none"), target)

    for unit, outcome in engines.run_on_ray(sleep, units()):
        seen.append(unit.target)
        assert outcome.error is None
        assert len(drawn) - len(seen) <= 2 * 2 * engines.UNITS_AHEAD
    assert sorted(seen) == list(range(60))


def test_a_cluster_that_can_not_run_a_unit_is_reported(cluster):
    with pytest.warns(UserWarning, match="no machine of the Ray cluster has the 64 cores"):
        engines.check_resources(ray, 64, 0)
    with pytest.warns(UserWarning, match="1 cores and 0.5 GPUs"):
        engines.check_resources(ray, 1, 0.5)


LOST = {
    "its worker ran out of memory, 4 times: give": ray.exceptions.OutOfMemoryError("killed"),
    "its worker died, 4 times": ray.exceptions.WorkerCrashedError(),
    "RaySystemError: ": ray.exceptions.RaySystemError("no module"),
}


@pytest.mark.parametrize("reason", LOST)
def test_why_a_task_was_lost_is_in_words(monkeypatch, reason):
    def get(_):
        raise LOST[reason]

    monkeypatch.setattr(ray, "get", get)
    outcome = engines._outcome(ray, None)
    assert (outcome.error[: len(reason)], outcome.warnings) == (reason, ())


def test_workers_are_for_a_cluster_that_is_started_here(cluster, monkeypatch):
    message = "`workers=2` is for a cluster that is started here"
    with pytest.raises(ValueError, match=f"{message}: leave it out with an address"):
        engines.start_ray(ray, "auto", 2, 1)
    monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    with pytest.raises(ValueError, match=r"with the address in RAY_ADDRESS \(far:6379\)"):
        engines.start_ray(ray, None, 2, 1)
    with pytest.raises(ValueError, match=f"{message}, but this process is connected to one"):
        next(engines.run_on_ray(sleep, iter(()), workers=2))
