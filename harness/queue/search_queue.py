"""The queue of a search: asks for points, hands out their runs, and tells what they brought, in an order that kills cannot change.

Points are asked for in batches, the next one while this one trains. What a sampler says depends on what it has been told, so
when it is told is a rule over the ledger, not a matter of timing: batch k + 1 is asked for once batch k - 1 is told, and nothing of
batch k is told before batch k + 1 is asked for. So a search that was killed anywhere takes the path of an undisturbed one. Drivers
that share a ledger ask when they have a free place, each point on its own: their path depends on timing.
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
from harness.queue.pareto import SearchTrial, asked, front
from harness.queue.protocol import ATTEMPTS, LOST, Assignment, Look, Outcome, Pruning, Repairs
from harness.queue.results import Outcomes
from harness.queue.store import OVER, TrialStore
from harness.study import Cell, Search


class SearchQueue:
    """Asks for `budget.trials` points, at most `batch` at a time."""

    def __init__(self, store: TrialStore, search: Search, budget: str, batch: int) -> None:
        self.store, self.search, self.budget, self.batch = store, search, budget, batch
        self.outcomes = Outcomes(store, search, search.budgets[budget].epochs)
        self.wanted = search.budgets[budget].trials
        self.store.study.pruner = samplers.pruner(search.pruner, search.budgets[budget].epochs)
        self.sequential = search.pruner is not None and search.pruner.name == "wilcoxon"
        self.asking: Future[None] | None = None
        self.thinker = ThreadPoolExecutor(1, "asks")
        self.leased: set[tuple[int, int]] = set()  # (trial, seed) pairs in training
        self.finished: set[str] = set()
        self.stopping = False
        self.epochs = search.budgets[budget].epochs

    # ---------------------------------------------------------------- what there is

    @property
    def trials(self) -> int:
        """Results to come in all: a run per trial and seed."""
        return self.wanted * len(self.search.seeds)

    @property
    def missing(self) -> int:
        """Results still to come."""
        return self.trials - len(self.search.seeds) * len(self._current(*OVER))

    def _current(self, *states: TrialState) -> list[FrozenTrial]:
        """All trials but those that were asked for again under another number."""
        again = {t.user_attrs.get("again") for t in self.store.trials()}
        return [t for t in self.store.trials(*states) if t.number not in again]

    def _cells(self, t: FrozenTrial) -> tuple[Cell, ...]:
        try:
            spec = self.search.point(self.budget, lambda p: t.params[p.name])
        except (KeyError, UserError) as fault:
            raise AssertionError(f"trial {t.number} of {self.store.name} is not of this search: {fault}") from fault
        return self.search.cells(t.number, spec, t.user_attrs["repeat"])

    def history(self) -> list[SearchTrial]:
        """Every trial asked for so far."""
        return [asked(self.search, t, self._cells(t)) for t in self._current()]

    def best(self) -> list[SearchTrial]:
        """Trials that no other beats in every objective, of those that keep the constraints and whose runs are all FINISHED."""
        return front([a for a in self.history() if set(a.runs) <= self.finished], self.search.objectives)

    def importances(self) -> dict[str, float]:
        """How much each parameter matters, largest first; empty where trials are too few."""
        return importances(self.store.study)

    # ---------------------------------------------------------------- asking

    def prepare(self) -> None:
        """Take up what waits, so that a sampler sees it as under way, and ask for the first batch."""
        self._take_up()
        self._think()

    def _take_up(self) -> None:
        if self.store.trials(TrialState.WAITING):
            with self.store.alone():
                for t in self.store.trials(TrialState.WAITING):
                    self.store.claim(t.number)

    def _batches(self) -> list[list[FrozenTrial]]:
        batches: dict[int, list[FrozenTrial]] = {}
        for t in self._current():
            batches.setdefault(t.user_attrs["batch"], []).append(t)
        return [batches[k] for k in sorted(batches)]

    def _due(self) -> bool:
        """Whether trials are to be asked for: the last batch is not whole, or of the batches only the last has some not over."""
        batches = self._batches()
        if sum(map(len, batches)) >= self.wanted:
            return False
        if self.store.shared:
            return not self._open()
        return (bool(batches) and _lacks(batches[-1])) or all(t.state in OVER for batch in batches[:-1] for t in batch)

    def _think(self) -> None:
        """Ask for the next batch in the background, if it is due and nothing is being asked."""
        if self.asking is not None and self.asking.done():
            self.asking.result()
            self.asking = None
        if self.asking is None and self._due():
            self.asking = self.thinker.submit(self._ask_batch)

    def _ask_batch(self) -> None:
        with self.store.alone():
            if not self._due():  # another driver was faster
                return
            batches = self._batches()
            if not batches or not _lacks(batches[-1]):
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

    def _open(self) -> list[tuple[FrozenTrial, int]]:
        """Runs of this driver's trials that may start now, as trial and seed."""
        there = []
        for t in self._current(TrialState.RUNNING):
            if t.number not in self.store.mine or "outcome" in t.user_attrs:
                continue
            left = self.outcomes.missing(t)
            there += [(t, i) for i in (left[:1] if self.sequential else left) if (t.number, i) not in self.leased]
        return there

    def take(self, most: int, alike: Callable[[Cell], Hashable]) -> list[Assignment]:
        """The next runs that train together, at most `most`."""
        self._take_up()
        self._advance()
        assignments: list[Assignment] = []
        for t, part in self._open():
            cell = self._cells(t)[part]
            if len(assignments) == most or (assignments and alike(cell) != alike(assignments[0].cell)):
                break
            attempt = 1 + len(released(t))
            assignments.append(Assignment(t.number, cell, attempt, t.user_attrs.get(f"run.{part}", ""), part))
            self.leased.add((t.number, part))
        return assignments

    def note_run(self, assignment: Assignment, run: str) -> None:
        """Remember a trial's run before it trains."""
        self.store.note(assignment.number, {f"run.{assignment.part}": run})

    # ---------------------------------------------------------------- hearing

    @property
    def pruning(self) -> Pruning | None:
        """This queue where a pruner looks at every epoch; None without one, or where it looks at whole seeds."""
        return self if self.search.pruner is not None and not self.outcomes.over_seeds else None

    def report(self, assignment: Assignment, epoch: int, row: Mapping[str, float]) -> bool:
        """Take an epoch's value of the objective and return whether the trial is to be pruned."""
        return self.outcomes.judge(assignment.number, epoch, row[self.search.objectives[0]])

    def pruned(self, assignment: Assignment) -> Outcome:
        """Take note that the run of a trial that `report` judged hopeless has ended."""
        self.leased.discard((assignment.number, assignment.part))
        self._advance()
        return Outcome(skipped=self._skipped(assignment))

    def complete(self, assignment: Assignment, metrics: Mapping[str, float]) -> Outcome:
        """Take the scores of a FINISHED run. Optuna is told of its trial as soon as the order of batches allows."""
        self.leased.discard((assignment.number, assignment.part))
        self.finished.add(assignment.run)
        if not self.store.holds(assignment.number):
            self.store.mine.pop(assignment.number, None)
            return Outcome(counted=False)
        self.outcomes.settle(assignment.number, assignment.part, metrics)
        self._advance()
        return Outcome(skipped=self._skipped(assignment))

    def fail(self, assignment: Assignment, why: str, *, final: bool) -> Outcome:
        """Try a run again, the reason kept, unless the failure is final or the attempts are used up."""
        self.leased.discard((assignment.number, assignment.part))
        if not self.store.holds(assignment.number):
            self.store.mine.pop(assignment.number, None)
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
        gone = {(t.number, i) for i in self.outcomes.missing(t)} - self.leased
        self.leased |= gone
        return len(gone - {(assignment.number, assignment.part)})

    def _advance(self) -> None:
        """Tell every outcome that the order of batches allows, by number; then ask on."""
        if self.asking is not None and not self.asking.done():
            return
        self._think()
        if self.asking is not None:
            return
        batches = self._batches()
        complete = sum(map(len, batches)) >= self.wanted
        told = batches if complete or self.store.shared else batches[:-1]
        with self.store.alone():
            for t in [t for batch in told for t in batch if t.state == TrialState.RUNNING and t.number in self.store.mine]:
                if "outcome" in t.user_attrs:
                    self.outcomes.tell(t)
        self._think()

    def busy(self) -> bool:
        """Whether something may still come without a run in training: points being asked for, outcomes to tell, other drivers."""
        self._advance()
        return self.asking is not None or bool(self._open()) or self.store.others() or len(self._current(*OVER)) < self.wanted

    # ---------------------------------------------------------------- stopping and starting

    def release(self, look: Look) -> None:
        """What this driver works on is WAITING again, for it was told to stop; runs that had just finished count."""
        self.stopping = True
        if self.asking is not None:
            self.asking.exception()
        with self.store.alone():
            for number in list(self.store.mine):
                if self.store.holds(number):
                    self._cut_off(self.store.trial(number), look)

    def reconcile(self, look: Look, finished: set[str]) -> Repairs:
        """Settle what dead drivers left: finished runs are taken over, trials cut off wait again under their number."""
        with self.store.alone():
            self.finished = set(finished)
            self._queue_failed()
            found = [self._cut_off(t, look) for t in self.store.orphans()]
        return Repairs(sum(f.adopted for f in found), sum(f.lost for f in found))

    def _cut_off(self, t: FrozenTrial, look: Look) -> Repairs:
        adopted = lost = 0
        if "outcome" not in t.user_attrs:
            for i in self.outcomes.missing(t):
                status, metrics = look(t.user_attrs.get(f"run.{i}", ""))
                if status == "FINISHED":
                    self.outcomes.settle(t.number, i, metrics)
                    adopted += 1
                elif status:
                    lost += 1
            if "outcome" not in self.store.trial(t.number).user_attrs:
                self.outcomes.conclude(t.number)
        self.store.release(t.number, LOST)
        return Repairs(adopted, lost)

    def _queue_failed(self) -> None:
        """A trial that something else failed, without a reason of ours, is asked for again with the same parameters."""
        for t in self._current(TrialState.FAIL):
            if "failure" not in t.user_attrs:
                kept = {k: t.user_attrs[k] for k in ("batch", "of", "repeat")}
                self.store.queue(t.params, t.distributions, kept | {"again": t.number})

    def runs(self) -> set[str]:
        """Runs that trials name and that may be FINISHED or RUNNING, as a pruned trial's first seeds are; any other is nobody's."""
        return _named(self._current())

    def live_runs(self) -> set[str]:
        """Runs that somebody works on."""
        return _named(self.store.trials(TrialState.RUNNING))


def _named(trials: Sequence[FrozenTrial]) -> set[str]:
    """The runs of trials."""
    return {run for t in trials for key, run in t.user_attrs.items() if key.startswith("run.") and run}


def _size(batch: Sequence[FrozenTrial]) -> int:
    """Trials that a batch has when it is whole; 0 for one not begun."""
    return batch[0].user_attrs["of"] if batch else 0


def _lacks(batch: Sequence[FrozenTrial]) -> bool:
    """Whether a kill came before all of a batch was asked for."""
    return len(batch) < _size(batch)
