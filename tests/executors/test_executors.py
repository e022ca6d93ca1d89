"""Whatever stops a job, it goes on to the same result; who is dropped stops."""

import hashlib
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import own_file
import pytest
import torch
from jobs import ALWAYS, LONG, SPEC, end_of, told

from harness import devices, executors, figures, metrics
from harness.errors import MachineError, UserError
from harness.executors import (
    Epoch,
    Event,
    Executor,
    Failed,
    Finished,
    InProcess,
    Job,
    Notice,
    OutputDirs,
    Processes,
    Pruned,
    parts,
)
from harness.executors.interrupts import Stop
from harness.kernels import library
from harness.scores import COST, SCORES, diverged, row_of
from harness.spec import EXECUTION, TrialSpec
from harness.training.checkpoints import Checkpoints
from harness.training.step import Execution

STEPS = 38  # of an epoch


def kept(dirs: OutputDirs, spec: TrialSpec) -> str:
    """SHA-256 of the weights and moments in a trial's last checkpoint."""
    state = Checkpoints(dirs.checkpoints).load(spec, spec.epochs)["state"]
    tensors = [t for group in ("parameters", "mean", "square") for t in state[group].values()]
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


COMPILED = pytest.param("compiled", marks=pytest.mark.slow)


@pytest.mark.parametrize("execution", ["eager", COMPILED])
@pytest.mark.parametrize("crew", [1, 2])
def test_stopped_anywhere_is_undisturbed(
    crew: int, execution: Execution, dirs: OutputDirs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At step 1, in an epoch, at its last step, in the next, and at the very last: equal SHA-256 over weights and moments."""
    if execution == "compiled" and devices.compiler(torch.device("cpu")) is None:
        pytest.skip("no C++ compiler here")
    specs = tuple(SPEC.derive(seed=i, kl_warmup=2.0) for i in range(crew))
    whole = told(Job(specs, execution=execution), dirs, ALWAYS)
    for steps in (1, 20, STEPS, STEPS + 5, 3 * STEPS):
        other = OutputDirs(tmp_path / f"{steps}", tmp_path / f"checkpoints-{steps}")
        with monkeypatch.context() as patch:
            stop_after(steps, patch)
            with pytest.raises(Stop):
                told(Job(specs, execution=execution), other, ALWAYS)
        (start,) = {Checkpoints(other.checkpoints).newest(s) for s in specs}
        assert start == (steps - 1) // STEPS
        again = told(Job(specs, start=start, execution=execution), other, ALWAYS)
        for spec in specs:
            assert kept(other, spec) == kept(dirs, spec)
            assert shown(again, spec) == shown(whole, spec)
            assert scores(again, spec) == scores(whole, spec)


def test_a_machine_without_the_driver_s_kernels_trains_by_operations_and_says_so(
    dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "_load", lambda: library._Loaded(None, "there is no C++ compiler here"))
    events = told(Job((SPEC,), execution="manual"), dirs)
    (notice,) = (e for e in events if isinstance(e, Notice))
    assert "no C++ compiler here" in notice.words
    facts = json.loads((dirs.scratch / SPEC.id / EXECUTION).read_text(encoding="utf-8"))
    assert facts["stints"][0]["execution"] == "eager"
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("after", [1, 3])
def test_closed_after_an_epoch_it_goes_on_from_there(after: int, dirs: OutputDirs) -> None:
    """Also where no checkpoint was due, and where only the evaluation was left."""
    store = Checkpoints(dirs.checkpoints)
    with closing(executors.train(Job((SPEC,)), "cpu", dirs.scratch, store)) as events:
        for event in events:
            if isinstance(event, Epoch) and event.epoch == after:
                break
        assert store.newest(SPEC) == 0
    assert store.newest(SPEC) == after
    again = told(Job((SPEC,), start=after), dirs)
    assert shown(again, SPEC) == shown(told(Job((SPEC,)), dirs), SPEC)


def test_in_the_driver_s_process_one_thread_computes_too(dirs: OutputDirs) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with closing(InProcess(dirs)):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_history_and_the_time_go_on_too(dirs: OutputDirs) -> None:
    store = Checkpoints(dirs.checkpoints)
    with closing(executors.train(Job((SPEC,)), "cpu", dirs.scratch, store)) as events:
        rows = [next(events).row for _ in range(2)]
    before = store.load(SPEC, 2)
    store.save(SPEC, 2, before | {"trained_s": 1000.0})
    again = told(Job((SPEC,), start=2), dirs)
    assert [e.row for e in again if isinstance(e, Epoch)][:2] == rows
    (finished,) = (e for e in again if isinstance(e, Finished))
    assert finished.result.metrics["perf/train_s"] > 1000
    all_rows = [e.row for e in again if isinstance(e, Epoch)]
    assert finished.result.metrics["perf/throughput"] == statistics.median(r["perf/images_per_s"] for r in all_rows)
    assert finished.result.metrics["perf/step_ms"] == statistics.median(r["perf/step_ms_p50"] for r in all_rows)


def test_a_checkpoint_is_due_after_a_while(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    now = [0.0]
    monkeypatch.setattr(parts.time, "monotonic", lambda: now[0])

    class Counted(Checkpoints):
        def save(self, spec: TrialSpec, epoch: int, state: Mapping[str, Any]) -> None:
            saved.append(epoch)

    for event in executors.train(Job((SPEC.derive(epochs=9),)), "cpu", dirs.scratch, Counted(dirs.checkpoints)):
        if isinstance(event, Epoch):
            now[0] += 2.0
    assert saved == [3, 6, 9]


def test_a_checkpoint_that_cannot_be_read_is_tried_again(dirs: OutputDirs) -> None:
    (failed,) = told(Job((SPEC,), start=2), dirs)
    assert isinstance(failed, Failed)
    assert not failed.final
    assert "CheckpointError" in failed.why


def test_a_full_disk_is_tried_again_and_a_fault_of_the_trial_is_not(dirs: OutputDirs) -> None:
    for fault, final in ((OSError(28, "No space left on device"), False), (ZeroDivisionError("no"), True)):

        class Full(Checkpoints):
            def save(self, spec: TrialSpec, epoch: int, state: Mapping[str, Any], fault: Exception = fault) -> None:
                raise fault

        *_, failed = executors.train(Job((SPEC,)), "cpu", dirs.scratch, Full(dirs.checkpoints), saving=ALWAYS)
        assert isinstance(failed, Failed)
        assert failed.final is final
        assert str(fault) in failed.why


# -------------------------------------------------------------------------------- results


def test_a_search_sees_nothing_of_the_test_set(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given: object) -> None:
        raise AssertionError("this looks at the test set")

    monkeypatch.setattr(metrics, "evaluate", never)
    monkeypatch.setattr(figures, "draw", never)
    *_, finished = told(Job((SPEC,), draw_all_figures=frozenset([SPEC.id])), dirs)
    assert isinstance(finished, Finished)
    assert sorted(p.name for p in finished.files.iterdir()) == ["execution.json", "state_dict.pt"]
    assert not any(name.startswith("test/") for name in finished.result.metrics)
    assert {"validation/squared_error", "validation/common_bits"} <= set(finished.result.metrics)


@pytest.mark.parametrize("depth", ["validation", "quick"])
def test_final_scores_have_names_of_their_own(depth: str, dirs: OutputDirs) -> None:
    """For they are on record at the last epoch, as its row is."""
    spec = SPEC.derive(evaluation=depth, epochs=2)
    *events, finished = told(Job((spec,)), dirs)
    assert isinstance(finished, Finished)
    names = {name for e in events if isinstance(e, Epoch) for name in e.row}
    assert not names & set(finished.result.metrics)
    wanted = {"perf/throughput", "perf/step_ms", "perf/train_s", "model/parameters", "diagnostics/late_gain"}
    assert set(finished.result.metrics) >= wanted
    assert all(row_of(name, SCORES) for name in (*names, *finished.result.metrics))
    assert names | set(finished.result.metrics) >= {key for key, row in SCORES.items() if row.curve or row.group == COST}


def test_how_deep_a_trial_is_evaluated_does_not_change_it(dirs: OutputDirs) -> None:
    deep = SPEC.derive(evaluation="quick")
    for spec in (SPEC, deep):
        told(Job((spec,)), dirs, ALWAYS)
    assert kept(dirs, SPEC) == kept(dirs, deep)


def test_throughput_is_that_of_one_trial(dirs: OutputDirs) -> None:
    """Of the whole program's, by the lanes that it had at that time."""
    pair = (SPEC, SPEC.derive(seed=1))
    pruned: set[str] = set()
    speeds: list[float] = []
    for event in executors.train(Job(pair), "cpu", dirs.scratch, Checkpoints(dirs.checkpoints), pruned):
        if isinstance(event, Epoch) and event.spec == SPEC.id:
            speeds.append(event.row["perf/images_per_s"] / (2 if event.epoch == 1 else 1))
            pruned.add(pair[1].id)
    assert isinstance(event, Finished)
    assert event.result.metrics["perf/throughput"] == pytest.approx(statistics.median(speeds))


def test_a_trial_that_diverges_fails_alone(dirs: OutputDirs) -> None:
    mad = SPEC.derive(likelihood="gaussian_per_pixel", learning_rate=1e6)
    calm = mad.derive(learning_rate=1e-3)
    events = told(Job((mad, calm)), dirs)
    (failed,) = (e for e in events if isinstance(e, Failed))
    assert (failed.spec, failed.final) == (mad.id, True)
    assert "loss not finite at step" in failed.why
    assert isinstance(events[-1], Finished)
    assert set(shown(events, calm)) == {1, 2, 3}


@pytest.mark.parametrize("fit_on", ["train", "train+validation"])
def test_a_trial_whose_last_update_ruins_it_fails_alone_and_leaves_no_number(fit_on: str, dirs: OutputDirs) -> None:
    """Its loss was finite; without validation images only its final scores tell."""
    images = {"train": 1197, "train+validation": 1497}[fit_on]
    base = TrialSpec(dataset="digits", network="mlp", hidden=(16,), epochs=1, batch_size=images, fit_on=fit_on)
    ruined, calm = base.derive(learning_rate=1e10), base.derive(learning_rate=1e-3)
    events = told(Job((ruined, calm)), dirs)
    (failed,) = (e for e in events if isinstance(e, Failed))
    assert (failed.spec, failed.final) == (ruined.id, True)
    assert re.match(r"not finite after (epoch 1|the last epoch \(1\)): (elbo/validation|test/elbo) = ", failed.why)
    assert "likely cause: learning_rate=1e+10 is too high" in failed.why
    (finished,) = (e for e in events if isinstance(e, Finished))
    assert finished.spec == calm.id
    rows = [e.row for e in events if isinstance(e, Epoch)]
    assert all(math.isfinite(v) for numbers in (*rows, finished.result.metrics) for v in numbers.values())


def test_weights_that_are_not_finite_fail_a_trial_though_its_scores_are(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.diagnostics, "nan_count", lambda vae: 3)
    failed = told(Job((SPEC.derive(epochs=1),)), dirs)[-1]
    assert isinstance(failed, Failed)
    assert re.match(r"not finite after the last epoch \(1\): 3 of \d+ weights; likely cause", failed.why)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.797e308])
def test_no_number_leaves_a_worker_that_is_none(bad: float, dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever score, also one that nobody looks at before."""
    monkeypatch.setattr(parts.devices, "peak_memory_mib", lambda device: bad)
    failed = told(Job((SPEC.derive(epochs=1),)), dirs)[-1]
    assert isinstance(failed, Failed)
    assert f"perf/peak_memory_mib = {bad:g}" in failed.why


def test_a_score_of_the_user_s_own_that_is_no_number_fails_its_trial_alone(
    dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, evaluate = (SPEC.derive(epochs=1), SPEC.derive(epochs=1, seed=1)), parts.evaluate

    def measured(subject: Any, files: Path, **options: Any) -> dict[str, float]:
        if subject.spec.seed == 0:
            raise UserError("score mine.py:SHARPNESS: 'validation/sharpness' must be a finite number, got nan")
        return evaluate(subject, files, **options)

    monkeypatch.setattr(parts, "evaluate", measured)
    events = told(Job(pair), dirs)
    (failed,) = (e for e in events if isinstance(e, Failed))
    assert (failed.spec, failed.final) == (pair[0].id, True)
    assert "must be a finite number, got nan" in failed.why
    assert [e.spec for e in events if isinstance(e, Finished)] == [pair[1].id]


DIVERGED = {"network": "mlp", "hidden": (64,), "batch_size": 128, "epochs": 2, "learning_rate": 0.1}


def test_a_trial_that_diverged_shows_it_and_one_that_hardly_trained_does_not(dirs: OutputDirs) -> None:
    base = TrialSpec(dataset="digits", evaluation="validation", **DIVERGED)  # type: ignore[arg-type]
    timid = base.derive(learning_rate=1e-7, epochs=2, seed=1)
    events = told(Job((base, timid)), dirs)
    assert "worse than an untrained model" in diverged(scores(events, base))
    assert diverged(scores(events, timid)) == ""
    assert scores(events, timid)["diagnostics/lost_elbo"] < 0.05


# -------------------------------------------------------------------------------- dropping, in all of them

KINDS: dict[str, Callable[[OutputDirs], Executor]] = {
    "local": lambda dirs: InProcess(dirs),
    "processes": lambda dirs: Processes(["cpu"], dirs),
}


@pytest.mark.parametrize("kind", ["local", pytest.param("processes", marks=pytest.mark.slow)])
def test_who_is_dropped_takes_no_step_more(kind: str, dirs: OutputDirs, fixed_code: None) -> None:
    pair = (SPEC, SPEC.derive(seed=1))
    with closing(KINDS[kind](dirs)) as pool:
        pool.submit(Job(pair, waits_for_pruning=True))
        assert pool.free() == 0
        events: list[Event] = []
        while not pool.free():
            for event in pool.events():
                events.append(event)
                if isinstance(event, Epoch) and (event.spec, event.epoch) == (pair[1].id, 2):
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


# -------------------------------------------------------------------------------- by name


def test_executors_by_name(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(executors.make("local", ["cpu"], dirs), InProcess)
    with closing(executors.make("processes", ["cpu"], dirs)) as found:
        assert isinstance(found, Processes)
        assert found.free() == 1
    with pytest.raises(UserError, match="unknown executor 'slrum'; did you mean 'slurm'"):
        executors.make("slrum", ["cpu"], dirs)
    for name, package in (("ray", "ray"), ("slurm", "submitit")):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, f"harness.executors.{name}.executor", raising=False)
        with pytest.raises(MachineError, match=rf"(?s){package}.*not installed.*\[{name}\]"):
            executors.make(name, ["cpu"], dirs)


@pytest.mark.slow
def test_code_of_the_users_own_trains_in_worker_processes_as_here(dirs: OutputDirs, tmp_path: Path, fixed_code: None) -> None:
    spec = own_file.spec_of(tmp_path / "gone")
    here = told(Job((spec,)), dirs)
    pool = Processes(["cpu"], dirs)
    with closing(pool):
        pool.submit(Job((spec,)))
        there = end_of(pool)
    assert isinstance(there, Finished)
    ours = scores(here, spec)
    assert scores([there], spec) == pytest.approx(ours, rel=1e-5)
    assert ours["test/contrast"] > 0
