"""The queue of an ablation: which cells of the plan are done, to be done or given up. One trial per cell and attempt."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence

from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from harness import provenance
from harness.queue.protocol import ATTEMPTS, LOST, Assignment, Look, Outcome, Repairs
from harness.queue.store import TrialStore
from harness.study import Cell

SEEDS = IntDistribution(0, 2**31 - 1)


class AblationQueue:
    """Hands out the cells of a plan and takes their results.

    A cell is keyed by the content of its spec, so a changed study runs only what changed. It is done when its trial is COMPLETE and
    the run that the trial names is FINISHED. One that went with its driver is tried again however often that happens; one that its
    worker lost, at most three times; one that failed by itself (a loss that is not finite) is not. Failures count for the code
    they happened with: mended code tries again.
    """

    pruning = None  # cells of an ablation are never ended early

    def __init__(self, store: TrialStore, cells: Sequence[Cell], value: Callable[[Mapping[str, float]], float]) -> None:
        self.store, self.value = store, value
        self.cells = {c.spec.id: c for c in cells}
        self.epochs = max(c.spec.epochs for c in cells)
        self.finished: set[str] | None = None  # runs known as FINISHED; None: not looked yet

    @property
    def trials(self) -> int:
        """Results to come in all."""
        return len(self.cells)

    @property
    def missing(self) -> int:
        """Results still to come."""
        return len(self.cells) - len(self.done()) - len(self.given_up())

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return [t for t in self.store.trials(*states) if t.user_attrs.get("cell") in self.cells]

    def done(self) -> dict[str, str]:
        """Run id by cell id, of cells that count as done."""
        complete = {t.user_attrs["cell"]: t.user_attrs["run"] for t in self._trials(TrialState.COMPLETE)}
        return {c: run for c, run in complete.items() if self.finished is None or run in self.finished}

    def given_up(self) -> dict[str, str]:
        """Reason by cell id, of cells that failed for good."""
        done = self.done()
        open_cells = {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING, TrialState.RUNNING)}
        failed = {
            t.user_attrs["cell"]: t.user_attrs["failure"]
            for t in self._trials(TrialState.FAIL)
            if t.user_attrs.get("final") and t.user_attrs.get("code") == provenance.code()
        }
        return {c: why for c, why in failed.items() if c not in done and c not in open_cells}

    def prepare(self) -> None:
        """Queue every cell that is neither done, under way nor given up: also one that failed without being queued again."""
        with self.store.alone() as go_on:
            settled = {*self.done(), *self.given_up()}
            settled |= {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING, TrialState.RUNNING)}
            for key, cell in self.cells.items():
                if key not in settled:
                    attempt = 1 + sum(t.user_attrs["cell"] == key for t in self._trials(TrialState.FAIL))
                    facts = {"cell": key, "arm": cell.arm, "seed": cell.seed, "attempt": attempt}
                    go_on()
                    self.store.queue({"seed": cell.seed}, {"seed": SEEDS}, facts)

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """The next trials that train together, at most `most`, now RUNNING. Empty when nothing waits."""
        assignments: list[Assignment] = []
        with self.store.alone():
            for t in self.store.trials(TrialState.WAITING):
                cell = self.cells.get(t.user_attrs.get("cell", ""))
                if cell is None or len(assignments) == most:
                    continue
                if assignments and alike(cell) != alike(assignments[0].cell):
                    break
                if self.store.claim(t.number):
                    assignments.append(Assignment(t.number, cell, t.user_attrs["attempt"], t.user_attrs.get("run", "")))
        return assignments

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Remember a trial's run before it trains."""
        self.store.note(assignment.number, {"run": run})

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Make a trial COMPLETE. Call when its run is FINISHED, so that a kill in between can be repaired."""
        with self.store.alone():
            if not self.store.holds(assignment.number):
                return Outcome(counted=False)
            self.store.complete(assignment.number, [self.value(metrics)])
        self._count(assignment.run)
        return Outcome()

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Queue a trial again, the reason kept, unless the failure is final or the attempts are used up."""
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
        """Whether something may still come without a trial of this driver: others are at work, who may fail."""
        return self.store.others() or bool(self._trials(TrialState.WAITING))

    def release(self, look: Look) -> None:
        """What this driver works on is WAITING again, for it was told to stop; what had just finished counts."""
        with self.store.alone():
            for number in list(self.store.mine):
                if self.store.holds(number):
                    self._settle(self.store.trial(number), look)

    def reconcile(self, look: Look, finished: set[str]) -> Repairs:
        """Settle what dead drivers left: finished work is taken over, the rest waits again. `finished`: all FINISHED runs."""
        with self.store.alone():
            self.finished = set(finished)
            adopted = [self._settle(t, look) for t in self.store.orphans()]
        return Repairs(sum(adopted), len(adopted) - sum(adopted))

    def _settle(self, t: FrozenTrial, look: Look) -> bool:
        """A trial cut off: COMPLETE if its run is FINISHED, else WAITING. Returns which."""
        status, metrics = look(t.user_attrs.get("run", ""))
        finished = status == "FINISHED" and t.user_attrs.get("cell") in self.cells
        if finished:
            self.store.complete(t.number, [self.value(metrics)])
            self._count(t.user_attrs["run"])
        else:
            self.store.release(t.number, LOST)
        return finished

    def runs(self) -> set[str]:
        """Runs that trials name and that may be FINISHED or RUNNING; any other is nobody's."""
        named = self.store.trials(TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE)
        return {t.user_attrs["run"] for t in named if t.user_attrs.get("run")}

    def live_runs(self) -> set[str]:
        """Runs that somebody works on."""
        return {t.user_attrs["run"] for t in self.store.trials(TrialState.RUNNING) if t.user_attrs.get("run")}

    def _count(self, run: str) -> None:
        if self.finished is not None:
            self.finished.add(run)


def released(trial: FrozenTrial) -> list[str]:
    """Why a trial was given back, each time."""
    return json.loads(trial.user_attrs.get("released", "[]"))
