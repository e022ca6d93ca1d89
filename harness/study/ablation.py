"""An ablation: arms x seeds, and the hypotheses stated before the runs. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.errors import UserError, look_up, unknown
from harness.spec import TrialSpec
from harness.study.scores import SCORES, comparable


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """`better` beats `worse` on `metric`: a claim with a direction, written down before the runs."""

    better: str
    worse: str
    metric: str

    def __str__(self) -> str:
        return f"{self.better} beats {self.worse} on {SCORES[self.metric].label}"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a study spends: epochs of every trial, the seeds of every arm, and how deep the final scores go."""

    epochs: int
    seeds: Sequence[int]
    evaluation: str = "quick"


class Cell(NamedTuple):
    """One trial of the plan."""

    arm: str
    seed: int
    spec: TrialSpec


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Arms x seeds. Each arm is a change to `base`; arms share their seeds, so they are compared in pairs.

    Attributes:
        arms: name to changed fields of the base. The first arm is the one that differences are taken against.
        hypotheses: with 6 seeds a one-sided Wilcoxon test reaches p = 0.016, so Holm's correction lets at most 3 be confirmed.
        objective: the score on validation that picks the winner, whose model is kept. Lower or higher as `SCORES` says.

    Raises:
        UserError: an unknown field, name, arm or score, or a ranking across scales; before anything runs.
    """

    base: TrialSpec
    arms: Mapping[str, Mapping[str, Any]]
    budgets: Mapping[str, Budget]
    hypotheses: tuple[Hypothesis, ...] = ()
    objective: str | None = "validation/squared_error"

    def __post_init__(self) -> None:
        if not self.arms:
            raise UserError("a study needs at least one arm")
        if "default" not in self.budgets:
            raise unknown("budget (every study has one)", "default", self.budgets)
        specs = {arm: self._spec(arm) for arm in self.arms}
        datasets = sorted({spec.dataset for spec in specs.values()})
        if len(datasets) > 1:
            raise UserError(f"arms are compared on one data set, got {', '.join(datasets)}")
        if self.objective is not None:
            look_up(SCORES, self.objective, "score")
            comparable(self.objective, specs, f"objective {self.objective!r} ranks all arms")
        for h in self.hypotheses:
            score = look_up(SCORES, h.metric, "score")
            for arm in (h.better, h.worse):
                look_up(self.arms, arm, "arm")
            if not score.better:
                raise UserError(f"hypothesis '{h}': {h.metric!r} has no better or worse direction")
            comparable(h.metric, {a: specs[a] for a in (h.better, h.worse)}, f"hypothesis '{h}'")
        for name, budget in self.budgets.items():
            cells = self.cells(name)
            if not budget.seeds or len({c.spec.id for c in cells}) != len(cells):
                raise UserError(f"budget {name!r}: seeds must be given and differ, and no two arms may be the same trial")

    def _spec(self, arm: str) -> TrialSpec:
        try:
            return self.base.derive(**self.arms[arm])
        except UserError as fault:
            raise UserError(f"arm {arm!r}: {fault}") from None

    def cells(self, budget: str) -> tuple[Cell, ...]:
        """The plan of a budget, seed by seed, so that whatever is done first is balanced over arms."""
        chosen = look_up(self.budgets, budget, "budget")
        return tuple(
            Cell(arm, seed, self._spec(arm).derive(seed=seed, epochs=chosen.epochs, evaluation=chosen.evaluation))
            for seed in chosen.seeds
            for arm in self.arms
        )

    @property
    def search(self) -> None:
        """None: an ablation looks for nothing before its arms are trained."""
        return None

    @property
    def part(self) -> str:
        """Nothing: an ablation's trials are the whole study."""
        return ""

    def judged(self, budget: str, winners: Mapping[str, TrialSpec]) -> "Ablation":
        """Return this ablation, for all its arms are stated in it."""
        return self

    def runs(self, budget: str) -> int:
        """Return how many runs a budget has."""
        return len(self.cells(budget))

    def shape(self, budget: str) -> str:
        """Return the size of a budget in words."""
        return f"{len(self.arms)} arms x {len(self.budgets[budget].seeds)} seeds"

    def note(self, budget: str) -> str:
        """Return what stands on top of the experiment in MLflow, in Markdown."""
        claims = "".join(f"\n- {h}" for h in self.hypotheses)
        return (
            f"Budget `{budget}`: {self.shape(budget)}, {self.budgets[budget].epochs} epochs. "
            f"Hypotheses, stated before the runs:{claims}\n\n"
            "ELBO = reconstruction - KL, nats per image, beta = 1. Native ELBOs of different likelihoods live on different scales: "
            "compare arms by `test/common_bits`, `test/squared_error`, `test/frechet`, `test/knn15_accuracy`. "
            "The verdicts are in `report.html` among the files of the parent run."
        )
