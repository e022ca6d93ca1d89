"""What trials have taken so far, part by part, and what one still to come is expected to take: in seconds and epochs."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from harness.study import Cell

# Guesses from studies of the reference model on MNIST by an AMD EPYC, which hold until the first of each was observed.
START_S = 1.5  # of a worker, until its first epoch begins
NEXT_S = 0.5  # of a trial on a worker that has had another, until its first epoch begins
# of an evaluation by one thread; one of a depth that was not seen yet is guessed in proportion to those that were
EVALUATION_S = {"validation": 0.9, "quick": 2.8, "quick, all figures": 3.6}
FIRST_S = 1.5  # more of the first of a process, which imports what evaluates
OTHER_S = 3.3  # of any other depth
PRIOR = 4.0  # trials
SEARCHED, TESTED = "searched", "tested"  # the kinds of trials whose points a search has yet to find, and of those that follow
FADING = 0.9  # the weight of an observation beside that of the next one: the last ten or so count
NEVER: Mapping[int, float] = {}


@dataclass(frozen=True)
class Work:
    """A trial still to come.

    Attributes:
        kind: trials of one kind take about as long, such as those of an arm.
        epochs: that it trains, unless it ends early.
        evaluation: how deep that goes, a key of `EVALUATION_S`.
    """

    kind: str
    epochs: int
    evaluation: str


def work_of(cell: Cell, all_figures: Collection[str]) -> Work:
    """Return what is known of the work of a trial; `all_figures` are the ids of those whose figures are all drawn."""
    drawn = ", all figures" if cell.spec.id in all_figures and cell.spec.evaluation != "validation" else ""
    return Work(cell.arm, cell.spec.epochs, cell.spec.evaluation + drawn)


class Mean:
    """A mean of what was observed, of late more than before: how fast a machine is depends on what else it does."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0.0

    def add(self, value: float) -> None:
        """Observe a value."""
        self.total, self.count = FADING * self.total + value, FADING * self.count + 1

    def or_else(self, value: float) -> float:
        """Return the mean, or `value` if nothing was observed."""
        return self.total / self.count if self.count else value


@dataclass(frozen=True)
class Before:
    """What trials took before, which is expected of those of this process until they have shown what they take.

    Attributes:
        epoch_s: of an epoch, by kind.
        evaluation_s: of an evaluation, by kind.
        times: how much longer an evaluation takes than is guessed by its depth, by kind, where its seconds are not known.
    """

    epoch_s: Mapping[str, float] = field(default_factory=dict)
    evaluation_s: Mapping[str, float] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)


class Costs:
    """The costs of the parts of trials.

    Args:
        before: what is expected.

    Attributes:
        start_s: of a worker until its first epoch.
        next_s: of its later trials until theirs.
        epoch_s: of an epoch, by kind.
        rate_s: of an epoch by the trial's own count, without all that is beside, by kind.
        evaluation_s: by depth and kind.
    """

    def __init__(self, before: Before | None = None) -> None:
        self.before = before or Before()
        self.start_s, self.next_s = Mean(), Mean()
        self.epoch_s: dict[str, Mean] = defaultdict(Mean)
        self.rate_s: dict[str, Mean] = defaultdict(Mean)
        self.evaluation_s: dict[tuple[str, str], Mean] = defaultdict(Mean)

    @property
    def seen(self) -> bool:
        """Whether an epoch was seen, so that a time rests on more than what is expected."""
        return any(m.total for m in (*self.epoch_s.values(), *self.rate_s.values()))

    def evaluated(self, work: Work, seconds: float, *, first: bool) -> None:
        """Observe an evaluation; `first` is True if it is the first of its process."""
        self.evaluation_s[work.evaluation, work.kind].add(max(seconds - FIRST_S, seconds / 2) if first else seconds)

    def of_epoch(self, kind: str) -> float | None:
        """Return the seconds of an epoch of this kind: as seen, else in proportion to others, else as expected; None if unknown."""
        expected = self.before.epoch_s
        for seen in (self.epoch_s, self.rate_s):
            means = {k: m.or_else(0.0) for k, m in seen.items() if m.total}
            if kind in means:
                return means[kind]
            if kind and seen is self.epoch_s:  # trials of a search wait for their pruner, others do not
                means.pop(SEARCHED, None)
            if means and not (seen is self.epoch_s and self.rate_s[kind].total):
                both = [k for k in means if k in expected]
                if both and kind in expected:
                    return expected[kind] * sum(means[k] for k in both) / sum(expected[k] for k in both)
                return sum(means.values()) / len(means)
        return self._expected(kind) if expected else None

    def of_evaluation(self, work: Work) -> float:
        """Return the seconds of the evaluation of a trial: as seen of its depth and kind, else in proportion to others."""
        seen = [(m.or_else(0.0), self._guess(*key)) for key, m in self.evaluation_s.items() if m.count]
        in_proportion = sum(seconds for seconds, _ in seen) / sum(guessed for _, guessed in seen) if seen else self.pace
        key = work.evaluation, work.kind
        return self.evaluation_s[key].or_else(self._guess(*key) * in_proportion)

    @property
    def pace(self) -> float:
        """How long what was not seen takes here beside what is guessed of it, 1/2 to 2: as evaluations do, else as epochs do."""
        seen = [(m.or_else(0.0), self._guess(*key)) for key, m in self.evaluation_s.items() if m.count and key[0] in EVALUATION_S]
        if not seen and self.before.epoch_s:
            seen = [(m.or_else(0.0), self._expected(kind)) for kind, m in (self.epoch_s | self.rate_s).items() if m.total]
        pace = sum(seconds for seconds, _ in seen) / sum(guessed for _, guessed in seen) if seen else 1.0
        return min(2.0, max(0.5, pace))

    def _expected(self, kind: str) -> float:
        """Return the seconds that are expected of an epoch of this kind, where any are: as of all kinds, if none of this."""
        known = self.before.epoch_s
        return known.get(kind, sum(known.values()) / len(known))

    def _guess(self, depth: str, kind: str) -> float:
        """Return the seconds of an evaluation as they are expected, or else guessed by its depth."""
        times = 1.0 if depth == "validation" else self.before.times.get(kind, 1.0)  # which has few draws
        return self.before.evaluation_s.get(kind) or EVALUATION_S.get(depth, OTHER_S) * times


class Survival:
    """How many epochs trials train before they are pruned or stop by themselves.

    Args:
        expected: the share that is expected to be pruned after an epoch, by epoch; it counts as much as `PRIOR` trials.
    """

    def __init__(self, expected: Mapping[int, float] = NEVER) -> None:
        self._reached: dict[int, float] = defaultdict(float)  # how many trials have trained so many epochs
        self._pruned: dict[int, float] = defaultdict(float)
        self._stopped: dict[int, float] = defaultdict(float)
        for epoch, share in expected.items():
            self._reached[epoch], self._pruned[epoch] = PRIOR, PRIOR * share

    def reached(self, epoch: int) -> None:
        """Observe that a trial has trained so many epochs."""
        self._reached[epoch] += 1

    def over(self, epoch: int, *, pruned: bool) -> None:
        """Observe that a trial is over early, after `epoch` epochs: because it was pruned, or because it had stopped by itself."""
        (self._pruned if pruned else self._stopped)[epoch] += 1

    def epochs_after(self, epoch: int, epochs: int, lanes: int = 1) -> float:
        """Return how many more epochs trials that train together are expected to train, which have trained `epoch` of `epochs`."""
        expected, survives = 0.0, 1.0
        for k in range(epoch + 1, epochs + 1):
            expected += 1 - (1 - survives) ** lanes
            survives *= 1 - self._share(self._pruned, k) - self._share(self._stopped, k)
        return expected

    def reaches_evaluation(self, epoch: int, epochs: int) -> float:
        """Return the probability that a trial that has trained `epoch` of `epochs` is not pruned."""
        survives = 1.0
        for k in range(epoch + 1, epochs + 1):
            survives *= 1 - self._share(self._pruned, k)
        return survives

    def _share(self, ended: dict[int, float], epoch: int) -> float:
        """Return the share of trials that ended in one way after an epoch, of those that had trained it."""
        return min(1.0, ended[epoch] / self._reached[epoch]) if ended[epoch] and self._reached[epoch] else 0.0
