"""The gate's rule: from the log ratios of process pairs and of a control to REGRESSION, OK, IMPROVEMENT or INCONCLUSIVE."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness import stats
from harness.errors import MachineError

FEWEST_PAIRS = 6
SLOWER, HALF = math.log(1.05), math.log(1.025)  # the effect sought, and half of it

OK, IMPROVEMENT, REGRESSION, INCONCLUSIVE = "OK", "IMPROVEMENT", "REGRESSION", "INCONCLUSIVE"


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """A verdict on pairs of processes.

    Attributes:
        outcome: OK, IMPROVEMENT, REGRESSION or INCONCLUSIVE.
        reason: in words.
        estimate: the mean of log(head / base).
        low, high: its 90 % interval.
        pairs: their number.
    """

    outcome: str
    reason: str
    estimate: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        slower, low, high = (100 * math.expm1(v) for v in (self.estimate, self.low, self.high))
        return f"{self.outcome}: {self.reason}; step time {slower:+.1f} % [{low:+.1f}, {high:+.1f}], {self.pairs} process pairs"


def verdict(pair_log_ratios: Sequence[float], control: Sequence[float]) -> GateVerdict:
    """Return the verdict on pairs of processes, each log(head / base), with a control of equal code, log(head / head again).

    REGRESSION: the 90 % interval of the mean lies above 0 and the mean above 2.5 %; IMPROVEMENT: the mirror image; OK: the interval
    ends below +5 %; else, or if the control shows a difference, INCONCLUSIVE.

    Raises:
        MachineError: too few pairs for a verdict.
    """
    if min(len(pair_log_ratios), len(control)) < FEWEST_PAIRS:
        count = min(len(pair_log_ratios), len(control))
        raise MachineError(f"nothing to judge: {count} process pairs were timed, {FEWEST_PAIRS} are the fewest")
    judged, judged_control = _judge(pair_log_ratios), _judge(control)
    if judged_control.outcome in (REGRESSION, IMPROVEMENT):
        reason = f"the machine is unfit: it times equal code as {100 * math.expm1(judged_control.estimate):+.1f} %"
        return replace(judged, outcome=INCONCLUSIVE, reason=reason)
    return judged


def _judge(log_ratios: Sequence[float]) -> GateVerdict:
    """Return the verdict on log ratios, without a control."""
    n, mean = len(log_ratios), statistics.fmean(log_ratios)
    half_width = stats.t_quantile(0.95, n - 1) * statistics.stdev(log_ratios) / n**0.5
    low, high = mean - half_width, mean + half_width
    if low > 0 and mean > HALF:
        outcome, reason = REGRESSION, "slower than the base"
    elif high < 0 and mean < -HALF:
        outcome, reason = IMPROVEMENT, "faster than the base"
    elif high < SLOWER:
        outcome, reason = OK, "a slow-down of 5 % is excluded"
    else:
        outcome, reason = INCONCLUSIVE, "the pairs scatter too much: a slow-down of 5 % is neither shown nor excluded"
    return GateVerdict(outcome=outcome, reason=reason, estimate=mean, low=low, high=high, pairs=n)
