"""Sweeps on a local Ray cluster of two nodes: equal to serial, whatever dies on the way."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from swept import HELD_OUT, QUICK, SEARCH, assert_holds, network, slow, times_of, two, units_in
from torch import nn

from captum_classpattern import sweep
from captum_classpattern.demo.network import SmallResNet

ray = pytest.importorskip("ray")
IGNORED = (  # of Ray's own code
    *("DeprecationWarning", "FutureWarning", "ResourceWarning"),
    "pytest.PytestUnraisableExceptionWarning",
)
pytestmark = [
    pytest.mark.cluster,
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in IGNORED),
]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
LIMIT = 300  # seconds


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # as serial runs, on a busy machine
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**NODE, "include_dashboard": False, "resources": {"chosen": 2}}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**NODE)
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
    found = run(tmp_path / "out", two())
    assert_holds(tmp_path / "out", serial)
    assert found.failures == {}
    assert ray.is_initialized()  # a cluster that was connected before stays so
    with pytest.raises(ValueError, match="`workers=2` is for a cluster that is started here"):
        run(tmp_path / "out", {"third": network(2)}, workers=2)


@pytest.mark.parametrize("options", [{"num_gpus": 1}, {"num_cpus": 64}])
def test_what_no_node_has_is_refused(cluster, tmp_path, options):
    with pytest.raises(ValueError, match="the largest node has 1 cores and 0 GPUs: ask for less"):
        run(tmp_path, two(), ray_options=options)


def test_checkpoints_fail_and_are_found_as_in_one_process(cluster, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    torch.manual_seed(0)
    torch.save(SmallResNet().state_dict(), tmp_path / "good.pt")
    described = {"arch": "captum_classpattern.demo.network:SmallResNet", "mean": 0, "std": 1}
    models = {name: {"path": tmp_path / f"{name}.pt", **described} for name in ("bad", "good")}
    engines = ("ray", "local")
    found = [run(tmp_path / each, models, each, classes=[0, 2]) for each in engines]
    assert units_in(tmp_path / "ray") == {("good", 0), ("good", 2)}
    assert_holds(tmp_path / "ray", tmp_path / "local")
    assert found[0].failures == found[1].failures
    assert [*found[0].failures] == ["bad"]


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


class Chosen(nn.Module):
    """Works only where a resource was given."""

    def forward(self, logits):
        given = ray.get_runtime_context().get_assigned_resources()
        if given.get("chosen") != 1:
            raise RuntimeError(f"it has only {given}")
        return logits


@pytest.fixture
def by_value():
    """Workers can't import this module: its classes travel with the models."""
    modules = [sys.modules[name] for name in (__name__, "swept")]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        ray.cloudpickle.unregister_pickle_by_value(module)


def test_a_task_has_what_the_options_say_and_dies_as_often(cluster, serial, tmp_path, by_value):
    doomed = {name: Doomed(tmp_path / name, n).eval() for name, n in (("old", 1), ("never", 99))}
    chosen = network(1).append(Chosen()).eval()
    options = {"max_retries": 1, "resources": {"chosen": 1}}
    models = {**doomed, "new": chosen}
    found = run(tmp_path / "out", models, classes=[0], ray_options=options)
    assert [*found.failures] == ["never"]
    assert found.failures["never"].startswith("WorkerCrashedError: ")
    assert units_in(tmp_path / "out") == {("old", 0), ("new", 0)}
    assert [len([*(tmp_path / name).iterdir()]) for name in doomed] == [1, 2]
    assert_holds(serial, tmp_path / "out")


def wait_for_a_class(folder):
    deadline = time.monotonic() + LIMIT
    while not units_in(folder) and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_node_killed_in_the_middle_loses_and_repeats_nothing(cluster, serial, tmp_path, by_value):
    doomed, _ = (cluster.add_node(**NODE, resources={"extra": 1}) for _ in range(2))
    killed = []

    def kill():
        wait_for_a_class(tmp_path)
        killed.append(times_of(tmp_path))
        cluster.remove_node(doomed, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    found = run(tmp_path, slow(), ray_options={"resources": {"extra": 1}})
    thread.join()
    assert 0 < len(killed[0]) < 6
    assert killed[0].items() <= times_of(tmp_path).items()
    assert found.failures == {}
    assert_holds(tmp_path, serial)


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
        wait_for_a_class(tmp_path)
        with pytest.raises(ValueError, match="another call is writing into"):
            run(tmp_path, slow())
        process.send_signal(signal.SIGKILL)
    before = times_of(tmp_path)
    assert 0 < len(before) < 6
    run(tmp_path, slow())
    assert before.items() <= times_of(tmp_path).items()
    assert_holds(tmp_path, serial)
