"""The queue of an ablation, with one trial in the store per cell of the plan and attempt."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence

from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from harness.queue.protocol import ATTEMPTS, LOST, Assignment, LookUpRun, Outcome, Repairs
from harness.queue.store import TrialStore
from harness.study import Cell

SEEDS = IntDistribution(0, 2**31 - 1)


class AblationQueue:
    """A `TrialQueue` that hands out the cells of an ablation's plan and takes their results.

    A cell is keyed by the content of its spec, so a changed study runs only what changed. It is done when its trial is COMPLETE and
    the run that the trial names is FINISHED. A cell that was cut off because its driver ended is tried again however often that
    happens; one that its worker lost, until it has had `ATTEMPTS` attempts; one that failed by itself (a loss that is not finite)
    is not tried again. Failures count for the code they happened with: changed code tries again.

    Attributes:
        store: the trials.
        value: the function that computes a trial's value for Optuna from its metrics.
        cells: the cells by id of their spec.
        epochs: the epochs of the longest trial.
        finished: the ids of all runs known as FINISHED; None before `reconcile` has been called.
        pruning: None, since the cells of an ablation are never ended early.
        read_back: 0, since lost results are entered before there is a queue (restoring.py).
    """

    pruning = None
    read_back = 0

    def __init__(self, store: TrialStore, cells: Sequence[Cell], value: Callable[[Mapping[str, float]], float]) -> None:
        self.store, self.value = store, value
        self.cells = {c.spec.id: c for c in cells}
        self.epochs = max(c.spec.epochs for c in cells)
        self.finished: set[str] | None = None

    def arrange(self, place: Callable[[Cell], tuple[str, ...]]) -> None:
        """Queue cells in the order of their places from now on, so that those of one program come one after another."""
        self.cells = {c.spec.id: c for c in sorted(self.cells.values(), key=place)}

    @property
    def trials(self) -> int:
        """The number of results when the study is complete."""
        return len(self.cells)

    @property
    def missing(self) -> int:
        """The number of results still to come."""
        return len(self.cells) - len(self.done()) - len(self.given_up())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all, of cells of the plan."""
        return [t for t in self.store.trials(*states) if t.user_attrs.get("cell") in self.cells]

    def done(self) -> dict[str, str]:
        """Return the run id by cell id of the cells that are done."""
        complete = {t.user_attrs["cell"]: t.user_attrs["run"] for t in self._trials(TrialState.COMPLETE)}
        return {c: run for c, run in complete.items() if self.finished is None or run in self.finished}

    def given_up(self) -> dict[str, str]:
        """Return the reason by cell id of the cells that failed for good."""
        done = self.done()
        open_cells = {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING, TrialState.RUNNING)}
        failed = {
            t.user_attrs["cell"]: t.user_attrs["failure"]
            for t in self._trials(TrialState.FAIL)
            if t.user_attrs.get("final") and t.user_attrs.get("code") == self.store.code
        }
        return {c: why for c, why in failed.items() if c not in done and c not in open_cells}

    def coming(self) -> list[Cell]:
        """Return the cells that are neither done nor given up, in their order."""
        settled = {*self.done(), *self.given_up()}
        return [cell for key, cell in self.cells.items() if key not in settled]

    def prepare(self) -> None:
        """Queue every cell that is neither done, under way nor given up, including those that failed without being queued again."""
        with self.store.alone() as keep_lock:
            settled = {*self.done(), *self.given_up()}
            settled |= {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING, TrialState.RUNNING)}
            for key, cell in self.cells.items():
                if key not in settled:
                    failed = [t for t in self._trials(TrialState.FAIL) if t.user_attrs["cell"] == key]
                    attempt = 1 + sum(1 + len(released(t)) for t in failed)
                    facts = {"cell": key, "arm": cell.arm, "seed": cell.seed, "attempt": attempt}
                    keep_lock()
                    self.store.queue({"seed": cell.seed}, {"seed": SEEDS}, facts)

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """Claim the next trials that train together, at most `most` of equal `alike`. Return an empty list if none is waiting."""
        assignments: list[Assignment] = []
        with self.store.alone():
            for t in self.store.trials(TrialState.WAITING):
                cell = self.cells.get(t.user_attrs.get("cell", ""))
                if cell is None or len(assignments) == most:
                    continue
                if assignments and alike(cell) != alike(assignments[0].cell):
                    break
                if self.store.claim(t.number):
                    assignments.append(
                        Assignment(t.number, cell, t.user_attrs["attempt"] + len(released(t)), t.user_attrs.get("run", ""))
                    )
        return assignments

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Store the id of a trial's run, before the trial trains."""
        self.store.note(assignment.number, {"run": run})

    def note_manifest(self, assignment: Assignment, digest: str) -> None:
        """Store the digest of the manifest of a trial's run, if the trial is still this driver's."""
        if self.store.holds(assignment.number):
            self.store.note(assignment.number, {"manifest": digest})

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Make a trial COMPLETE. Call it once the run is FINISHED, so that a kill in between can be repaired."""
        with self.store.alone():
            if not self.store.holds(assignment.number):
                return Outcome(counted=False)
            self.store.complete(assignment.number, [self.value(metrics)])
        self._count(assignment.run)
        return Outcome()

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Queue a trial again and store the reason, unless the failure is final or the attempts are used up."""
        with self.store.alone():
            if not self.store.holds(assignment.number):
                return Outcome(counted=False, retried=True)
            losses = [w for w in released(self.store.trial(assignment.number)) if w != LOST]
            again = not final and len(losses) + 1 < ATTEMPTS
            if again:
                self.store.release(assignment.number, why)
            else:
                self.store.fail(assignment.number, why, final=True)
        return Outcome(retried=again)

    def busy(self) -> bool:
        """Return whether results or trials may still come though this driver trains none: other drivers are at work or may fail."""
        return self.store.others() or bool(self._trials(TrialState.WAITING))

    def release(self, look_up: LookUpRun) -> None:
        """Make this driver's trials WAITING again because it was told to stop; those whose run is FINISHED become COMPLETE."""
        with self.store.alone():
            for number in list(self.store.own):
                if self.store.holds(number):
                    self._settle(self.store.trial(number), look_up)

    def reconcile(self, look_up: LookUpRun, finished: set[str]) -> Repairs:
        """Settle the trials of dead drivers: those whose run is FINISHED become COMPLETE, the others WAITING.

        `finished` are the ids of all FINISHED runs.
        """
        with self.store.alone():
            self.finished = set(finished)
            adopted = [self._settle(t, look_up) for t in self.store.orphans()]
        return Repairs(sum(adopted), len(adopted) - sum(adopted))

    def _settle(self, t: FrozenTrial, look_up: LookUpRun) -> bool:
        """Make a trial that was cut off COMPLETE if its run is FINISHED, else WAITING. Return whether it is COMPLETE."""
        status, metrics = look_up(t.user_attrs.get("run", ""))
        finished = status == "FINISHED" and t.user_attrs.get("cell") in self.cells
        if finished:
            self.store.complete(t.number, [self.value(metrics)])
            self._count(t.user_attrs["run"])
        else:
            self.store.release(t.number, LOST)
        return finished

    def runs(self) -> set[str]:
        """Return the ids of the runs that trials name and that may be FINISHED or RUNNING; any other run belongs to no trial."""
        named = self.store.trials(TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE)
        return {t.user_attrs["run"] for t in named if t.user_attrs.get("run")}

    def live_runs(self) -> set[str]:
        """Return the ids of the runs of RUNNING trials."""
        return {t.user_attrs["run"] for t in self.store.trials(TrialState.RUNNING) if t.user_attrs.get("run")}

    def _count(self, run: str) -> None:
        """Add a run to those known as FINISHED."""
        if self.finished is not None:
            self.finished.add(run)


def released(trial: FrozenTrial) -> list[str]:
    """Return the reason of each time that a trial was released."""
    reasons: list[str] = json.loads(trial.user_attrs.get("released", "[]"))
    return reasons
