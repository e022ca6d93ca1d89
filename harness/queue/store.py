"""The trial store: trials in Optuna's storage, with their states, the drivers that work on them, and their failures.

A trial's state is WAITING (any driver may claim it), RUNNING (one driver, its `owner`, works on it), or over: COMPLETE, PRUNED or
FAIL. Each change is one transaction.
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

from harness import paths, provenance, resources
from harness.queue import optuna_internals
from harness.stores import databases
from harness.stores.files import SQLITE_PATIENCE_S
from harness.stores.locks import lock
from harness.stores.schema import Schema

GRACE_S = resources.grace_s()  # a driver without a heartbeat for so long is taken for dead
BEAT_S = GRACE_S / 6
OVER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class TrialStore:
    """The trials of one Optuna study.

    A driver that is alone holds a lock (`driver_lock`), so every RUNNING trial that is not its own is an orphan to it. Drivers that
    share a store recognise dead ones by their heartbeats, and claim, tell and repair trials one driver at a time.

    Attributes:
        name: the name of the Optuna study.
        uri: the URI of the database.
        shared: True if other drivers may work on the study at the same time, on this host or others.
        driver_id: an id of this driver: host, process and a random part.
        database: Optuna's storage without a cache.
        study: the Optuna study.
        storage: the study's storage, with a cache: another process's changes are seen in a shared store alone.
        own: the storage ids by number of the trials that this driver works on.
        code: the digest of the code with which failures are stored, and for which alone they count; by default this process's.
        first_seen: the time by number at which a RUNNING trial without a heartbeat was first noticed, in seconds.
        closed: an event that ends the heartbeats.
    """

    def __init__(self, name: str, directions: Sequence[str], uri: str, *, shared: bool = False, code: str | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.uri, self.shared = name, uri, shared
        self.code = code or provenance.code()
        self.driver_id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        sqlite = uri.startswith("sqlite:")
        connect = {"timeout": SQLITE_PATIENCE_S} if sqlite else {}
        # Heartbeats are ours: Optuna's own need Study.optimize, and its thread dies of a locked database.
        beats: dict[str, Any] = (
            {"heartbeat_interval": max(1, round(BEAT_S)), "grace_period": max(1, round(GRACE_S))} if shared else {}
        )
        self.database = optuna.storages.RDBStorage(uri, engine_kwargs={"connect_args": connect}, **beats)
        self.study = optuna.create_study(
            study_name=name,
            storage=self.database if shared else optuna_internals.SoleStorage(self.database),
            directions=list(directions),
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),  # a search sets its own for each trial, an ablation never asks
        )
        self.storage = optuna_internals.storage_of(self.study)
        self.own: dict[int, int] = {}
        self.first_seen: dict[int, float] = {}
        self.closed = threading.Event()
        self.note_study({"optuna": optuna.__version__})
        if shared:
            threading.Thread(target=self._beat, daemon=True).start()

    def note_study(self, attributes: Mapping[str, Any]) -> None:
        """Store attributes of the study, without writing those that it has already."""
        for name, value in attributes.items():
            if self.study.user_attrs.get(name) != value:
                self.study.set_user_attr(name, value)

    def notes(self) -> Mapping[str, Any]:
        """Return the attributes of the study."""
        attributes: Mapping[str, Any] = self.study.user_attrs
        return attributes

    def alone(self) -> AbstractContextManager[Callable[[], None]]:
        """Return a context in which no other driver of this store can be.

        It yields a function to call now and then in a long block, which keeps the lock.
        """
        return databases.exclusive(self.uri, self.name) if self.shared else nullcontext(lambda: None)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return all trials, or those in these states, in the order of their numbers."""
        trials: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=states or None)
        return trials

    def trial(self, number: int) -> FrozenTrial:
        """Return a trial as it is now."""
        return self.storage.get_trial(self._id(number))

    def queue(self, params: Mapping[str, Any], space: Mapping[str, BaseDistribution], attributes: Mapping[str, Any]) -> None:
        """Enter a new trial with these parameters and attributes, WAITING."""
        waiting = optuna.trial.create_trial(
            state=TrialState.WAITING, params=dict(params), distributions=dict(space), user_attrs=dict(attributes)
        )
        self.study.add_trial(waiting)

    def enter(
        self, params: Mapping[str, Any], space: Mapping[str, BaseDistribution], facts: Mapping[str, Any], values: Sequence[float]
    ) -> None:
        """Enter a trial that is COMPLETE, with these parameters, attributes and values by objective."""
        over = optuna.trial.create_trial(
            params=dict(params), distributions=dict(space), user_attrs=dict(facts), values=list(values)
        )
        self.study.add_trial(over)

    def begin(self, template: FrozenTrial, attributes: Mapping[str, Any]) -> None:
        """Enter a new trial of this driver with the template's parameters and these attributes, RUNNING."""
        facts = {**attributes, "owner": self.driver_id}
        running = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=template.params,
            distributions=template.distributions,
            user_attrs=facts,
            system_attrs=template.system_attrs,
        )
        trial_id = self.storage.create_new_trial(optuna_internals.study_id(self.study), template_trial=running)
        self._add_own(self.storage.get_trial_number_from_id(trial_id), trial_id)

    def trial_object(self, number: int) -> optuna.Trial:
        """Return a trial as Optuna's own object, which can suggest, report and set constraints."""
        return optuna.Trial(self.study, self._id(number))

    def claim(self, number: int) -> bool:
        """Make a WAITING trial this driver's, RUNNING. Return False if another driver was faster."""
        trial_id = self._id(number)
        if not self.storage.set_trial_state_values(trial_id, TrialState.RUNNING):
            return False
        self.note(number, {"owner": self.driver_id})
        self._add_own(number, trial_id)
        return True

    def _add_own(self, number: int, trial_id: int) -> None:
        """Add a trial to this driver's, with a first heartbeat if the store is shared."""
        if self.shared:
            self.database.record_heartbeat(trial_id)
            self.note(number, {"beats": self.driver_id})
        self.own[number] = trial_id

    def holds(self, number: int) -> bool:
        """Return whether this driver still owns a trial; while it was stopped, another may have taken it for dead."""
        now = self.trial(number)
        return bool(now.state == TrialState.RUNNING and now.user_attrs.get("owner") == self.driver_id)

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Store user attributes of a trial that is not over."""
        for name, value in attributes.items():
            self.storage.set_trial_user_attr(self._id(number), name, value)

    def mark(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Store system attributes of a trial, which are those that Optuna itself uses."""
        for name, value in attributes.items():
            self.storage.set_trial_system_attr(self._id(number), name, value)

    def release(self, number: int, why: str) -> None:
        """Make a RUNNING trial WAITING again and store the reason."""
        reasons = [*json.loads(self.trial(number).user_attrs.get("released", "[]")), why]
        self.note(number, {"released": json.dumps(reasons), "owner": ""})
        self.storage.set_trial_state_values(self._id(number), TrialState.WAITING)
        self.own.pop(number, None)

    def complete(self, number: int, values: Sequence[float]) -> None:
        """Make a RUNNING trial COMPLETE, with its values by objective."""
        self.study.tell(number, list(values))
        self.own.pop(number, None)

    def prune(self, number: int) -> None:
        """Make a RUNNING trial PRUNED; its value is the last that it reported."""
        self.study.tell(number, state=TrialState.PRUNED)
        self.own.pop(number, None)

    def fail(self, number: int, why: str, *, final: bool) -> None:
        """Make a RUNNING trial FAIL, and store the reason and the code that it happened with, for which alone it counts."""
        self.note(number, {"failure": why, "final": final, "code": self.code})
        self.study.tell(number, state=TrialState.FAIL)
        self.own.pop(number, None)

    def orphans(self) -> list[FrozenTrial]:
        """Return the RUNNING trials whose driver is dead."""
        running = [t for t in self.trials(TrialState.RUNNING) if t.number not in self.own]
        if not self.shared:
            return running
        stale = optuna_internals.stale_trials(self.database, self.study)
        # Optuna does not count a trial as stale that never had a heartbeat, its driver having died before: such are timed here.
        silent = [t for t in running if t.user_attrs.get("beats") != t.user_attrs.get("owner")]
        now = time.monotonic()
        self.first_seen = {t.number: self.first_seen.get(t.number, now) for t in silent}
        return [t for t in running if optuna_internals.trial_id(t) in stale or now - self.first_seen.get(t.number, now) > GRACE_S]

    def others(self) -> bool:
        """Return whether other drivers seem to be at work."""
        return self.shared and any(t.number not in self.own for t in self.trials(TrialState.RUNNING))

    def close(self) -> None:
        """End the heartbeats."""
        self.closed.set()

    def _id(self, number: int) -> int:
        """Return the storage id of a trial."""
        own = self.own.get(number)
        if own is not None:
            return own
        return int(self.storage.get_trial_id_from_study_id_trial_number(optuna_internals.study_id(self.study), number))

    def _beat(self) -> None:
        """Record heartbeats of this driver's trials until the store is closed."""
        while not self.closed.wait(BEAT_S):
            for trial_id in list(self.own.values()):
                try:
                    self.database.record_heartbeat(trial_id)
                except Exception:  # the server is away or locked for a while: the next beat may get through
                    break


def database(storage: str = "") -> str:
    """Return the URI of the trial database on the server `storage`, or in mlruns/ if that is empty; create it if it is missing."""
    return databases.trial_database(storage, OPTUNA_SCHEMA)


def _build(uri: str) -> None:
    """Create Optuna's tables in the empty database of a URI."""
    storage = optuna.storages.RDBStorage(uri)
    storage.remove_session()
    storage.engine.dispose()


def _revisions() -> Sequence[str]:
    """Return all schema revisions that this version of Optuna knows, the newest first."""
    revisions: Sequence[str] = optuna.storages.RDBStorage("sqlite://").get_all_versions()
    return revisions


OPTUNA_SCHEMA = Schema("Optuna", _build, _revisions, "optuna storage upgrade --storage")


@contextmanager
def driver_lock(study: str) -> Iterator[None]:
    """Hold the lock of a study's only driver in this home folder; raise MachineError at once if another driver has it."""
    with lock(paths.mlruns() / "locks" / f"{study}.lock", busy=f"another driver is running the study {study!r}"):
        yield
