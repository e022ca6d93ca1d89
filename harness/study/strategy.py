"""How a search goes about it: samplers and pruners by name, bounds that a winner must keep, and what it may spend. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

from harness.errors import UserError, shown
from harness.study import forms
from harness.study.kinds import NUMBER, NUMBER_OR_NONE, TEXT, WHOLE, check, wrong

SAMPLERS: Mapping[str, str] = {
    "gp": "a Gaussian process with expected improvement: the best of few trials; not for conditional spaces",
    "tpe": "tree-structured Parzen estimators, multivariate and grouped (Bergstra et al., 2011; Falkner et al., 2018)",
    "random": "independent draws, what any other has to beat",
    "qmc": "a scrambled Sobol sequence: draws that fill the space evenly",
    "nsga2": "NSGA-II (Deb et al., 2002): evolution, for several objectives and many trials",
}
MODEL_BASED = ("gp", "tpe")  # they learn from finished trials, and within a large batch there are none yet
PRUNERS: Mapping[str, str] = {
    "asha": "successive halving, asynchronous (Li et al., 2020, https://arxiv.org/abs/1810.05934)",
    "hyperband": "several brackets of it (Li et al., 2018, https://arxiv.org/abs/1603.06560)",
    "median": "worse than the median of finished trials at the same epoch",
    "wilcoxon": "worse than the best trial over seeds, by Wilcoxon's signed-rank test; a trial is all of `seeds`",
}


@dataclass(frozen=True, kw_only=True)
class Pruner:
    """How hopeless trials are ended early.

    Attributes:
        name: one of `PRUNERS`.
        first: the epochs (`wilcoxon`: seeds) that every trial gets.
        factor: `asha` and `hyperband` let one of `factor` trials go on at each rung; a rung is `factor` times the one before.
        p: `wilcoxon` prunes below this p-value. It tests after every seed, so the value should be small.
    """

    name: str
    first: int = 1
    factor: int = 3
    p: float = 0.05

    def __post_init__(self) -> None:
        check(self, {"name": TEXT, "first": WHOLE, "factor": WHOLE, "p": NUMBER})
        if self.first < 1 or self.factor < 2 or not 0 < self.p < 1:
            raise UserError(f"pruner {shown(self.name)}: first from 1, factor from 2 and p between 0 and 1, got {shown(self)}")

    @property
    def seeds_to_judge(self) -> int:
        """The fewest seeds after which `wilcoxon` may prune: n differences of one sign have the p-value 2^-n.

        >>> Pruner(name="wilcoxon").seeds_to_judge, Pruner(name="wilcoxon", p=0.01, first=9).seeds_to_judge
        (5, 9)
        """
        return max(self.first, next(n for n in count(2) if 0.5**n < self.p))

    def expected(self, epochs: int) -> dict[int, float]:
        """Return the share of trials of so many epochs that is about to end after an epoch, by epoch, before any was seen.

        >>> Pruner(name="asha", factor=4).expected(6), Pruner(name="median").expected(6)
        ({1: 0.75, 4: 0.75}, {1: 0.5})
        """
        if self.name == "median":
            return {self.first: 0.5}
        rungs = takewhile(lambda rung: rung < epochs, (self.first * self.factor**k for k in count()))
        return dict.fromkeys(rungs, 1 - 1 / self.factor) if self.name != "wilcoxon" else {}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A bound that a winner must keep: a score of cost is at most, or at least, a number."""

    score: str
    at_most: float | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        check(self, {"score": TEXT, "at_most": NUMBER_OR_NONE, "at_least": NUMBER_OR_NONE})

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the bound; 0 or less if the value keeps it."""
        return value - self.at_most if self.at_most is not None else (self.at_least or 0) - value


@dataclass(frozen=True, kw_only=True)
class SearchBudget:
    """How much a search spends.

    Attributes:
        trials: the number of trials.
        epochs: of every trial.
        refit_seeds: the seeds on which the best is trained again and tested.
        evaluation: how deep the scores of that test go.
    """

    trials: int
    epochs: int
    refit_seeds: Sequence[int] = range(1, 7)
    evaluation: str = "quick"

    def fault(self) -> str:
        """Return what is wrong with trials or seeds; empty if nothing is."""
        kinds = wrong(self, {"trials": WHOLE, "epochs": WHOLE, "evaluation": TEXT})
        seeds = "\n".join(kinds) or forms.seeds_fault(self.refit_seeds)
        if seeds or self.trials < 1 or len(self.refit_seeds) < 1:
            return seeds or f"at least 1 trial, and a seed to train the best again, got {shown(self)}"
        return ""
