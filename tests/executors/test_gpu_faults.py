"""Out of memory halves the lanes, a GPU that is lost ends its process only, and what a compiler could not do is said."""

from collections.abc import Callable
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest
import torch
from jobs import ALWAYS, SPEC, told

from harness import devices, executors
from harness.errors import MachineError
from harness.executors import Epoch, Failed, Finished, Job, Notice, OutputDirs, Processes
from harness.executors.jobs import Trained
from harness.executors.processes import _Lost, _Worker
from harness.executors.training import DeviceLostError
from harness.training.checkpoints import Checkpoints
from harness.training.cohort import Cohort

EIGHT = tuple(SPEC.derive(seed=s) for s in range(8))
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.fixture
def in_epochs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Cohort], Exception | None]], None]:
    """Make epochs fail with what a function of their cohort returns, unless it returns None."""
    run = Cohort.run_epoch

    def fail_by(fault_of: Callable[[Cohort], Exception | None]) -> None:
        def run_epoch(self: Cohort) -> dict:
            fault = fault_of(self)
            if fault is not None:
                raise fault
            return run(self)

        monkeypatch.setattr(Cohort, "run_epoch", run_epoch)

    return fail_by


def scores(events: list) -> dict[str, dict[str, float]]:
    return {
        e.spec: {k: v for k, v in e.result.metrics.items() if not k.startswith("perf/")} for e in events if isinstance(e, Finished)
    }


def epochs(events: list, spec: str) -> list[int]:
    return [e.epoch for e in events if isinstance(e, Epoch) and e.spec == spec]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_lanes_that_do_not_fit_are_halved_and_go_on_from_the_newest_epoch(
    after: int, in_epochs: Callable, dirs: OutputDirs
) -> None:
    undisturbed = told(Job(EIGHT), dirs)
    in_epochs(lambda cohort: FULL if len(cohort.lanes) > 2 and cohort.epoch >= after else None)
    events = told(Job(EIGHT), dirs)
    notices = [e.words for e in events if isinstance(e, Notice)]
    assert [n.partition(" (")[0] for n in notices] == [f"out of memory with {n} trials in a program" for n in (8, 4, 4)]
    assert [n.partition("): ")[2] for n in notices] == [f"going on with {n}" for n in ("4 and 4", "2 and 2", "2 and 2")]
    assert scores(events).keys() == {s.id for s in EIGHT}
    for spec in EIGHT:
        assert epochs(events, spec.id) == [1, 2, 3]  # none twice
        assert scores(events)[spec.id] == pytest.approx(scores(undisturbed)[spec.id], rel=1e-3)


def test_one_lane_that_does_not_fit_fails_with_what_was_held(in_epochs: Callable, dirs: OutputDirs) -> None:
    in_epochs(lambda cohort: FULL)
    events = told(Job(EIGHT[:2]), dirs)
    failed = [e for e in events if isinstance(e, Failed)]
    assert {e.spec for e in failed} == {s.id for s in EIGHT[:2]}
    assert all(e.why.startswith("out of memory with one trial alone (at most ") for e in failed)
    assert "MiB held): CUDA out of memory" in failed[0].why
    assert not any(e.final for e in failed)


def test_only_the_trial_that_does_not_fit_fails(in_epochs: Callable, dirs: OutputDirs) -> None:
    large, *others = EIGHT[:4]
    in_epochs(lambda cohort: FULL if large in cohort.lanes else None)
    events = told(Job(EIGHT[:4]), dirs)
    assert [e.spec for e in events if isinstance(e, Failed)] == [large.id]
    assert scores(events).keys() == {s.id for s in others}


def test_a_stop_between_halves_keeps_the_state_of_both(in_epochs: Callable, dirs: OutputDirs) -> None:
    in_epochs(lambda cohort: FULL if len(cohort.lanes) > 2 and cohort.epoch >= 2 else None)
    store = Checkpoints(dirs.checkpoints)
    with closing(executors.train(Job(EIGHT[:4]), "cpu", dirs.scratch, store)) as events:
        for event in events:
            if isinstance(event, Notice):
                break
    assert [store.newest(s) for s in EIGHT[:4]] == [2] * 4
    rest = told(Job(EIGHT[:4], start=2), dirs)
    assert scores(rest).keys() == {s.id for s in EIGHT[:4]}


def test_a_lost_gpu_fails_no_trial_and_says_how_to_go_on(in_epochs: Callable, dirs: OutputDirs) -> None:
    in_epochs(
        lambda cohort: torch.AcceleratorError("CUDA error: an illegal memory access was encountered") if cohort.epoch else None
    )
    seen: list = []
    store = Checkpoints(dirs.checkpoints)
    with pytest.raises(DeviceLostError, match=r"cpu has failed: AcceleratorError: CUDA error: an illegal memory access"):
        seen.extend(executors.train(Job(EIGHT[:2]), "cpu", dirs.scratch, store, saving=ALWAYS))
    assert not [e for e in seen if isinstance(e, Failed)]
    assert [store.newest(s) for s in EIGHT[:2]] == [1, 1]


def test_a_capture_that_recorded_nothing_is_a_fault_of_the_machine(in_epochs: Callable, dirs: OutputDirs) -> None:
    in_epochs(lambda cohort: devices.CaptureError("a launch of 32 captured steps took 0"))
    (failed,) = told(Job((SPEC,)), dirs)
    assert not failed.final


def test_a_job_that_only_trains_leaves_its_evaluation_to_another(dirs: OutputDirs) -> None:
    spec = SPEC.derive(evaluation="quick")
    whole = told(Job((spec,), draw_all_figures=frozenset()), dirs)
    other = OutputDirs(dirs.scratch / "other", dirs.checkpoints / "other")
    trained = told(Job((spec,), part="train"), other)
    assert isinstance(trained[-1], Trained)
    assert epochs(trained, spec.id) == [1, 2, 3]
    assert not (other.scratch / spec.id).exists()
    (finished,) = told(Job((spec,), start=spec.epochs, part="evaluate"), other)
    assert scores([finished]) == scores(whole)
    cost = {k for k in finished.result.metrics if k.startswith("perf/")}
    assert cost == {k for k in whole[-1].result.metrics if k.startswith("perf/")}
    assert (finished.files / "state_dict.pt").exists()


def test_a_compiler_that_failed_is_said_once_and_on_record(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: object, tensors: object) -> None:
        raise RuntimeError("no ptxas")

    monkeypatch.setattr("harness.training.step.compile_graph", broken)
    monkeypatch.setattr("harness.training.cohort._PROGRAMS", {})
    events = told(Job((SPEC,), execution="compiled"), dirs)
    assert [e.words for e in events if isinstance(e, Notice)] == ["not compiled, the compiler failed: RuntimeError: no ptxas"]
    assert events[-1].result.metrics["perf/compiled"] == 0.0


class Ended:
    """A process that has ended."""

    exitcode = 0

    def join(self, timeout: float | None = None) -> None:
        """It has ended already."""

    def kill(self) -> None:
        """It has ended already."""


class Pool(Processes):
    """Workers on two GPUs, of which only the pipes are there."""

    def __init__(self, dirs: OutputDirs) -> None:
        self.far_ends: dict[str, Connection] = {}
        super().__init__(["cuda:0", "cuda:1"], dirs, "code", most_evaluators=0)

    def _start(self, device: str) -> _Worker:
        near, self.far_ends[device] = Pipe()
        return _Worker(device, Ended(), near)

    def devices(self) -> list[str]:
        return [w.device for w in self.workers]

    def told(self, device: str, message: object) -> list:
        self.far_ends[device].send(message)
        return list(self.events())


def test_a_gpu_that_fails_twice_in_a_row_is_given_up_and_the_study_ends_with_the_last(dirs: OutputDirs) -> None:
    pool, job = Pool(dirs), Job(EIGHT[:2])
    for _ in range(2):
        pool.submit(job)  # to the first free worker, which is the replaced one
        failed = pool.told("cuda:0", _Lost("cuda:0 has failed"))
        assert {(e.spec, e.why, e.final) for e in failed} == {(s.id, "cuda:0 has failed", False) for s in job.specs}
    assert pool.devices() == ["cuda:1"]
    for _ in range(3):  # an epoch in between: it may have been the trial
        pool.submit(job)
        assert len(pool.told("cuda:1", Epoch(job.specs[0].id, 1, {}))) == 1
        assert len(pool.told("cuda:1", _Lost("cuda:1 has failed"))) == 2
    assert pool.devices() == ["cuda:1"]
    pool.submit(job)
    with pytest.raises(MachineError, match="no GPU is left: cuda:1 has failed\nstart it again: the same command goes on"):
        pool.told("cuda:1", _Lost("cuda:1 has failed"))


def test_a_gpu_that_is_gone_when_a_job_starts_fails_no_trial(dirs: OutputDirs) -> None:
    with pytest.raises(DeviceLostError, match="cuda:7 has failed: MachineError: DEVICE=cuda:7: no"):
        list(executors.train(Job(EIGHT[:2]), "cuda:7", dirs.scratch, Checkpoints(dirs.checkpoints)))
