"""The queue of a search: asks for points, hands out their runs, and tells Optuna the outcomes in an order that kills do not change.

Points are asked for in batches, the next one while the current one trains. A sampler's points depend on the outcomes it has been
told, so the time of telling follows a rule over the trial store instead of the trials' timing: batch k + 1 is asked for once batch
k - 1 is told, and nothing of batch k is told before batch k + 1 is asked for. Therefore a search that was killed at any moment
takes the path of an undisturbed one. Drivers that share a store ask when they have a free worker, each point on its own: their
path depends on timing.
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from optuna.trial import FrozenTrial, TrialState

from harness.errors import UserError
from harness.queue import samplers
from harness.queue.ablation_queue import released
from harness.queue.importances import importances
from harness.queue.pareto import SearchTrial, front, search_trial
from harness.queue.protocol import ATTEMPTS, LOST, Assignment, LookUpRun, Outcome, Pruning, Repairs
from harness.queue.restoring import LostResults
from harness.queue.results import SearchOutcomes
from harness.queue.store import OVER, TrialStore
from harness.study import Cell, Search


class SearchQueue:
    """A `TrialQueue` that asks for as many points as a search's budget has trials, at most `batch` at a time.

    Attributes:
        store: the trials.
        search: the search.
        budget: the name of its budget.
        batch: the most points of a batch.
        outcomes: the record of results and outcomes.
        wanted: the number of trials of the budget.
        sequential: True if the seeds of a trial run one after another, since the pruner judges by them.
        asking: the batch that is being asked for in the background; None if none is.
        leased: pairs of trial number and index of the seed, of the runs that are in training or not needed any more.
        finished: the ids of all runs known as FINISHED.
        lost: finished runs whose trials the store has lost.
        read_back: how many results came from these and were not told of yet.
        stopping: True once the driver was told to stop.
        epochs: the epochs of a trial.
    """

    def __init__(self, store: TrialStore, search: Search, budget: str, batch: int) -> None:
        self.store, self.search, self.budget, self.batch = store, search, budget, batch
        self.outcomes = SearchOutcomes(store, search, search.budgets[budget].epochs)
        self.wanted = search.budgets[budget].trials
        self.store.study.pruner = samplers.pruner(search.pruner, search.budgets[budget].epochs)
        self.sequential = search.pruner is not None and search.pruner.name == "wilcoxon"
        self.asking: Future[None] | None = None
        self.background = ThreadPoolExecutor(1, "asks")
        self.leased: set[tuple[int, int]] = set()
        self.finished: set[str] = set()
        self.lost = LostResults()
        self.read_back = 0
        self.stopping = False
        self.epochs = search.budgets[budget].epochs

    # ---------------------------------------------------------------- trials

    @property
    def trials(self) -> int:
        """The number of results when the search is complete: one per trial and seed."""
        return self.wanted * len(self.search.seeds)

    @property
    def missing(self) -> int:
        """The number of results still to come."""
        return self.trials - len(self.search.seeds) * len(self._current(*OVER))

    def _current(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, or all, but for those that were queued again under another number."""
        again = {t.user_attrs.get("again") for t in self.store.trials()}
        return [t for t in self.store.trials(*states) if t.number not in again]

    def _cells(self, t: FrozenTrial) -> tuple[Cell, ...]:
        """Return the cells of a trial's runs, one per seed."""
        try:
            spec = self.search.point(self.budget, lambda p: t.params[p.name])
        except (KeyError, UserError) as fault:
            raise AssertionError(f"trial {t.number} of {self.store.name} is not of this search: {fault}") from fault
        return self.search.cells(t.number, spec, t.user_attrs["repeat"])

    def history(self) -> list[SearchTrial]:
        """Return every trial that was asked for so far."""
        return [search_trial(self.search, t, self._cells(t)) for t in self._current()]

    def best(self) -> list[SearchTrial]:
        """Return the Pareto front of the feasible trials whose runs are all FINISHED, best by the first objective first."""
        objectives = [self.search.scores[key] for key in self.search.objectives]
        return front([t for t in self.history() if set(t.runs) <= self.finished], objectives)

    def importances(self) -> dict[str, float]:
        """Return the importance of each parameter, largest first; empty if trials are too few."""
        return importances(self.store.study)

    def coming(self) -> list[Cell]:
        """Return no cell: points are asked for while others train."""
        return []

    # ---------------------------------------------------------------- asking

    def prepare(self) -> None:
        """Claim the WAITING trials, so that a sampler sees them as under way, and ask for the first batch."""
        self._claim_waiting()
        self._ask_ahead()

    def _claim_waiting(self) -> None:
        """Make all WAITING trials this driver's."""
        if self.store.trials(TrialState.WAITING):
            with self.store.alone():
                for t in self.store.trials(TrialState.WAITING):
                    self.store.claim(t.number)

    def _batches(self) -> list[list[FrozenTrial]]:
        """Return the trials by batch, in the order in which the batches were asked for."""
        batches: dict[int, list[FrozenTrial]] = {}
        for t in self._current():
            batches.setdefault(t.user_attrs["batch"], []).append(t)
        return [batches[k] for k in sorted(batches)]

    def _due(self) -> bool:
        """Return whether trials are to be asked for.

        They are if the last batch is incomplete or all trials of the batches before it are over; in a shared store if this driver
        has no run to start.
        """
        batches = self._batches()
        if sum(map(len, batches)) >= self.wanted:
            return False
        if self.store.shared:
            return not self._startable()
        return (bool(batches) and _is_incomplete(batches[-1])) or all(t.state in OVER for batch in batches[:-1] for t in batch)

    def _ask_ahead(self) -> None:
        """Ask for the next batch in the background if it is due and none is being asked for.

        An exception of the batch before is raised here.
        """
        if self.asking is not None and self.asking.done():
            self.asking.result()
            self.asking = None
        if self.asking is None and self._due():
            self.asking = self.background.submit(self._ask_batch)

    def _ask_batch(self) -> None:
        """Ask for the next batch, or the rest of an incomplete one, and enter its trials in the store."""
        with self.store.alone():
            if not self._due():  # another driver was faster
                return
            batches = self._batches()
            if not batches or not _is_incomplete(batches[-1]):
                batches.append([])
            size = _size(batches[-1]) or min(self.batch, self.wanted - sum(map(len, batches)))
            count = size - len(batches[-1])
            name, point = self.search.sampler_of(self.budget), partial(self.search.point, self.budget)
            earlier = [t.params for t in self.store.trials()]
            for trial in samplers.ask(self.store.study, name, point, count):
                if self.stopping:
                    return
                self.store.begin(trial, {"batch": len(batches) - 1, "of": size, "repeat": earlier.count(trial.params)})
                earlier.append(trial.params)

    # ---------------------------------------------------------------- handing out

    def _startable(self) -> list[tuple[FrozenTrial, int]]:
        """Return the runs of this driver's trials that may start now, as pairs of trial and index of the seed."""
        runs = []
        for t in self._current(TrialState.RUNNING):
            if t.number not in self.store.own or "outcome" in t.user_attrs:
                continue
            missing = self.outcomes.missing(t)
            runs += [(t, i) for i in (missing[:1] if self.sequential else missing) if (t.number, i) not in self.leased]
        return runs

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """Return the next runs that train together, at most `most` of equal `alike`."""
        self._claim_waiting()
        self._advance()
        self._settle_lost()
        assignments: list[Assignment] = []
        for t, part in self._startable():
            cell = self._cells(t)[part]
            if cell.spec.id in self.lost.runs:  # asked for a moment ago: the next call settles it
                continue
            if len(assignments) == most or (assignments and alike(cell) != alike(assignments[0].cell)):
                break
            attempt = 1 + len(released(t))
            assignments.append(Assignment(t.number, cell, attempt, t.user_attrs.get(f"run.{part}", ""), part))
            self.leased.add((t.number, part))
        return assignments

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Store the id of a trial's run, before it trains."""
        self.store.note(assignment.number, {f"run.{assignment.part}": run})

    def note_manifest(self, assignment: Assignment, digest: str) -> None:
        """Store the digest of the manifest of a trial's run, if the trial is still this driver's."""
        if self.store.holds(assignment.number):
            self.store.note(assignment.number, {f"manifest.{assignment.part}": digest})

    # ---------------------------------------------------------------- taking results

    @property
    def pruning(self) -> Pruning | None:
        """This queue if a pruner judges every epoch; None if there is no pruner, or if it judges whole seeds."""
        return self if self.search.pruner is not None and not self.outcomes.over_seeds else None

    def report(self, assignment: Assignment, epoch: int, row: Mapping[str, float]) -> bool:
        """Take an epoch's value of the objective and return whether the trial is to be pruned."""
        return self.outcomes.judge(assignment.number, epoch, row[self.search.objectives[0]])

    def pruned(self, assignment: Assignment) -> Outcome:
        """Record that the run of a trial has ended, which `report` had judged hopeless."""
        self.leased.discard((assignment.number, assignment.part))
        self._advance()
        return Outcome(skipped=self._skipped(assignment))

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Take the scores of a FINISHED run. Optuna is told the trial's outcome as soon as the order of batches allows."""
        self.leased.discard((assignment.number, assignment.part))
        self.finished.add(assignment.run)
        if not self.store.holds(assignment.number):
            self.store.own.pop(assignment.number, None)
            return Outcome(counted=False)
        self.outcomes.settle(assignment.number, assignment.part, metrics)
        self._advance()
        return Outcome(skipped=self._skipped(assignment))

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Let a run be tried again and store the reason, unless the failure is final or the attempts are used up."""
        self.leased.discard((assignment.number, assignment.part))
        if not self.store.holds(assignment.number):
            self.store.own.pop(assignment.number, None)
            return Outcome(counted=False, retried=True)
        reasons = [*released(self.store.trial(assignment.number)), why]
        again = not final and len([w for w in reasons if w != LOST]) < ATTEMPTS
        if again:
            self.store.note(assignment.number, {"released": json.dumps(reasons)})
        else:
            self.outcomes.failed(assignment.number, why)
        self._advance()
        return Outcome(retried=again, skipped=self._skipped(assignment))

    def _skipped(self, assignment: Assignment) -> int:
        """Return how many further runs are not needed, since the trial is pruned or has failed. Each is counted once."""
        t = self.store.trial(assignment.number)
        if t.user_attrs.get("outcome", "complete") == "complete":
            return 0
        unneeded = {(t.number, i) for i in self.outcomes.missing(t)} - self.leased
        self.leased |= unneeded
        return len(unneeded - {(assignment.number, assignment.part)})

    def _advance(self) -> None:
        """Tell Optuna every outcome that the order of batches allows, by trial number, and ask for the next batch if it is due."""
        if self.asking is not None and not self.asking.done():
            return
        self._ask_ahead()
        if self.asking is not None:
            return
        batches = self._batches()
        complete = sum(map(len, batches)) >= self.wanted
        tellable = batches if complete or self.store.shared else batches[:-1]
        own = [t for batch in tellable for t in batch if t.state == TrialState.RUNNING and t.number in self.store.own]
        due = [t for t in own if "outcome" in t.user_attrs]
        if due:
            with self.store.alone():
                for t in due:
                    self.outcomes.tell(t)
        self._ask_ahead()

    def busy(self) -> bool:
        """Return whether trials or results may still come without a run in training.

        Points may be being asked for, outcomes untold, or other drivers at work.
        """
        self._advance()
        return self.asking is not None or bool(self._startable()) or self.store.others() or len(self._current(*OVER)) < self.wanted

    # ---------------------------------------------------------------- stopping and starting

    def _settle_lost(self) -> None:
        """Settle runs that may start and whose results are known of trials that were lost, until there are none."""

        def settle(t: FrozenTrial, part: int) -> bool:
            ids = [cell.spec.id for cell in self._cells(t)]
            found = self.store.holds(t.number) and self.lost.settle(self.outcomes, t.number, part, ids)
            self.read_back += found
            return found

        while self.lost.runs and True in [settle(t, part) for t, part in self._startable()]:
            self._advance()

    def release(self, look_up: LookUpRun) -> None:
        """Make this driver's trials WAITING again because it was told to stop; runs that are FINISHED count."""
        self.stopping = True
        if self.asking is not None:
            self.asking.exception()
        with self.store.alone():
            for number in list(self.store.own):
                if self.store.holds(number):
                    self._release(self.store.trial(number), look_up)

    def reconcile(self, look_up: LookUpRun, finished: set[str]) -> Repairs:
        """Settle the trials of dead drivers: take over FINISHED runs and make the trials WAITING again, under their number.

        `finished` are the ids of all FINISHED runs.
        """
        with self.store.alone():
            self.finished = set(finished)
            self._queue_again(look_up)
            repairs = [self._release(t, look_up) for t in self.store.orphans()]
        return Repairs(sum(r.adopted for r in repairs), sum(r.lost for r in repairs))

    def _release(self, t: FrozenTrial, look_up: LookUpRun) -> Repairs:
        """Make a trial WAITING again, with the results of its FINISHED runs recorded. Return how many these and the others are."""
        adopted = lost = 0
        if "outcome" not in t.user_attrs:
            for i in self.outcomes.missing(t):
                status, metrics = look_up(t.user_attrs.get(f"run.{i}", ""))
                if status == "FINISHED":
                    self.outcomes.settle(t.number, i, metrics)
                    adopted += 1
                elif status:
                    lost += 1
            if "outcome" not in self.store.trial(t.number).user_attrs:
                self.outcomes.conclude(t.number)
        self.store.release(t.number, LOST)
        return Repairs(adopted, lost)

    def _queue_again(self, look_up: LookUpRun) -> None:
        """Queue every trial again, with its parameters, that something else made FAIL, or whose results are gone from MLflow."""
        failed = [t for t in self._current(TrialState.FAIL) if "failure" not in t.user_attrs]  # which has no reason of ours
        gone = [t for t in self.gone() if any(look_up(run)[0] != "FINISHED" for run in _run_ids([t]))]
        for t in (*failed, *gone):
            facts = {k: t.user_attrs[k] for k in ("batch", "of", "repeat")}
            self.store.queue(t.params, t.distributions, facts | {"again": t.number})

    def gone(self) -> list[FrozenTrial]:
        """Return the COMPLETE trials with a run that is not known as FINISHED, as after it was deleted in MLflow."""
        return [t for t in self._current(TrialState.COMPLETE) if not _run_ids([t]) <= self.finished]

    def named(self) -> dict[str, str]:
        """Return the id of the cell by run of every run that a trial names."""
        return {
            run: cell.spec.id
            for t in self._current()
            for i, cell in enumerate(self._cells(t))
            if (run := t.user_attrs.get(f"run.{i}"))
        }

    def runs(self) -> set[str]:
        """Return the ids of the runs that trials name, or will; any other run belongs to no trial.

        Pruned trials are included: their first seeds may be FINISHED.
        """
        return _run_ids(self._current()) | self.lost.ids()

    def live_runs(self) -> set[str]:
        """Return the ids of the runs of RUNNING trials."""
        return _run_ids(self.store.trials(TrialState.RUNNING))


def _run_ids(trials: Sequence[FrozenTrial]) -> set[str]:
    """Return the ids of all runs of these trials."""
    return {run for t in trials for key, run in t.user_attrs.items() if key.startswith("run.") and run}


def _size(batch: Sequence[FrozenTrial]) -> int:
    """Return the number of trials of a batch when it is complete; 0 if it is not begun."""
    return batch[0].user_attrs["of"] if batch else 0


def _is_incomplete(batch: Sequence[FrozenTrial]) -> bool:
    """Return whether a batch has fewer trials than it should, as after a kill while it was asked for."""
    return len(batch) < _size(batch)
