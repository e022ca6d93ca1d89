"""The protocol of every kind of study, so that code that runs or reports one need not know its kind. Torch is not imported here."""

from collections.abc import Mapping
from typing import Protocol

from harness.scores import Scores
from harness.spec import TrialSpec
from harness.study.ablation import Ablation, Budget
from harness.study.search import Search
from harness.study.strategy import SearchBudget


class Study(Protocol):
    """One question. If it has a search, that comes first; then the arms of an ablation are trained and judged."""

    @property
    def base(self) -> TrialSpec:
        """The spec that arms and points of a space are changes of."""

    @property
    def budgets(self) -> Mapping[str, Budget] | Mapping[str, SearchBudget]:
        """How much the study may spend, by name; one budget is called `default`."""

    @property
    def scores(self) -> Scores:
        """The rows of all scores that it may name and that its report shows, by key."""

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields of a trial that differ between its trials, beside the seed."""

    def trials(self, budget: str) -> tuple[TrialSpec, ...]:
        """Return trials that together refer to all that a budget may train."""

    @property
    def search(self) -> Search | None:
        """The search that finds the arms; None if the study states them."""

    @property
    def part(self) -> str:
        """The name of the judged trials within the study; empty if they are the whole study."""

    def judged(self, budget: str, winners: Mapping[str, TrialSpec]) -> Ablation:
        """Return the ablation whose arms are judged; `winners` are the specs that the search has found, by arm."""

    def runs(self, budget: str) -> int:
        """Return about how many runs a budget has."""

    def shape(self, budget: str) -> str:
        """Return the size of a budget in words."""

    def note(self, budget: str) -> str:
        """Return the text above the experiment in MLflow, in Markdown."""
