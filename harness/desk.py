"""The desk remembers what is done: Optuna is the ledger, one trial per cell and attempt. Only a driver that holds the lock asks."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness import manifest, paths, stores
from harness.spec import TrialSpec
from harness.study import Cell

ATTEMPTS = 3
SEEDS = optuna.distributions.IntDistribution(0, 2**31 - 1)


@dataclass(frozen=True)
class Ticket:
    """One trial to run: its number in the ledger, its cell, and which attempt this is, from 1."""

    number: int
    cell: Cell
    attempt: int


class Desk:
    """Which cells of a plan are done, to be done, or given up.

    A cell is keyed by the content of its spec, so a changed study runs only what changed. A trial counts as done when it is
    COMPLETE. One that went with its driver (a stop, a kill) is tried again however often that happens; one that its worker lost, at
    most three times; one that failed by itself (a loss that is not finite) is not. Failures count for the code they happened
    with: mended code tries again.
    """

    def __init__(self, study: str, cells: Sequence[Cell], direction: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path = database()
        stores.make_whole(path, lambda uri: optuna.storages.RDBStorage(uri).remove_session())
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": stores.SQLITE_PATIENCE_S}}
        )
        self.cells = {c.spec.id: c for c in cells}
        self.study = optuna.create_study(
            study_name=study,
            storage=storage,
            direction=direction,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: every value is enqueued
        )
        if self.study.user_attrs.get("optuna") != optuna.__version__:
            self.study.set_user_attr("optuna", optuna.__version__)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return [t for t in self.study.get_trials(deepcopy=False, states=states) if t.user_attrs.get("cell") in self.cells]

    def running(self) -> list[int]:
        """Trials that say they are running. To a driver that just took the lock these are orphans."""
        return [t.number for t in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]

    def done(self) -> dict[str, str]:
        """Run id by cell id, of cells that are COMPLETE."""
        return {t.user_attrs["cell"]: t.user_attrs["run"] for t in self._trials(TrialState.COMPLETE)}

    def given_up(self) -> dict[str, str]:
        """Reason by cell id, of cells that failed for good."""
        done, waiting = (
            self.done(),
            {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING, TrialState.RUNNING)},
        )
        failed = {t.user_attrs["cell"]: t.user_attrs.get("failure", "lost") for t in self._trials(TrialState.FAIL)}
        return {c: why for c, why in failed.items() if c not in done and c not in waiting and not self._may_retry(c)}

    def _may_retry(self, cell: str) -> bool:
        mine = [t.user_attrs for t in self._trials(TrialState.FAIL) if t.user_attrs["cell"] == cell]
        fails = [f for f in mine if f.get("counts") and f.get("code") == manifest.code()]
        return len(fails) < ATTEMPTS and not any(f["final"] for f in fails)

    def plan(self, order: Sequence[Cell]) -> int:
        """Queue every cell that is neither done, queued, nor given up. Returns how many wait now."""
        settled = set(self.done()) | set(self.given_up())
        queued = {t.user_attrs["cell"] for t in self._trials(TrialState.WAITING)}
        for cell in order:
            key = cell.spec.id
            if key not in settled and key not in queued:
                attempt = 1 + sum(t.user_attrs["cell"] == key for t in self._trials(TrialState.FAIL))
                attributes: dict[str, Any] = {"cell": key, "arm": cell.arm, "seed": cell.seed, "attempt": attempt}
                self.study.enqueue_trial({"seed": cell.seed}, user_attrs=attributes)
        return len(self._trials(TrialState.WAITING))

    def take(self, most: int, group: Callable[[TrialSpec], Hashable]) -> list[Ticket]:
        """The next trials of one group, at most `most`, now RUNNING. Empty when nothing waits."""
        waiting = self._trials(TrialState.WAITING)
        tickets: list[Ticket] = []
        while len(tickets) < min(most, len(waiting)):
            following = self.cells[waiting[len(tickets)].user_attrs["cell"]]
            if tickets and group(following.spec) != group(tickets[0].cell.spec):
                break
            trial = self.study.ask({"seed": SEEDS})
            cell = self.cells.get(trial.user_attrs.get("cell", ""))
            if cell is None:  # queued by an older version of the study file
                self._fail(trial.number, "not in the plan any more", final=True)
                continue
            tickets.append(Ticket(trial.number, cell, trial.user_attrs["attempt"]))
        return tickets

    def note_run(self, number: int, run: str) -> None:
        """Remember a trial's MLflow run before it trains."""
        self._set(number, {"run": run})

    def tell(self, number: int, value: float) -> None:
        """COMPLETE. Call after the run is FINISHED: that order is what makes a kill in between repairable."""
        self.study.tell(number, value)

    def fail(self, ticket: Ticket, why: str, *, final: bool) -> bool:
        """FAIL; queued again unless the failure is final or attempts are used up. Returns whether it is."""
        self._fail(ticket.number, why, final=final)
        self.plan([ticket.cell])
        return self._may_retry(ticket.cell.spec.id)

    def lose(self, number: int) -> None:
        """FAIL a trial that went with its driver: no fault of its own."""
        self._fail(number, "lost: its driver ended", final=False, counts=False)

    def _fail(self, number: int, why: str, *, final: bool, counts: bool = True) -> None:
        self._set(number, {"failure": why, "final": final, "counts": counts, "code": manifest.code()})
        self.study.tell(number, state=TrialState.FAIL)

    def _set(self, number: int, attributes: Mapping[str, Any]) -> None:
        storage = self.study._storage  # a Trial object would have to be kept for every running number
        trial_id = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        for name, value in attributes.items():
            storage.set_trial_user_attr(trial_id, name, value)


def database() -> Path:
    """Where the ledger lies."""
    return paths.mlruns() / "optuna.db"


@contextmanager
def driver_lock(study: str) -> Iterator[None]:
    """Be the only driver of a study, or raise MachineError at once."""
    with stores.lock(paths.mlruns() / "locks" / f"{study}.lock", busy=f"another driver is running the study {study!r}"):
        yield
