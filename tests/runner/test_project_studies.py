"""Every study of this project trains, in small."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drivers import TWO_STEPS, Start, driver_of, one_result_per_cell
from memory_tracker import MemoryTracker

from harness import figures, study
from harness.queue import SearchQueue, TrialStore, database
from harness.study import Ablation, Budget, Search, SearchBudget

ABLATIONS = [n for n in study.names() if isinstance(study.load_study(n), Ablation)]
SEARCHES = [n for n in study.names() if isinstance(study.load_study(n), Search)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_runs_three_small_trials_and_names_what_to_test(name: str, tmp_path: Path) -> None:
    found = study.load_study(name)
    small = replace(found, base=found.base.derive(**TWO_STEPS), budgets={"default": SearchBudget(trials=3, epochs=2)})
    directions = ["maximize" if study.SCORES[o].better == "higher" else "minimize" for o in small.objectives]
    tracker = MemoryTracker()
    queue = SearchQueue(TrialStore("a_search", directions, database()), small, "default", 2)
    driver = driver_of(queue, tracker, tmp_path)
    driver.headline = small.quality.key
    driver.reconcile()
    queue.prepare()
    driver.run()
    assert queue.missing == 0
    assert {a.state for a in queue.history()} <= {"COMPLETE", "PRUNED"}
    assert not any(name.startswith("test/") for run in tracker.runs.values() for name in run["metrics"])
    best = queue.best()
    assert best
    arms = small.judged("default", {"tuned": best[0].spec}).arms
    assert set(arms["tuned"]) <= set(small.space)


def in_grey(arm: Mapping[str, Any]) -> dict[str, Any]:
    """An arm for images of one channel."""
    arguments = arm.get("likelihood_args", {})
    return dict(arm) | ({"likelihood_args": {**arguments, "channels": 1}} if "channels" in arguments else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs_two_steps(name: str, tmp_path: Path) -> None:
    found = study.load_study(name)
    base = found.base.derive(**TWO_STEPS)
    arms = {arm: in_grey(fields) for arm, fields in found.arms.items()}
    one_of_a_kind = {base.derive(**fields).cohort: arm for arm, fields in reversed(arms.items())}  # others differ in numbers only
    small = replace(
        found,
        base=base,
        arms={arm: arms[arm] for arm in one_of_a_kind.values()},
        hypotheses=(),
        budgets={"default": Budget(epochs=1, seeds=(0,))},
    )
    tracker = MemoryTracker()
    first = Start(small, tracker).go(tmp_path)
    assert one_result_per_cell(small, first, tracker)
    specs = {c.spec.id: c.spec for c in small.cells("default")}
    for run in tracker.runs.values():
        assert [step for step, _ in run["rows"]] == [1]
        kept = {"state_dict.pt", "pictures.npz", "figures", "images", "manifest.json", "history.json", "spec.json"}
        assert {p.name for p in run["files"].iterdir()} == kept
        pictures = {p.stem for p in (run["files"] / "figures").iterdir()}
        there = figures.IN_QUICK if specs[run["cell"]].evaluation == "quick" else figures.FIGURES
        assert pictures >= set(there) - set(figures.NEEDS_TWO_LATENTS) - {"dead_units"}
        assert set(run["metrics"]) >= {"elbo/train", "test/squared_error", "perf/train_s", "model/parameters"}
    second = Start(small, tracker).go(tmp_path)
    assert second.states() == first.states()
    assert len(tracker.runs) == len(small.arms)
