"""Pictures of training change nothing of it, and are the same after a stop and beside other trials."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from jobs import ALWAYS, SPEC, told
from tiny_driver import weights_of

from harness import executors
from harness.executors import Event, Finished, Job, OutputDirs
from harness.executors.jobs import Epoch
from harness.training.checkpoints import Checkpoints

PICTURED = SPEC.derive(epochs=4, evaluation="quick")
BESIDE = PICTURED.derive(seed=1)


def pictures_of(event: Finished) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (event.files / "images").iterdir()} if (event.files / "images").is_dir() else {}


def finished(events: list[Event], trial: str = PICTURED.id) -> Finished:
    (event,) = (e for e in events if isinstance(e, Finished) and e.spec == trial)
    return event


def dirs(folder: Path) -> OutputDirs:
    return OutputDirs(folder / "scratch", folder / "checkpoints")


def scores(event: Finished) -> dict[str, float]:
    return {key: value for key, value in event.result.metrics.items() if not key.startswith("perf/")}


def test_pictures_change_nothing_and_survive_a_stop(tmp_path: Path) -> None:
    plain = finished(told(Job((PICTURED,)), dirs(tmp_path / "plain")))
    drawn = finished(told(Job((PICTURED,), draw_all_figures=frozenset({PICTURED.id})), dirs(tmp_path / "drawn")))
    assert pictures_of(plain) == {}
    assert {name.split("+")[2] for name in pictures_of(drawn)} == {"1", "2", "3", "4"}
    assert scores(plain) == scores(drawn)
    assert weights_of(plain) == weights_of(drawn)

    store, job = Checkpoints(tmp_path / "stopped"), Job((PICTURED,), draw_all_figures=frozenset({PICTURED.id}))
    with closing(executors.train(job, "cpu", tmp_path / "first", store, saving=ALWAYS)) as events:
        next(e for e in events if isinstance(e, Epoch) and e.epoch == 2)
    start = store.newest(PICTURED)
    assert start
    went_on = finished(list(executors.train(replace(job, start=start), "cpu", tmp_path / "second", store)))
    assert pictures_of(went_on) == pictures_of(drawn)


def test_one_of_two_trials_that_train_together_is_pictured(tmp_path: Path) -> None:
    events = told(Job((PICTURED, BESIDE), draw_all_figures=frozenset({BESIDE.id})), dirs(tmp_path))
    assert pictures_of(finished(events)) == {}
    assert len(pictures_of(finished(events, BESIDE.id))) == 4 * 3 * 2
