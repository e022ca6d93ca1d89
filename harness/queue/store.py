"""What Optuna remembers: trials with their states, who works on them, and what went wrong. Each change is one transaction.

WAITING: anybody may take it. RUNNING: one driver works on it, its `owner`. COMPLETE, PRUNED, FAIL: over.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from harness import paths, provenance
from harness.queue import optuna_internals
from harness.stores import databases
from harness.stores.files import SQLITE_PATIENCE_S
from harness.stores.locks import lock
from harness.stores.schema import Schema

GRACE_S = float(os.environ.get("HARNESS_GRACE_S", "60"))  # a driver not heard of for so long is taken for dead
BEAT_S = GRACE_S / 6
OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class TrialStore:
    """The trials of one Optuna study. `shared`: other drivers may work on it at the same time, on this host or others.

    A driver that is alone holds a lock (`driver_lock`), so every trial that says it is RUNNING is an orphan to it. Drivers that
    share a ledger tell each other's lives by heartbeats, and take, tell and repair one at a time.
    """

    def __init__(self, name: str, directions: Sequence[str], uri: str, *, shared: bool = False) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.uri, self.shared = name, uri, shared
        self.me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        sqlite = uri.startswith("sqlite:")
        connect = {"timeout": SQLITE_PATIENCE_S} if sqlite else {}
        # Heartbeats are ours: Optuna's own need Study.optimize, and its thread dies of a locked database.
        beats: dict[str, Any] = (
            {"heartbeat_interval": max(1, round(BEAT_S)), "grace_period": max(1, round(GRACE_S))} if shared else {}
        )
        self.database = optuna.storages.RDBStorage(uri, engine_kwargs={"connect_args": connect}, **beats)
        self.study = optuna.create_study(
            study_name=name,
            storage=self.database,
            directions=list(directions),
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),  # a search sets its own for each trial, an ablation never asks
        )
        self.storage = optuna_internals.storage_of(self.study)  # the same, with a cache
        self.mine: dict[int, int] = {}  # storage ids of the trials that this driver works on, by number
        self.seen: dict[int, float] = {}  # when a trial without a heartbeat was first noticed, by number
        self.closed = threading.Event()
        self.note_study({"optuna": optuna.__version__})
        if shared:
            threading.Thread(target=self._beat, daemon=True).start()

    def note_study(self, attributes: Mapping[str, Any]) -> None:
        """Remember facts of the study; what it knows already is not written again."""
        for name, value in attributes.items():
            if self.study.user_attrs.get(name) != value:
                self.study.set_user_attr(name, value)

    def alone(self) -> AbstractContextManager[Callable[[], None]]:
        """A block that no other driver of this ledger is in. In a long one call what it yields now and then: it keeps the turn."""
        return databases.exclusive(self.uri, self.name) if self.shared else nullcontext(lambda: None)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials, or those in these states, by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def trial(self, number: int) -> FrozenTrial:
        """One trial as it stands now."""
        return self.storage.get_trial(self._id(number))

    def queue(self, params: Mapping[str, Any], space: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]) -> None:
        """A new trial, WAITING."""
        waiting = optuna.trial.create_trial(
            state=TrialState.WAITING, params=dict(params), distributions=dict(space), user_attrs=dict(attributes)
        )
        self.study.add_trial(waiting)

    def begin(self, asked: FrozenTrial, attributes: Mapping[str, Any]) -> None:
        """A new trial of this driver with these parameters, RUNNING."""
        facts = {**attributes, "owner": self.me}
        running = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=asked.params,
            distributions=asked.distributions,
            user_attrs=facts,
            system_attrs=asked.system_attrs,
        )
        trial_id = self.storage.create_new_trial(optuna_internals.study_id(self.study), template_trial=running)
        self._own(self.storage.get_trial_number_from_id(trial_id), trial_id)

    def trial_object(self, number: int) -> optuna.Trial:
        """A trial as Optuna's own object, which can suggest, report and set constraints."""
        return optuna.Trial(self.study, self._id(number))

    def claim(self, number: int) -> bool:
        """WAITING becomes RUNNING, this driver's; False where another was faster."""
        trial_id = self._id(number)
        if not self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
            return False
        self.note(number, {"owner": self.me})
        self._own(number, trial_id)
        return True

    def _own(self, number: int, trial_id: int) -> None:
        if self.shared:
            self.database.record_heartbeat(trial_id)
            self.note(number, {"beats": self.me})
        self.mine[number] = trial_id

    def holds(self, number: int) -> bool:
        """Whether this driver still works on a trial: while it was stopped, another may have taken it for dead."""
        now = self.trial(number)
        return now.state == TrialState.RUNNING and now.user_attrs.get("owner") == self.me

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Remember facts of a trial that is not over."""
        for name, value in attributes.items():
            self.storage.set_trial_user_attr(self._id(number), name, value)

    def mark(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Put on record of a trial what Optuna itself keeps of it."""
        for name, value in attributes.items():
            self.storage.set_trial_system_attr(self._id(number), name, value)

    def release(self, number: int, why: str) -> None:
        """RUNNING becomes WAITING again, with the reason kept."""
        reasons = [*json.loads(self.trial(number).user_attrs.get("released", "[]")), why]
        self.note(number, {"released": json.dumps(reasons), "owner": ""})
        self.storage.set_trial_state_values(self._id(number), TrialState.WAITING)
        self.mine.pop(number, None)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """RUNNING becomes COMPLETE."""
        self.study.tell(number, list(values))
        self.mine.pop(number, None)

    def prune(self, number: int) -> None:
        """RUNNING becomes PRUNED; its value is the last that it reported."""
        self.study.tell(number, state=TrialState.PRUNED)
        self.mine.pop(number, None)

    def fail(self, number: int, why: str, *, final: bool) -> None:
        """RUNNING becomes FAIL. Failures count for the code they happened with."""
        self.note(number, {"failure": why, "final": final, "code": provenance.code()})
        self.study.tell(number, state=TrialState.FAIL)
        self.mine.pop(number, None)

    def orphans(self) -> list[FrozenTrial]:
        """RUNNING trials that nobody works on."""
        running = [t for t in self.trials(TrialState.RUNNING) if t.number not in self.mine]
        if not self.shared:
            return running
        stale = optuna_internals.stale_trials(self.database, self.study)
        # One that never had a heartbeat is not among the stale, its driver having died before the first: such are watched here.
        silent = [t for t in running if t.user_attrs.get("beats") != t.user_attrs.get("owner")]
        now = time.monotonic()
        self.seen = {t.number: self.seen.get(t.number, now) for t in silent}
        return [t for t in running if optuna_internals.trial_id(t) in stale or now - self.seen.get(t.number, now) > GRACE_S]

    def others(self) -> bool:
        """Whether other drivers seem to be at work."""
        return self.shared and any(t.number not in self.mine for t in self.trials(TrialState.RUNNING))

    def close(self) -> None:
        """End the heartbeats."""
        self.closed.set()

    def _id(self, number: int) -> int:
        known = self.mine.get(number)
        return (
            known
            if known is not None
            else self.storage.get_trial_id_from_study_id_trial_number(optuna_internals.study_id(self.study), number)
        )

    def _beat(self) -> None:
        while not self.closed.wait(BEAT_S):
            for trial_id in list(self.mine.values()):
                try:
                    self.database.record_heartbeat(trial_id)
                except Exception:  # the server is away or locked for a while: the next beat may get through
                    break


def database(storage: str = "") -> str:
    """The URI of the ledgers: those on a server, or the file in mlruns/; made whole if they are not there."""
    return databases.trial_database(storage, OPTUNA_SCHEMA)


def _build(uri: str) -> None:
    storage = optuna.storages.RDBStorage(uri)
    storage.remove_session()
    storage.engine.dispose()


def _revisions() -> Sequence[str]:
    return optuna.storages.RDBStorage("sqlite://").get_all_versions()


OPTUNA_SCHEMA = Schema("Optuna", _build, _revisions, "optuna storage upgrade --storage")


@contextmanager
def driver_lock(study: str) -> Iterator[None]:
    """Be the only driver of a study in this home folder, or raise MachineError at once."""
    with lock(paths.mlruns() / "locks" / f"{study}.lock", busy=f"another driver is running the study {study!r}"):
        yield
