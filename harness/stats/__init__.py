"""Statistics: numbers in, verdicts out.

In come scores by seed, out come paired differences with intervals, adjusted p-values and verdicts. No torch, no store and no name
of a metric enters here. A verdict rule is a function of this folder.
"""

from harness.stats.paired import (
    ALPHA,
    LEVEL,
    Paired,
    Summary,
    Verdict,
    bootstrap_interval,
    holm,
    judge,
    paired,
    summary,
    t_quantile,
)

__all__ = [
    "ALPHA",
    "LEVEL",
    "Paired",
    "Summary",
    "Verdict",
    "bootstrap_interval",
    "holm",
    "judge",
    "paired",
    "summary",
    "t_quantile",
]
