"""Statistics: numbers in, verdicts out.

In come scores by seed, out come paired differences with intervals, adjusted p-values, what could have been seen, and verdicts.
Torch, stores and names of metrics must not enter here. The rule of a verdict: p-values of one claim in `pvalues`, claims judged
together in `verdicts`, what a study could have seen in `power`; docs/science.md says why it is this one.
"""

from harness.stats.paired import ALPHA, LEVEL, Paired, Summary, bootstrap_interval, paired, summary, t_quantile
from harness.stats.power import detectable, seeds_needed
from harness.stats.pvalues import FEWEST, holm
from harness.stats.verdicts import RULE, Claim, Verdict, judge, settled

__all__ = [
    "ALPHA",
    "FEWEST",
    "LEVEL",
    "RULE",
    "Claim",
    "Paired",
    "Summary",
    "Verdict",
    "bootstrap_interval",
    "detectable",
    "holm",
    "judge",
    "paired",
    "seeds_needed",
    "settled",
    "summary",
    "t_quantile",
]
