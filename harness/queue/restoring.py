"""A trial store that was lost, or replaced by an older copy, filled again from the runs on record."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from optuna.trial import TrialState

from harness import plans
from harness.queue.ablation_queue import SEEDS, AblationQueue
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
