"""Jobs on a real Ray cluster of two nodes, both on this machine: killed, shared out and stopped, with nothing lost."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import own_file
import pytest
from tiny_driver import TinyDriver

from harness import figures
from harness.errors import MachineError, UserError
from harness.executors import Epoch, Event, Failed, Finished, InProcess, Job, OutputDirs, Pruned, Saving
from harness.executors.ray import cluster as joining
from harness.executors.ray import worker
from harness.executors.ray.executor import Ray
from harness.executors.ray.worker import DriverEnvironment, Introduction
from harness.metrics.features import PACKAGED
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
if find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install -e '.[ray]'", allow_module_level=True)

TRIAL = TrialSpec(dataset="digits", batch_size=100, epochs=30, evaluation="validation")
ENDLESS = TRIAL.derive(epochs=100_000)
NODE = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100 * 2**20}
SOON = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each with 2 CPUs and what it takes for a GPU; at RAY_ADDRESS."""
    joining._isolate()
    from ray.cluster_utils import Cluster

    terminate = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False, "_system_config": SOON})
    signal.signal(signal.SIGTERM, terminate)  # Ray has set its own
    cluster.add_node(**NODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    cluster.shutdown()


EAGER = Saving(every_s=0.0)  # a checkpoint whenever that takes no more than 2 % of the time


@pytest.fixture(scope="module")
def pool(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    """Two workers, which most tests share: starting them takes seconds."""
    folder = tmp_path_factory.mktemp("pool")
    executor = Ray(["cpu", "cpu"], OutputDirs(folder / "scratch", folder / "checkpoints"), EAGER)
    yield executor
    executor.close()


def undisturbed(spec: TrialSpec, folder: Path) -> str:
    """SHA-256 of its weights when trained here, in one go."""
    dirs = OutputDirs(folder / "scratch", folder / "checkpoints")
    driver = TinyDriver(InProcess(dirs), dirs)
    driver.run([spec])
    return driver.weights(spec)


def worker_of(pool: Ray, trial: str) -> Introduction:
    found = next(job.worker.introduction for job in pool.running.values() if trial in job.left)
    assert found
    return found


def until_over(pool: Ray) -> Iterator[Event]:
    while pool.running:
        yield from pool.events()


# -------------------------------------------------------------------------------- a node, a worker


def test_code_of_the_users_own_goes_to_the_nodes(pool: Ray, tmp_path: Path) -> None:
    spec = own_file.spec_of(tmp_path / "gone")
    dirs = OutputDirs(tmp_path / "scratch", tmp_path / "checkpoints")
    here = TinyDriver(InProcess(dirs), dirs)
    here.run([spec])
    pool.submit(Job((spec,)))
    [there] = [e for e in until_over(pool) if isinstance(e, Finished)]
    [ours] = [e for e in here.events if isinstance(e, Finished)]
    for score in ("test/contrast", "test/elbo", "test/squared_error"):
        assert there.result.metrics[score] == pytest.approx(ours.result.metrics[score], rel=1e-5)


def test_a_node_is_killed(pool: Ray, cluster: Any, tmp_path: Path) -> None:
    """Its trial goes on elsewhere from its newest checkpoint, and ends with the weights of an undisturbed one."""
    specs = {s.id: s for s in (TRIAL.derive(seed=n) for n in range(6))}
    there = next(iter(cluster.worker_nodes))
    driver = TinyDriver(pool, pool.dirs)

    def kill(event: Event) -> None:
        alive = there in cluster.worker_nodes and isinstance(event, Epoch)
        if alive and worker_of(pool, event.spec).node == there.node_id and pool.checkpoints.newest(specs[event.spec]):
            cluster.remove_node(there, allow_graceful=False)

    driver.run(specs.values(), kill)
    [failed] = [e for e in driver.events if isinstance(e, Failed)]
    assert "its Ray node" in failed.why
    assert not failed.final
    assert sorted(driver.ended(Finished)) == sorted(specs)
    first, second = driver.starts.pop(failed.spec)
    assert first == 0 < second
    assert set(map(tuple, driver.starts.values())) == {(0,)}
    assert driver.weights(specs[failed.spec]) == undisturbed(specs[failed.spec], tmp_path)


def test_a_worker_is_killed(pool: Ray) -> None:
    pool.submit(Job((ENDLESS.derive(seed=20), ENDLESS.derive(seed=21))))
    victim = worker_of(pool, next(e for e in until_over(pool) if isinstance(e, Epoch)).spec)
    os.kill(victim.pid, signal.SIGKILL)
    ends = [e for e in until_over(pool) if not isinstance(e, Epoch)]
    assert [e.why for e in ends if isinstance(e, Failed)] == [f"its Ray worker died (process {victim.pid} on {victim.host})"] * 2
    assert pool.free() == 1
    wait_for(lambda: pool.free() == 2)


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


# -------------------------------------------------------------------------------- dropping


def test_a_job_that_waits_drops_at_once(pool: Ray) -> None:
    first, second = TRIAL.derive(seed=30), TRIAL.derive(seed=31)
    pool.submit(Job((first, second), waits_for_pruning=True))
    seen: Counter[str] = Counter()
    for event in until_over(pool):
        if isinstance(event, Epoch):
            seen[event.spec] += 1
            if (event.spec, event.epoch) == (first.id, 3):
                pool.prune([first.id])
        else:
            assert isinstance(event, Pruned if event.spec == first.id else Finished)
    assert seen == {first.id: 3, second.id: TRIAL.epochs}


def test_another_job_drops_soon(pool: Ray) -> None:
    trials = [ENDLESS.derive(seed=s).id for s in (40, 41)]
    pool.submit(Job((ENDLESS.derive(seed=40), ENDLESS.derive(seed=41))))
    next(e for e in until_over(pool) if isinstance(e, Epoch))
    pool.prune(trials[:1])
    assert next(e for e in until_over(pool) if not isinstance(e, Epoch)) == Pruned(trials[0])
    pool.prune(trials)
    assert next(e for e in until_over(pool) if not isinstance(e, Epoch)) == Pruned(trials[1])
    assert not pool.running


def test_a_trial_that_was_dropped_may_come_again(pool: Ray) -> None:
    spec = TRIAL.derive(seed=50)
    ends = []
    for again in (False, True):
        pool.submit(Job((spec,), waits_for_pruning=True))
        for event in until_over(pool):
            if not isinstance(event, Epoch):
                ends.append(type(event))
            elif not again:
                pool.prune([spec.id])
    assert ends == [Pruned, Finished]


# -------------------------------------------------------------------------------- stopping


class Stopped(BaseException):
    """What the driver's signal handlers raise."""


def test_a_signal_interrupts_the_wait_and_closing_keeps_the_newest_epoch(pool: Ray, tmp_path: Path) -> None:
    """The last test that shares the workers: it ends them."""
    spec = TRIAL.derive(seed=60, epochs=120)
    raised, shown = [], []

    def stop(number: int, frame: FrameType | None) -> None:
        raised.append(time.monotonic())
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        pool.submit(Job((spec,)))
        with pytest.raises(Stopped):  # noqa: PT012  (the signal comes in the middle of the loop)
            for event in until_over(pool):
                if not shown:
                    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
                assert isinstance(event, Epoch)
                shown.append(event.epoch)
        assert time.monotonic() - raised[0] < 5
    finally:
        signal.signal(signal.SIGTERM, before)
        pool.close(patience_s=60)
    done = Checkpoints(pool.dirs.checkpoints).newest(spec)
    assert shown[-1] <= done < spec.epochs
    driver = TinyDriver(InProcess(pool.dirs), pool.dirs)
    driver.run([spec])
    assert driver.starts == {spec.id: [done]}
    assert driver.weights(spec) == undisturbed(spec, tmp_path)


# -------------------------------------------------------------------------------- what a cluster has, and what it has not


def test_workers_share_gpus_evenly(cluster: Any, tmp_path: Path) -> None:
    """Ray's GPUs here are on paper, and the device is a CPU."""
    if not cluster.worker_nodes:
        cluster.add_node(**NODE)
    pool = Ray(["auto"] * 4, OutputDirs(tmp_path, tmp_path))
    try:
        wait_for(lambda: pool.free() == 4)
        here = [w.introduction for w in pool.workers if w.introduction]
        assert list(Counter(w.node for w in here).values()) == [2, 2]
        assert {w.gpus for w in here} == {("0",)}
        shares = [joining.gpu_share(n, device) for device in ("auto", "cuda", "cpu") for n in (1, 2, 3)]
        assert shares == [1.0, 1.0, 0.5] * 2 + [0.0] * 3
        with pytest.raises(MachineError, match=r"WORKERS=5: the Ray cluster has room for 4, .* 4 CPUs and 2 GPUs$"):
            joining.gpu_share(5, "auto")
    finally:
        pool.close()


def test_workers_of_other_code_are_refused(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DriverEnvironment, "current", lambda: DriverEnvironment("0123456789ab", "2.0", tmp_path))
    with pytest.raises(MachineError, match=r"other code than the driver\nthere: .*\nhere: 0123456789ab, torch 2.0"):
        Ray(["cpu"], OutputDirs(tmp_path, tmp_path))


def test_a_driver_finds_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = "{}:{}".format(*server.getsockname())
    for address, kind in ((nobody, MachineError), ("ray://127.0.0.1:10001", UserError)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(kind, match=f"RAY_ADDRESS={address}: "):
            Ray(["cpu"], OutputDirs(tmp_path, tmp_path))


def test_a_node_takes_over_the_drivers_feature_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have one of its own, trained on another processor: scores of one study are of one classifier."""
    folders = [tmp_path / name / "features" for name in ("driver", "node")]
    for folder, content in zip(folders, (b"the driver's", b"the node's"), strict=True):
        folder.mkdir(parents=True)
        (folder / "digits-0123-v1.pt").write_bytes(content)
        (folder / "mnist-0123-v1.pt").write_bytes(content)
    monkeypatch.setenv("HARNESS_DATA", str(folders[1].parent))
    worker._take_over(DriverEnvironment("", "", folders[0].parent).features("digits"))
    assert [(folders[1] / f"{name}-0123-v1.pt").read_bytes() for name in ("digits", "mnist")] == [b"the driver's", b"the node's"]
    assert len(list(folders[1].iterdir())) == 2
    (folders[0] / "faces_npz-0123-v1.pt").write_bytes(b"of images of one's own")
    sent = DriverEnvironment("", "", folders[0].parent).features("npz:faces.npz@1f2e3d4c5b6a")
    assert sent == {"faces_npz-0123-v1.pt": b"of images of one's own"}
    packaged = {f.name: f.read_bytes() for f in PACKAGED.glob("mnist-*.pt")}
    assert packaged
    assert DriverEnvironment("", "", tmp_path).features("mnist") == packaged  # from a driver that has none of its own
    [name] = packaged
    (folders[0] / name).write_bytes(b"the driver's")
    assert DriverEnvironment("", "", folders[0].parent).features("mnist")[name] == b"the driver's"


def test_without_a_cluster_one_is_started_here_and_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    pool = Ray(["cpu"], OutputDirs(tmp_path / "scratch", tmp_path / "checkpoints"))
    try:
        session, [node] = pool.session, ray.nodes()
        assert session
        assert session.exists()
        assert node["NodeManagerAddress"] == "127.0.0.1"
        pool.submit(Job((TRIAL.derive(epochs=1, evaluation="quick"),)))
        [finished] = [e for e in until_over(pool) if isinstance(e, Finished)]
        assert {p.stem for p in (finished.files / "figures").iterdir()} == set(figures.AT_A_GLANCE)
        assert finished.files == tmp_path / "scratch" / finished.spec
    finally:
        pool.close()
    assert not session.exists()
    assert not ray.is_initialized()
