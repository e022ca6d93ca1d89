"""The time that a study still takes, from what its trials have taken so far.

A trial takes a start, its epochs and its evaluation; each is observed (costs.py). What is left is then played through on the
workers: each takes the next trial when it is free, so that the last trials may leave workers idle, and the trials of a search are
followed by those that test the best. Until something was observed, what trials took before is expected. Times are in seconds of a
clock that the caller may choose.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from harness.runner.costs import FIRST_S, NEVER, NEXT_S, START_S, Costs, Survival, Work

# After the last trial: the report, what it has of each arm, and each trial's record; a search's figures take as long as three arms.
REPORT_S, REPORT_ARM_S, REPORT_TRIAL_S, AS_ARMS = 4.0, 0.2, 0.03, 3
LATE = 0.1  # of what a part should take: what is left of one that has taken longer


@dataclass(frozen=True)
class Part:
    """A part of a command that has begun, of which nothing is seen until it has ended.

    Attributes:
        seconds: that it should take.
        further: seconds that should follow it.
        since: when it began, in seconds of the monotonic clock.
    """

    seconds: float
    further: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the seconds until all is done; a little is left of a part that takes longer than it should."""
        return max(self.seconds - (time.monotonic() - self.since), LATE * self.seconds) + self.further


def report_s(trials: int, reported: int, pace: float) -> float:
    """Return the guessed seconds of the report of so many trials and arms, a search being `AS_ARMS` more.

    `pace` is that of evaluations, several at a time; a report has the cores to itself, so that its own is nearer to 1.
    """
    return (REPORT_S + REPORT_ARM_S * reported + REPORT_TRIAL_S * trials) * math.sqrt(pace)


class Later(NamedTuple):
    """What follows the trials of a queue.

    Attributes:
        stages: trials, as far as they are known.
        pruned: the share of the queue's trials that its pruner is expected to end after an epoch, by epoch.
        reported: the arms of the report, a search being `AS_ARMS` more.
    """

    stages: Sequence[Sequence[Work]] = ()
    pruned: Mapping[int, float] = NEVER
    reported: int = 1


NOTHING_MORE = Later()


@dataclass(kw_only=True)
class Job:
    """Trials that train together.

    Attributes:
        works: those that have not ended, by the trial's id.
        kind: of all of them; empty if they are of several.
        epochs: that they train.
        began: when its worker was free for it.
        first: True if its worker has had no job before.
        start: the epoch that it goes on from.
        epoch: the newest epoch.
        at: when that ended.
        free: when its worker was free to evaluate, if that does so: one time, from `at` on.
        imports: True until its worker has evaluated a trial, if it is the first that this does.
    """

    works: dict[str, Work]
    kind: str
    epochs: int
    began: float
    first: bool
    start: int
    epoch: int
    at: float
    free: list[float] = field(default_factory=list)
    imports: bool = False


class Estimate:
    """An estimate of the time left, that follows the trials of a driver. Another thread may ask for it.

    Args:
        coming: the trials to run, in their order.
        workers: how many jobs train at a time.
        lanes: the most trials of a job.
        evaluators: the processes that evaluate beside the workers; 0 if these evaluate what they have trained.
        costs: what was observed of trials before.
        later: what follows these.
        now: the clock.
    """

    def __init__(
        self,
        coming: Iterable[Work],
        *,
        workers: int,
        lanes: int = 1,
        evaluators: int = 0,
        costs: Costs | None = None,
        later: Later = NOTHING_MORE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.coming, self.workers, self.lanes, self.later, self.now = list(coming), workers, lanes, later, now
        self.costs, self.survival = costs or Costs(), Survival(later.pruned)
        self.trials = len(self.coming) + sum(map(len, later.stages))
        self.started = now()
        self.slots = [self.started] * workers  # when workers became free
        self.unused = workers  # of these, those that have had no job
        self.evaluators = [self.started] * evaluators  # when they became free
        self.evaluated = 0
        self.jobs: dict[str, Job] = {}  # by the id of each of its trials that has not ended
        self.lock = threading.RLock()

    # ------------------------------------------------------------------ what happens

    def submitted(self, works: Mapping[str, Work], start: int = 0) -> None:
        """Note that these trials, by id, train together from now on, after `start` epochs that they have already."""
        with self.lock:
            for work in works.values():
                self.drop(1, work.kind)
            now, kinds = self.now(), {work.kind for work in works.values()}
            job = Job(
                works=dict(works),
                kind=kinds.pop() if len(kinds) == 1 else "",
                epochs=max(work.epochs for work in works.values()),
                began=heappop(self.slots) if self.slots else now,
                first=self.unused > 0,
                imports=self.unused > 0,
                start=start,
                epoch=start,
                at=now,
            )
            self.unused = max(0, self.unused - 1)
            self.jobs |= dict.fromkeys(works, job)

    def epoch(self, trial: str, epoch: int, rate_s: float) -> None:
        """Note that a trial has finished an epoch.

        `rate_s` are the seconds that its steps took for each trial of the program; 0 if they are not known.
        """
        with self.lock:
            job, now = self.jobs.get(trial), self.now()
            if job is None:
                return
            self.survival.reached(epoch)
            if epoch <= job.epoch:  # another trial of the job has told of it
                return
            rate_s *= len(job.works)
            self.costs.rate_s[job.kind].add(rate_s)
            if job.epoch > job.start:
                self.costs.epoch_s[job.kind].add(now - job.at)
            else:
                (self.costs.start_s if job.first else self.costs.next_s).add(max(0.0, now - job.began - rate_s))
            job.epoch, job.at, job.free = epoch, now, [now]
            if self.evaluators and epoch == job.epochs:
                heappush(self.slots, now)

    def ended(self, trial: str, *, pruned: bool = False, evaluated: bool = False, again: bool = False) -> None:
        """Note that a trial has ended: because it was pruned, or evaluated, or because it failed and may be tried `again`."""
        with self.lock:
            job, now = self.jobs.pop(trial, None), self.now()
            if job is None:
                return
            work = job.works.pop(trial)
            if again:
                self.coming.append(work)
            if pruned or (evaluated and job.epoch < work.epochs):
                self.survival.over(job.epoch, pruned=pruned)
            if evaluated:
                free = self.evaluators or job.free or [job.at]
                heapify(free)
                self.costs.evaluated(work, now - max(free[0], job.at), first=self._imports(job))
                heapreplace(free, now)
                self.evaluated += 1
                job.imports = False
            if not job.works and not (self.evaluators and job.epoch == job.epochs):
                heappush(self.slots, now)

    def drop(self, count: int, kind: str = "") -> None:
        """Forget that many of the trials to come, first those of a kind."""
        with self.lock:
            for _ in range(count):
                at = next((i for i, work in enumerate(self.coming) if work.kind == kind), 0)
                del self.coming[at : at + 1]

    # ------------------------------------------------------------------ what is left

    def left(self) -> float | None:
        """Return the seconds until all is done and reported; None if nothing tells what an epoch takes."""
        with self.lock:
            if self.costs.of_epoch("") is None:
                return None
            now, pace = self.now(), self.costs.pace
            workers: list[float] = []
            evaluations: list[tuple[float, float]] = []  # (when it may begin, seconds), for the evaluators
            for job in {id(job): job for job in self.jobs.values()}.values():
                trained = now + self._training_left(job, now)
                seconds = [self._evaluation(work, job.epoch, self.survival) for work in job.works.values()]
                seconds[0] += FIRST_S * pace if self._imports(job) else 0.0
                if not self.evaluators:
                    spent = now - max(job.free) if job.free and job.epoch == job.epochs else 0.0
                    workers.append(trained + max(sum(seconds) - spent, LATE * sum(seconds)))
                    continue
                evaluations += [(trained, s) for s in seconds]
                if job.epoch < job.epochs:
                    workers.append(trained)
            idle = self.workers - len(workers)
            workers += [now + (START_S if i < self.unused else 0.0) for i in range(idle)]
            end = self._played(self.coming, workers, evaluations, now, self.survival)
            for stage in self.later.stages:
                end = self._played(stage, [end + NEXT_S + FIRST_S * pace] * self.workers, [], end, Survival())
            return end - now + report_s(self.trials, self.later.reported, pace)

    def _played(
        self,
        works: Sequence[Work],
        workers: list[float],
        evaluations: list[tuple[float, float]],
        now: float,
        survival: Survival,
    ) -> float:
        """Return when the last of these trials is done.

        Args:
            works: the trials, of which each worker takes the next ones when it is free.
            workers: when each is free.
            evaluations: what the evaluators have to do beside, as times at which it may begin and seconds.
            now: the time.
            survival: of the trials.
        """
        heapify(workers)
        end, todo = max([now, *workers]), list(evaluations)
        for i in range(0, len(works), self.lanes):
            together = works[i : i + self.lanes]
            epochs = survival.epochs_after(0, together[0].epochs, len(together))
            start = self.costs.next_s.or_else(NEXT_S)
            trained = workers[0] + start + epochs * (self.costs.of_epoch(together[0].kind) or 0.0)
            seconds = [self._evaluation(work, 0, survival) for work in together]
            heapreplace(workers, trained if self.evaluators else trained + sum(seconds))
            todo += [(trained, s) for s in seconds] if self.evaluators else []
            end = max(end, *workers)
        evaluators = [now] * len(self.evaluators)
        for ready, s in sorted(todo):
            heapreplace(evaluators, max(ready, evaluators[0]) + s)
        return max(end, *evaluators, now)

    def _training_left(self, job: Job, now: float) -> float:
        """Return the seconds that a job still trains."""
        epoch_s = self.costs.of_epoch(job.kind) or 0.0
        if job.epoch == job.epochs:
            return 0.0
        begins = self.costs.start_s.or_else(START_S) if job.first else self.costs.next_s.or_else(NEXT_S)
        this = epoch_s + (begins if job.epoch == job.start else 0.0)
        spent = now - (job.began if job.epoch == job.start else job.at)
        further = self.survival.epochs_after(job.epoch, job.epochs, len(job.works)) - 1
        return max(this - spent, LATE * this) + further * epoch_s

    def _evaluation(self, work: Work, epoch: int, survival: Survival) -> float:
        """Return the expected seconds of the evaluation of a trial that has trained `epoch` epochs."""
        return survival.reaches_evaluation(epoch, work.epochs) * self.costs.of_evaluation(work)

    def _imports(self, job: Job) -> bool:
        """Return whether the next trial of a job to be evaluated is the first of the process that does so."""
        return self.evaluated < len(self.evaluators) if self.evaluators else job.imports
