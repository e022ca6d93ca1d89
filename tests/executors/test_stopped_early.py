"""A trial that stops early ends as finished, at once and with its best epoch, whatever comes in between."""

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from jobs import SPEC, told
from tiny_driver import weights_of

from harness import executors
from harness.executors import Epoch, Event, Finished, Job, OutputDirs, Pruned, parts
from harness.executors.jobs import Trained
from harness.training.checkpoints import Checkpoints

# Its best epoch is the fifth, after which the sixth is worse.
STOPS = SPEC.derive(epochs=12, learning_rate=1e-2, latent=8, patience=1, ema_decay=0.9)
BEST, LAST = 5, 6
GOES_ON = STOPS.derive(seed=1, patience=0, ema_decay=0.0)


def rows_of(events: list[Event]) -> dict[int, dict[str, float]]:
    return {e.epoch: untimed(e.row) for e in events if isinstance(e, Epoch) and e.spec == STOPS.id}


def untimed(values: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in values.items() if not key.startswith("perf/")}


def ends(events: list[Event]) -> Finished:
    (finished,) = (e for e in events if isinstance(e, Finished) and e.spec == STOPS.id)
    return finished


@cache
def undisturbed() -> list[Event]:
    folder = Path(mkdtemp())
    return told(Job((STOPS,)), OutputDirs(folder / "scratch", folder / "checkpoints"))


def same(events: list[Event]) -> bool:
    ours, theirs = ends(events), ends(undisturbed())
    assert untimed(ours.result.metrics) == untimed(theirs.result.metrics)
    return weights_of(ours) == weights_of(theirs)


def test_it_finishes_with_its_best_epoch() -> None:
    events = undisturbed()
    assert list(rows_of(events)) == list(range(1, LAST + 1))
    assert rows_of(events)[LAST]["train/best_epoch"] == BEST
    assert isinstance(events[-1], Finished)
    files = {path.name for path in ends(events).files.iterdir()}
    assert files == {"execution.json", "state_dict.pt", "averaged_state_dict.pt"}
    metrics = ends(events).result.metrics
    assert {key for key in metrics if key.startswith("ema/")} == {
        f"ema/validation/{name}" for name in ("elbo", "squared_error", "common_bits")
    }
    assert abs(metrics["ema/validation/squared_error"] - metrics["validation/squared_error"]) > 1e-3


def test_it_is_evaluated_at_once_and_others_go_on(dirs: OutputDirs) -> None:
    events = told(Job((STOPS, GOES_ON)), dirs)
    order = [(e.spec, e.epoch if isinstance(e, Epoch) else "finished") for e in events]
    assert order.index((STOPS.id, "finished")) < order.index((GOES_ON.id, LAST + 1))
    assert order[-2:] == [(GOES_ON.id, 12), (GOES_ON.id, "finished")]
    assert not (dirs.scratch / GOES_ON.id / "averaged_state_dict.pt").exists()


@pytest.mark.parametrize("after", [2, BEST, LAST])
def test_closed_after_an_epoch_it_goes_on_to_the_same_result(after: int, dirs: OutputDirs) -> None:
    """Also within its patience, and between its last epoch and its evaluation."""
    store = Checkpoints(dirs.checkpoints)
    with closing(executors.train(Job((STOPS,)), "cpu", dirs.scratch, store)) as events:
        for event in events:
            if isinstance(event, Epoch) and event.epoch == after:
                break
    assert store.newest(STOPS) == after
    again = told(Job((STOPS,), start=after), dirs)
    assert rows_of(again) == rows_of(undisturbed())
    assert same(again)


def test_one_process_trains_it_and_another_evaluates_it(dirs: OutputDirs) -> None:
    """From a checkpoint that counts as that of the last epoch; a start that finds it has nothing to train."""
    events = told(Job((STOPS,), part="train"), dirs)
    assert events[-1] == Trained(STOPS.id)
    assert Checkpoints(dirs.checkpoints).newest(STOPS) == STOPS.epochs
    assert same(told(Job((STOPS,), start=STOPS.epochs, part="evaluate"), dirs))
    again = told(Job((STOPS,), start=STOPS.epochs), dirs)
    assert rows_of(again) == rows_of(undisturbed())
    assert same(again)


def test_it_may_be_pruned_instead(dirs: OutputDirs) -> None:
    pruned: set[str] = set()
    for event in executors.train(Job((STOPS,)), "cpu", dirs.scratch, Checkpoints(dirs.checkpoints), pruned):
        if isinstance(event, Epoch) and event.epoch == LAST:
            pruned.add(STOPS.id)
    assert event == Pruned(STOPS.id)


def test_memory_that_runs_out_in_its_evaluation_costs_nothing(dirs: OutputDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state goes with those that still train, though it has nothing to train on."""
    evaluate, calls = parts.evaluate, []

    def short(*given: Any, **options: Any) -> dict[str, float]:
        calls.append(given)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(*given, **options)

    monkeypatch.setattr(parts, "evaluate", short)
    events = told(Job((STOPS, GOES_ON)), dirs)
    assert [type(e).__name__ for e in events if not isinstance(e, Epoch)] == ["Notice", "Finished", "Finished"]
    assert list(rows_of(events)) == list(range(1, LAST + 1))
    assert [e.epoch for e in events if isinstance(e, Epoch) and e.spec == GOES_ON.id] == list(range(1, 13))
