"""What every kind of study answers, so that whoever runs or reports one need not know its kind. No torch here."""

from collections.abc import Mapping
from typing import Protocol

from harness.spec import TrialSpec
from harness.study.ablation import Ablation, Budget
from harness.study.search import Search, SearchBudget


class Study(Protocol):
    """One question. Where it searches, its search comes first; then the arms of an ablation are trained and judged."""

    @property
    def base(self) -> TrialSpec:
        """The trial that arms and points are changes of."""

    @property
    def budgets(self) -> Mapping[str, Budget] | Mapping[str, SearchBudget]:
        """How much it may spend, by name; there is always a `default`."""

    @property
    def search(self) -> Search | None:
        """What it looks for before its arms are known; None where they are stated."""

    @property
    def part(self) -> str:
        """What the trials that are judged are called within the study; nothing where they are all of it."""

    def judged(self, budget: str, winners: Mapping[str, TrialSpec]) -> Ablation:
        """Return the ablation whose arms are judged; `winners` are the specs that the search found, by arm."""

    def runs(self, budget: str) -> int:
        """Return about how many runs a budget has."""

    def shape(self, budget: str) -> str:
        """Return the size of a budget in words."""

    def note(self, budget: str) -> str:
        """Return what stands on top of the experiment in MLflow, in Markdown."""
