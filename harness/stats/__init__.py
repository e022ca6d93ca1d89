"""Statistics: numbers in, verdicts out.

In come scores by seed, out come paired differences with intervals, adjusted p-values and verdicts. Torch, stores and names of
metrics must not enter here. To add a verdict rule, write a function in this folder.
"""

from harness.stats.paired import ALPHA, LEVEL, Paired, Summary, bootstrap_interval, paired, summary, t_quantile
from harness.stats.verdicts import Verdict, holm, judge

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
