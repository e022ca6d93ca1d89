"""A trial store that was lost, or replaced by an older copy, filled again from the runs on record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from optuna.trial import TrialState

from harness import plans
from harness.queue.ablation_queue import SEEDS, AblationQueue
from harness.queue.results import SearchOutcomes
from harness.queue.store import TrialStore


class FinishedRun(Protocol):
    """A finished run of a trial, as a tracker has it."""

    @property
    def run(self) -> str:
        """Its id."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""


def adopt(queue: AblationQueue, records: Iterable[FinishedRun], manifest_tag: str) -> int:
    """Enter trials for finished runs that no trial names and whose cells were never begun in the trial store; return their number.

    Of several runs of a cell the newest counts, which comes last. Runs of a cell that has a trial of its own are left to the repair
    of duplicates.
    """
    store = queue.store
    fresh = [t for t in store.trials(TrialState.WAITING) if not t.user_attrs.get("run")]
    waiting = {t.user_attrs["cell"]: t.number for t in fresh if t.user_attrs.get("cell")}
    begun = {t.user_attrs.get("cell") for t in store.trials() if t.number not in waiting.values()}
    newest = {r.tags["cell"]: r for r in records if {"cell", "arm", "seed", "trial"} <= r.tags.keys()}
    lost = [r for cell, r in newest.items() if cell not in begun]
    for record in sorted(lost, key=lambda r: int(r.tags["trial"])):  # so that trials get their numbers back
        tags, value = record.tags, queue.value(record.metrics)
        facts = {"run": record.run} | ({"manifest": tags[manifest_tag]} if manifest_tag in tags else {})
        number = waiting.get(tags["cell"])
        if number is not None and store.claim(number):
            store.note(number, facts)
            store.complete(number, [value])
        elif number is None:
            seed = int(tags["seed"])
            cell = {"cell": tags["cell"], "arm": tags["arm"], "seed": seed, "attempt": int(tags.get("attempt", "1"))}
            store.enter({"seed": seed}, {"seed": SEEDS}, cell | facts, [value])
    return len(lost)


@dataclass(frozen=True)
class LostResults:
    """Finished runs of a search whose trials the store has lost: the results of the same points, which it asks for again.

    Attributes:
        runs: by number and cell id of the trial that each was of.
        series: returns the values of a metric of a run by epoch.
        manifest_tag: the tag of a run that has the digest of its manifest.
    """

    runs: dict[tuple[int, str], FinishedRun] = field(default_factory=dict)
    series: Callable[[str, str], Mapping[int, float]] = lambda run, key: {}
    manifest_tag: str = ""

    def ids(self) -> set[str]:
        """Return the ids of the runs."""
        return {run.run for run in self.runs.values()}

    def settle(self, outcomes: SearchOutcomes, number: int, part: int, cell: str) -> bool:
        """Record the result of a trial's run if it is among these, once; return whether it was."""
        run = self.runs.pop((number, cell), None)
        if run is None:
            return False
        facts = {f"run.{part}": run.run}
        if self.manifest_tag in run.tags:
            facts[f"manifest.{part}"] = run.tags[self.manifest_tag]
        outcomes.store.note(number, facts)
        if outcomes.search.pruner is not None and not outcomes.over_seeds:  # what it will judge others by
            for epoch, value in sorted(self.series(run.run, outcomes.search.objectives[0]).items()):
                outcomes.judge(number, epoch, value, over=True)
        outcomes.settle(number, part, run.metrics)
        return True


def lost_results(
    store: TrialStore, runs: Iterable[FinishedRun], series: Callable[[str, str], Mapping[int, float]], manifest_tag: str
) -> LostResults:
    """Return those of a search's finished runs, which no trial names, that are of trials that the store does not have.

    A trial that was asked for again and has no run yet counts as one of these. Other runs are of a trial that went on elsewhere.
    """
    known = {t.number for t in store.trials() if any(name.startswith("run.") for name in t.user_attrs)}
    named = {(int(r.tags["trial"]), r.tags["cell"]): r for r in runs if {"trial", "cell"} <= r.tags.keys()}
    return LostResults({key: run for key, run in named.items() if key[0] not in known}, series, manifest_tag)


def restore_plans(store: TrialStore, digest: str, text: str) -> bool:
    """Put the plans and looks that a study's parent run keeps back into a trial store that has none; return whether that was done.

    They come back only if they are a sound chain that ends in `digest`: what was edited stays a fault.
    """
    if not digest or plans.read(store.notes()) != plans.PlanRecord():
        return False
    record = plans.from_text(text)
    if record.faults or record.head != digest:
        return False
    plans.add(store, record)
    return True
