"""The time left, on studies that are played through in simulated time: how far off it is after a tenth and after a half."""

import random
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush

import pytest

from harness.runner.costs import EVALUATION_S, FIRST_S, NEVER, NEXT_S, SEARCHED, Before, Costs, Survival, Work
from harness.runner.estimate import Estimate, Later, report_s
from harness.study import Pruner


class Play:
    """A study in simulated time, which tells an estimate what happens.

    `cost` gives the seconds of start, epoch and evaluation of a trial, and `ends` after how many epochs it is pruned, if it is.
    """

    def __init__(
        self,
        works: Sequence[Work],
        cost: Callable[[Work], tuple[float, float, float]],
        *,
        workers: int,
        lanes: int = 1,
        evaluators: int = 0,
        first_s: float = 2.0,
        imports_s: float = 1.2,
        stage: Sequence[Work] = (),
        ends: Callable[[int], int] = lambda i: 10**6,
        pruned: Mapping[int, float] = NEVER,
        start: int = 0,
    ) -> None:
        self.t, self.cost, self.ends, self.start = 0.0, cost, ends, start
        self.workers, self.lanes, self.evaluators, self.first_s, self.imports_s = workers, lanes, evaluators, first_s, imports_s
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.number = 0
        self.trials = 0
        self.seen: list[tuple[float, float | None]] = []
        whole = len(works) + len(stage)
        self.estimate = Estimate(
            works,
            workers=workers,
            lanes=lanes,
            evaluators=evaluators,
            costs=Costs(EXPECTED),
            later=Later([stage] if stage else [], pruned, len(EPOCH_S)),
            now=lambda: self.t,
        )
        self._run(works)
        if stage:
            self.estimate, self.ends = self._next(stage), lambda i: 10**6
            self._run(stage)
        self.end = self.t + report_s(whole, len(EPOCH_S), PACE)

    def _next(self, stage: Sequence[Work]) -> Estimate:
        return Estimate(
            stage, workers=self.workers, now=lambda: self.t, costs=self.estimate.costs, later=Later(reported=len(EPOCH_S))
        )

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        self.number += 1
        heappush(self.queue, (self.t + seconds, self.number, what))

    def _run(self, works: Sequence[Work]) -> None:
        waiting, self.todo = list(works), list[tuple[str, Work]]()
        self.idle = self.evaluators
        for worker in range(self.workers):
            self._begin(waiting, self.first_s, self.imports_s, worker)
        while self.queue:
            at, _, what = heappop(self.queue)
            while not self.seen or self.seen[-1][0] + 0.5 < at:  # two looks a second
                self.t = self.seen[-1][0] + 0.5 if self.seen else 0.0
                self.seen.append((self.t, self.estimate.left()))
            self.t = at
            what()

    def _begin(self, waiting: list[Work], first_s: float, imports_s: float, worker: int) -> None:
        together, waiting[: self.lanes] = waiting[: self.lanes], []
        if not together:
            return
        works = {f"t{self.trials + i}": work for i, work in enumerate(together)}
        self.trials += len(works)
        start_epoch = self.start if first_s else 0
        self.estimate.submitted(works, start_epoch)
        start, epoch_s, _ = self.cost(together[0])
        ends = {trial: min(self.ends(int(trial[1:])), work.epochs) for trial, work in works.items()}

        def epoch(k: int) -> None:
            for trial in [t for t, last in ends.items() if last >= k]:
                self.estimate.epoch(trial, k, epoch_s * 0.95 / len(works))
                if ends[trial] == k < works[trial].epochs:
                    self.estimate.ended(trial, pruned=True)
                    del works[trial]
            if works and k < together[0].epochs:
                self.at(epoch_s, lambda: epoch(k + 1))
            elif not works:
                self._begin(waiting, 0.0, 0.0, worker)
            elif self.evaluators:
                self.todo += works.items()
                self._evaluate()
                self._begin(waiting, 0.0, 0.0, worker)
            else:
                evaluate(list(works.items()), imports_s)

        def evaluate(left: list[tuple[str, Work]], extra: float) -> None:
            if not left:
                self._begin(waiting, 0.0, 0.0, worker)
                return
            trial, work = left[0]

            def done() -> None:
                self.estimate.ended(trial, evaluated=True)
                evaluate(left[1:], 0.0)

            self.at(extra + self.cost(work)[2], done)

        self.at(first_s + start + epoch_s, lambda: epoch(start_epoch + 1))

    def _evaluate(self) -> None:
        while self.idle and self.todo:
            self.idle -= 1
            trial, work = self.todo.pop(0)

            def done(trial: str = trial) -> None:
                self.estimate.ended(trial, evaluated=True)
                self.idle += 1
                self._evaluate()

            self.at(self.cost(work)[2], done)

    def error(self, share: float) -> float | None:
        """How far off the time left was at a share of the whole, as a part of what was left; None if nothing was said."""
        at, left = min(self.seen, key=lambda s: abs(s[0] - share * self.end))
        return None if left is None else left / (self.end - at) - 1


EPOCH_S = {"bce": 2.0, "bernoulli": 2.2, "mse": 1.9, "shared": 2.0, "per_pixel": 2.9, "continuous": 2.6}
DEPTH_S = {**EVALUATION_S, "full": 12.0, "full, all figures": 14.0}
PACE = 1.15  # of this machine: all takes so much longer than is expected or guessed
EXPECTED = Before({kind: seconds / PACE for kind, seconds in EPOCH_S.items()})


def cost(work: Work) -> tuple[float, float, float]:
    return 0.2, EPOCH_S.get(work.kind, 2.0), PACE * DEPTH_S[work.evaluation]


def grid(seeds: int, epochs: int, depth: str = "quick") -> list[Work]:
    return [Work(arm, epochs, depth + ", all figures" * (seed == 0)) for seed in range(seeds) for arm in EPOCH_S]


def asha(i: int) -> int:
    """After how many epochs a trial is ended: the later it comes, the more likely after the first."""
    chance = random.Random(i)
    if i < 2 or chance.random() < 0.25:
        return 6
    return 3 if chance.random() < 0.2 else 1


ASHA = Pruner(name="asha").expected(6)
REFIT = [Work(arm, 6, "quick" + ", all figures" * (seed == 0)) for seed in range(6) for arm in ("base", "tuned")]
STUDIES = {
    "default": lambda: Play(grid(6, 6), cost, workers=2),
    "long": lambda: Play(grid(6, 50, "full"), cost, workers=2),
    "one epoch": lambda: Play(grid(1, 1), cost, workers=2),
    "few trials, last wave half full": lambda: Play(grid(1, 10)[:3], cost, workers=2),
    "more workers than trials": lambda: Play(grid(1, 20), cost, workers=16),
    "a last wave of one": lambda: Play(grid(3, 6)[:17], cost, workers=16),
    "resumed": lambda: Play(grid(1, 20), cost, workers=2, start=12),
    "cohorts": lambda: Play(grid(6, 30), cost, workers=1, lanes=36, evaluators=14),
    "cohorts on two": lambda: Play(grid(16, 10), cost, workers=2, lanes=8, evaluators=6),
    "search": lambda: Play([Work(SEARCHED, 6, "validation")] * 40, cost, workers=2, ends=asha, pruned=ASHA, stage=REFIT),
}


@pytest.mark.parametrize("study", STUDIES)
def test_the_time_left_is_right_within_20_percent_from_a_tenth_on(study: str) -> None:
    """Up to the last tenth, where a second is much."""
    play = STUDIES[study]()
    errors = {share: play.error(share) for share in (0.1, 0.2, 0.3, 0.5, 0.7)}
    known = {share: error for share, error in errors.items() if error is not None}
    assert len(known) >= 3
    assert all(abs(error) < 0.2 for error in known.values()), known


def test_nothing_is_said_before_the_first_epoch_has_ended() -> None:
    estimate = Estimate(grid(1, 3), workers=2, now=lambda: 0.0)
    assert estimate.left() is None
    estimate.submitted({"a": Work("bce", 3, "quick")})
    assert estimate.left() is None


def test_trials_that_are_spared_or_tried_again_change_what_is_left() -> None:
    t = 0.0
    estimate = Estimate(grid(2, 3), workers=1, now=lambda: t)
    estimate.submitted({"a": grid(2, 3)[0]})
    t = 5.0
    estimate.epoch("a", 1, 2.0)
    before = estimate.left() or 0.0
    estimate.ended("a", again=True)
    again = estimate.left() or 0.0
    assert again == pytest.approx(before - FIRST_S + NEXT_S + 2.0)  # the epoch that it had, on a worker that has started
    estimate.drop(5)
    assert (estimate.left() or 0.0) < again - 5 * 3 * 2.0


def test_an_epoch_without_a_rate_tells_nothing_of_the_next() -> None:
    t = 0.0
    estimate = Estimate(grid(1, 3), workers=1, now=lambda: t)
    estimate.submitted({"a": grid(1, 3)[0]})
    t = 5.0
    estimate.epoch("a", 1, 0.0)
    assert estimate.left() is None
    t = 7.0
    estimate.epoch("a", 2, 0.0)
    assert estimate.costs.of_epoch("an arm that was not seen") == 2.0


def test_evaluations_that_were_not_seen_are_in_proportion_to_those_that_were() -> None:
    costs = Costs()
    costs.evaluated(Work("bce", 1, "validation"), 2 * EVALUATION_S["validation"], first=False)
    assert costs.of_evaluation(Work("bce", 1, "quick")) == pytest.approx(2 * EVALUATION_S["quick"])


@pytest.mark.parametrize(("lanes", "expected"), [(1, 1 + 0.5 + 0.5), (2, 1 + 0.75 + 0.75)])
def test_a_job_trains_until_the_last_of_its_trials_is_over(lanes: int, expected: float) -> None:
    survival = Survival({1: 0.5})
    assert survival.epochs_after(0, 3, lanes) == expected
    assert survival.reaches_evaluation(0, 3) == 0.5
    assert survival.epochs_after(1, 3, lanes) == 2
