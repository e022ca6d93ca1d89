"""Whatever stops a job, it goes on to the same result; who is dropped stops; and nothing is left running."""

import hashlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import devices, executors, figures, metrics, provenance
from harness.errors import MachineError, UserError
from harness.executors import (
    Epoch,
    Event,
    Executor,
    Failed,
    Finished,
    InProcess,
    Job,
    OutputDirs,
    Processes,
    Pruned,
    processes,
    training,
)
from harness.executors.interrupts import INTERRUPTS, Stop
from harness.spec import TrialSpec
from harness.training.checkpoints import Checkpoints

# 1197 images: an epoch is 38 steps, in two chunks.
SPEC = TrialSpec(dataset="digits", batch_size=32, epochs=3, learning_rate=1e-3, evaluation="validation")
STEPS = 38
# An epoch takes about half a second, so that a signal comes in the middle of one.
LONG = SPEC.derive(batch_size=4, epochs=1000)


@pytest.fixture
def places(tmp_path: Path) -> OutputDirs:
    return OutputDirs(tmp_path / "scratch", tmp_path / "checkpoints")


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint at every border."""
    monkeypatch.setattr(training, "EVERY_S", 0.0)
    monkeypatch.setattr(training, "SHARE", float("inf"))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(subject: figures.Subject, folder: Path, names: Collection[str]) -> Iterator[Path]:
        return iter(())

    monkeypatch.setattr(training.figures, "draw", draw)


@pytest.fixture
def fixed_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As outside a repository, so that whoever edits this project while its tests run does not disturb them."""
    remembered = provenance.commit, provenance.code

    def forget() -> None:
        for fact in remembered:
            fact.cache_clear()

    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        forget()
        yield
    forget()


def told(job: Job, places: OutputDirs, pruned: Collection[str] = ()) -> list[Event]:
    return list(executors.train(job, "cpu", places.scratch, Checkpoints(places.checkpoints), pruned))


def kept(places: OutputDirs, spec: TrialSpec) -> str:
    """SHA-256 of the weights and moments in a trial's last checkpoint."""
    border = Checkpoints(places.checkpoints).load(spec, spec.epochs)["state"]
    tensors = [t for group in ("parameters", "mean", "square") for t in border[group].values()]
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def shown(events: list[Event], trial: TrialSpec) -> dict[int, dict[str, float]]:
    """A trial's rows by epoch, without times."""
    mine = [e for e in events if isinstance(e, Epoch) and e.spec == trial.id]
    assert [e.epoch for e in mine] == list(range(1, len(mine) + 1))
    return {e.epoch: {n: v for n, v in e.row.items() if not n.startswith("perf/")} for e in mine}


def scores(events: list[Event], trial: TrialSpec) -> dict[str, float]:
    (result,) = (e.result for e in events if isinstance(e, Finished) and e.spec == trial.id)
    return {n: v for n, v in result.metrics.items() if not n.startswith("perf/")}


# -------------------------------------------------------------------------------- going on


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Stop` is raised when this many steps have been taken."""
    mark, taken = devices.StepTimer.mark, [0]

    def counting(self: devices.StepTimer, steps_now: int = 1) -> None:
        mark(self, steps_now)
        taken[0] += steps_now
        if taken[0] >= steps:
            raise Stop

    monkeypatch.setattr(devices.StepTimer, "mark", counting)


COMPILED = pytest.param(True, marks=pytest.mark.slow, id="compiled")


@pytest.mark.parametrize("compiled", [pytest.param(False, id="eager"), COMPILED])
@pytest.mark.parametrize("crew", [1, 2])
def test_stopped_anywhere_is_undisturbed(
    crew: int, compiled: bool, places: OutputDirs, always_saved: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 1, in an epoch, at its last step, in the next, and at the very last: equal SHA-256 over weights and moments."""
    if compiled and devices.compiler(torch.device("cpu")) is None:
        pytest.skip("no C++ compiler here")
    specs = tuple(SPEC.derive(seed=i, kl_warmup=2.0) for i in range(crew))
    whole = told(Job(specs, compiled=compiled), places)
    for steps in (1, 20, STEPS, STEPS + 5, 3 * STEPS):
        other = OutputDirs(tmp_path / f"{steps}", tmp_path / f"checkpoints-{steps}")
        with monkeypatch.context() as patch:
            stop_after(steps, patch)
            with pytest.raises(Stop):
                told(Job(specs, compiled=compiled), other)
        (start,) = {Checkpoints(other.checkpoints).newest(s) for s in specs}
        assert start == (steps - 1) // STEPS
        again = told(Job(specs, start=start, compiled=compiled), other)
        for spec in specs:
            assert kept(other, spec) == kept(places, spec)
            assert shown(again, spec) == shown(whole, spec)
            assert scores(again, spec) == scores(whole, spec)


@pytest.mark.parametrize("after", [1, 3])
def test_closed_at_a_border_it_goes_on_from_there(after: int, places: OutputDirs) -> None:
    """Also where no checkpoint was due, and where only the evaluation was left."""
    store = Checkpoints(places.checkpoints)
    with closing(executors.train(Job((SPEC,)), "cpu", places.scratch, store)) as events:
        for event in events:
            if isinstance(event, Epoch) and event.epoch == after:
                break
        assert store.newest(SPEC) == 0
    assert store.newest(SPEC) == after
    again = told(Job((SPEC,), start=after), places)
    assert shown(again, SPEC) == shown(told(Job((SPEC,)), places), SPEC)


def test_the_history_and_the_time_go_on_too(places: OutputDirs) -> None:
    store = Checkpoints(places.checkpoints)
    with closing(executors.train(Job((SPEC,)), "cpu", places.scratch, store)) as events:
        rows = [next(events).row for _ in range(2)]
    before = store.load(SPEC, 2)
    store.save(SPEC, 2, before | {"trained_s": 1000.0})
    again = told(Job((SPEC,), start=2), places)
    assert [e.row for e in again if isinstance(e, Epoch)][:2] == rows
    (finished,) = (e for e in again if isinstance(e, Finished))
    assert finished.result.metrics["perf/train_s"] > 1000
    all_rows = [e.row for e in again if isinstance(e, Epoch)]
    assert finished.result.metrics["perf/throughput"] == statistics.median(r["perf/images_per_s"] for r in all_rows)
    assert finished.result.metrics["perf/step_ms"] == statistics.median(r["perf/step_ms_p50"] for r in all_rows)


def test_a_checkpoint_is_due_after_a_while(places: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    store = Checkpoints(places.checkpoints)
    monkeypatch.setattr(Checkpoints, "save", lambda self, spec, epoch, state: saved.append(epoch))
    for event in executors.train(Job((SPEC.derive(epochs=9),)), "cpu", places.scratch, store):
        if isinstance(event, Epoch):
            now[0] += 2.0
    assert saved == [3, 6, 9]


def test_a_checkpoint_that_cannot_be_read_is_tried_again(places: OutputDirs) -> None:
    (failed,) = told(Job((SPEC,), start=2), places)
    assert isinstance(failed, Failed)
    assert not failed.final
    assert "CheckpointError" in failed.why


def test_a_full_disk_is_tried_again_and_a_fault_of_the_trial_is_not(
    places: OutputDirs, always_saved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fault, final in ((OSError(28, "No space left on device"), False), (ZeroDivisionError("no"), True)):

        def save(*given: object, fault: Exception = fault) -> None:
            raise fault

        monkeypatch.setattr(Checkpoints, "save", save)
        *_, failed = told(Job((SPEC,)), places)
        assert isinstance(failed, Failed)
        assert failed.final is final
        assert str(fault) in failed.why


# -------------------------------------------------------------------------------- results


def test_a_search_sees_nothing_of_the_test_set(places: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError("this looks at the test set")

    monkeypatch.setattr(metrics, "evaluate", never)
    monkeypatch.setattr(training.figures, "draw", never)
    *_, finished = told(Job((SPEC,), draw_all_figures=frozenset([SPEC.id])), places)
    assert isinstance(finished, Finished)
    assert [p.name for p in finished.files.iterdir()] == ["state_dict.pt"]
    assert not any(name.startswith("test/") for name in finished.result.metrics)
    assert {"validation/squared_error", "validation/common_bits"} <= set(finished.result.metrics)


@pytest.mark.parametrize("depth", ["validation", "quick"])
def test_final_scores_have_names_of_their_own(depth: str, places: OutputDirs, no_pictures: None) -> None:
    """For they are on record at the last epoch, as its row is."""
    spec = SPEC.derive(evaluation=depth, epochs=2)
    *events, finished = told(Job((spec,)), places)
    assert isinstance(finished, Finished)
    names = {name for e in events if isinstance(e, Epoch) for name in e.row}
    assert not names & set(finished.result.metrics)
    wanted = {"perf/throughput", "perf/step_ms", "perf/train_s", "model/parameters", "diagnostics/late_gain"}
    assert set(finished.result.metrics) >= wanted


def test_how_deep_a_trial_is_evaluated_does_not_change_it(places: OutputDirs, always_saved: None, no_pictures: None) -> None:
    deep = SPEC.derive(evaluation="quick")
    for spec in (SPEC, deep):
        told(Job((spec,)), places)
    assert kept(places, SPEC) == kept(places, deep)


def test_throughput_is_that_of_one_trial(places: OutputDirs) -> None:
    """Of the whole program's, by the lanes that it had at that time."""
    pair = (SPEC, SPEC.derive(seed=1))
    pruned: set[str] = set()
    speeds: list[float] = []
    for event in executors.train(Job(pair), "cpu", places.scratch, Checkpoints(places.checkpoints), pruned):
        if isinstance(event, Epoch) and event.spec == SPEC.id:
            speeds.append(event.row["perf/images_per_s"] / (2 if event.epoch == 1 else 1))
            pruned.add(pair[1].id)
    assert isinstance(event, Finished)
    assert event.result.metrics["perf/throughput"] == pytest.approx(statistics.median(speeds))


def test_a_trial_that_diverges_fails_alone(places: OutputDirs) -> None:
    mad = SPEC.derive(likelihood="gaussian_per_pixel", learning_rate=1e6)
    calm = mad.derive(learning_rate=1e-3)
    events = told(Job((mad, calm)), places)
    (failed,) = (e for e in events if isinstance(e, Failed))
    assert (failed.spec, failed.final) == (mad.id, True)
    assert "loss not finite at step" in failed.why
    assert isinstance(events[-1], Finished)
    assert set(shown(events, calm)) == {1, 2, 3}


# -------------------------------------------------------------------------------- dropping, in all of them

KINDS: dict[str, Callable[[OutputDirs], Executor]] = {
    "local": lambda places: InProcess(places),
    "processes": lambda places: Processes(["cpu"], places),
}


@pytest.mark.parametrize("kind", ["local", pytest.param("processes", marks=pytest.mark.slow)])
def test_who_is_dropped_takes_no_step_more(kind: str, places: OutputDirs, fixed_code: None) -> None:
    pair = (SPEC, SPEC.derive(seed=1))
    with closing(KINDS[kind](places)) as pool:
        pool.submit(Job(pair, waits_for_pruning=True))
        assert pool.free() == 0
        events: list[Event] = []
        while not pool.free():
            for event in pool.events():
                events.append(event)
                if event == Epoch(pair[1].id, 2, getattr(event, "row", {})):
                    pool.prune([pair[1].id])
        assert set(shown(events, pair[1])) == {1, 2}
        assert events.count(Pruned(pair[1].id)) == 1
        assert set(shown(events, SPEC)) == {1, 2, 3}
        assert [type(e) for e in events if not isinstance(e, Epoch)] == [Pruned, Finished]

        pool.submit(Job((pair[1],)))  # the same trial again, after it was dropped
        assert isinstance(end_of(pool), Finished)
        pool.submit(Job((LONG,)))  # a job that does not wait hears of it a little later
        while not pool.free():
            for event in pool.events():
                pool.prune([LONG.id])
                last = event
        assert last == Pruned(LONG.id)


# -------------------------------------------------------------------------------- worker processes


@pytest.fixture
def pool(places: OutputDirs, fixed_code: None) -> Iterator[Processes]:
    with closing(Processes(["cpu"], places)) as found:
        yield found


def until_epoch(pool: Processes, epoch: int) -> list[Epoch]:
    found: list[Epoch] = []
    while not found or found[-1].epoch < epoch:
        for event in pool.events():
            assert isinstance(event, Epoch)
            found.append(event)
    return found


def end_of(pool: Executor) -> Event:
    while not pool.free():
        for event in pool.events():
            last = event
    return last


@pytest.mark.slow
def test_closing_in_an_epoch_keeps_the_border_before(pool: Processes, places: OutputDirs) -> None:
    pool.submit(Job((LONG,)))
    (process,) = (w.process for w in pool.workers)
    seen = until_epoch(pool, 2)
    time.sleep(0.2)
    started = time.monotonic()
    pool.close()
    assert time.monotonic() - started < 5
    assert process.exitcode == -signal.SIGTERM  # by itself: it was not killed
    store = Checkpoints(places.checkpoints)
    found = store.newest(LONG)
    assert found >= 2
    rows = store.load(LONG, found)["history"]
    assert len(rows) == found
    assert rows[:2] == [e.row for e in seen]


@pytest.mark.slow
def test_a_worker_that_ends_is_replaced_and_its_trial_goes_on(pool: Processes, places: OutputDirs) -> None:
    pool.submit(Job((LONG,)))
    until_epoch(pool, 1)
    os.kill(pool.workers[0].process.pid or 0, signal.SIGTERM)  # by the system, say
    assert end_of(pool) == Failed(LONG.id, "its worker process ended (killed by SIGTERM)", final=False)
    start = Checkpoints(places.checkpoints).newest(LONG)
    assert start >= 1
    pool.submit(Job((LONG,), start=start))
    os.kill(pool.workers[0].process.pid or 0, signal.SIGINT)  # Ctrl-C, as early as can be: the driver's business
    assert [e.epoch for e in until_epoch(pool, start + 1)] == list(range(1, start + 2))
    os.kill(pool.workers[0].process.pid or 0, signal.SIGKILL)
    assert end_of(pool) == Failed(LONG.id, "its worker process ended (killed by SIGKILL)", final=False)


def test_a_worker_of_other_code_trains_nothing(places: OutputDirs, fixed_code: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.provenance, "code", lambda: "older")
    with closing(Processes(["cpu"], places)) as pool:
        pool.submit(Job((SPEC,)))
        with pytest.raises(MachineError, match=r"older, now unknown\nstart it again"):
            end_of(pool)


DRIVER = """
import sys
from pathlib import Path
from harness.executors import Job, Places, Processes
from harness.spec import TrialSpec

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    pool = Processes(["cpu", "cpu"], Places(folder / "scratch", folder / "checkpoints"))
    pool.submit(Job((TrialSpec(dataset="digits", batch_size=1, epochs=200, evaluation="validation"),)))
    next(pool.events())
    print(*(w.process.pid for w in pool.workers), flush=True)
    while True:
        list(pool.events())
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    """At once, in training or idle: a new driver's worker may train the same trial."""
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
    finally:
        driver.kill()
        driver.wait()
    until = time.monotonic() + 1
    while any(map(alive, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, workers))


# -------------------------------------------------------------------------------- the brake


@pytest.fixture
def brake() -> Iterator[Any]:
    """This process's, as in a worker; undone after the test."""
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    INTERRUPTS.listen()
    yield INTERRUPTS
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)
    INTERRUPTS.asked = False


def test_a_brake_waits_for_what_must_be_finished(brake: Any) -> None:
    done = []
    os.kill(os.getpid(), signal.SIGTERM)
    done.append("a file")
    with pytest.raises(Stop), brake.cutting_short():
        done.append("never")
    assert done == ["a file"]


def test_a_brake_cuts_short_at_once(brake: Any) -> None:
    def work() -> None:
        with brake.cutting_short():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    started = time.monotonic()
    with pytest.raises(Stop):
        work()
    assert time.monotonic() - started < 5
    assert not brake.loose


def test_a_brake_that_is_lost_in_a_destructor_is_pulled_again(brake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.executors.interrupts.AGAIN_S", 0.05)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)

    class Dying:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def work() -> None:
        with brake.cutting_short():
            Dying()
            assert brake.asked
            time.sleep(10)

    started = time.monotonic()
    with pytest.raises(Stop):
        work()
    assert time.monotonic() - started < 5


def test_a_checkpoint_in_writing_is_finished(
    brake: Any, places: OutputDirs, always_saved: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def asked_meanwhile(self: Checkpoints, spec: TrialSpec, epoch: int, state: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(self, spec, epoch, state)

    monkeypatch.setattr(Checkpoints, "save", asked_meanwhile)
    with pytest.raises(Stop):
        told(Job((SPEC,)), places)
    assert Checkpoints(places.checkpoints).newest(SPEC) == 1


# -------------------------------------------------------------------------------- by name


def test_executors_by_name(places: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(executors.make("local", ["cpu"], places), InProcess)
    with closing(executors.make("processes", ["cpu"], places)) as found:
        assert isinstance(found, Processes)
        assert found.free() == 1
    with pytest.raises(UserError, match="unknown executor 'slrum'; did you mean 'slurm'"):
        executors.make("slrum", ["cpu"], places)
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"harness.executors.on_{name}", raising=False)
        with pytest.raises(MachineError, match=rf"(?s){package}.*not installed.*\[{name}\]"):
            executors.make(name, ["cpu"], places)
