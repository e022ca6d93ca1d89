"""A trial store that was lost, or replaced by an older copy, filled again from the runs on record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from optuna.trial import TrialState

from harness import plans
from harness.queue.ablation_queue import SEEDS, AblationQueue
from harness.queue.protocol import LOST
from harness.queue.results import SearchOutcomes
from harness.queue.store import TrialStore

if TYPE_CHECKING:
    from harness.queue.search_queue import SearchQueue


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

    Of several runs of a cell the newest counts; they come the oldest first. Runs of a cell that has a trial of its own are
    left to the repair of duplicates.
    """
    store = queue.store
    newest = {r.tags["cell"]: r for r in records if {"cell", "arm", "seed", "trial"} <= r.tags.keys()}
    for t in store.orphans():
        if not t.user_attrs.get("run") and t.user_attrs.get("cell") in newest:  # claimed by a start that was killed in here
            store.release(t.number, LOST)
    fresh = [t for t in store.trials(TrialState.WAITING) if not t.user_attrs.get("run")]
    waiting = {t.user_attrs["cell"]: t.number for t in fresh if t.user_attrs.get("cell")}
    begun = {t.user_attrs.get("cell") for t in store.trials() if t.number not in waiting.values()}
    lost = [r for cell, r in newest.items() if cell not in begun]
    for record in sorted(lost, key=lambda r: int(r.tags["trial"])):  # in the order of their numbers
        tags, value = record.tags, queue.value(record.metrics)
        number = waiting.get(tags["cell"])
        facts = facts_of(record, number, manifest_tag)
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
        runs: by the id of the cell that each was of.
        series: returns the values of a metric of a run by epoch.
        manifest_tag: the tag of a run that has the digest of its manifest.
    """

    runs: dict[str, FinishedRun] = field(default_factory=dict)
    series: Callable[[str, str], Mapping[int, float]] = lambda run, key: {}
    manifest_tag: str = ""

    def ids(self) -> set[str]:
        """Return the ids of the runs."""
        return {run.run for run in self.runs.values()}

    def settle(self, outcomes: SearchOutcomes, number: int, part: int, cells: Sequence[str]) -> bool:
        """Record the result of a run of a trial, which has these cells, if it is among these, once; return whether it was."""
        run = self.runs.pop(cells[part], None)
        if run is None:
            return False
        if outcomes.search.pruner is not None and not outcomes.over_seeds:  # what it will judge others by
            for epoch, value in sorted(self.series(run.run, outcomes.search.objectives[0]).items()):
                outcomes.judge(number, epoch, value, over=True)
        outcomes.store.note(number, facts_of(run, number, self.manifest_tag, f".{part}"))
        outcomes.settle(number, part, run.metrics, over=any(cell in self.runs for cell in cells))
        return True


def lost_results(
    queue: "SearchQueue", runs: Iterable[FinishedRun], series: Callable[[str, str], Mapping[int, float]], manifest_tag: str
) -> LostResults:
    """Return those of a search's finished runs, the oldest first, that no trial names and whose cells have no result.

    The newest of a cell counts.
    """
    named = queue.named()
    done = {cell for run, cell in named.items() if run in queue.finished}
    cells = {r.tags["cell"]: r for r in runs if r.run not in named and r.tags.get("cell", "") not in {*done, ""}}
    return LostResults(cells, series, manifest_tag)


def facts_of(run: FinishedRun, number: int | None, manifest_tag: str, part: str = "") -> dict[str, str]:
    """Return what a trial of this number stores of a run that it takes over, in this order; `part` ends the names in a search.

    The number that the trial had before is kept, which is the one that the run names. The run comes last: a trial that names one
    has all of it, whatever is killed in between.
    """
    facts = {f"manifest{part}": run.tags[manifest_tag]} if manifest_tag in run.tags else {}
    if run.tags.get("trial") not in (None, str(number)):
        facts[f"was{part}"] = run.tags["trial"]
    return facts | {f"run{part}": run.run}


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
