"""A study: one question, as an ablation or a search, in a file of its own.

In come Python values, out come the specs of the trials to run; errors are found before anything runs. Torch must not be imported
here, so that a typo is reported at once.
"""

from harness.scores import SCORES, Score
from harness.study.ablation import Ablation, Budget, Cell, Hypothesis
from harness.study.files import names, questions, write_first
from harness.study.loading import LoadedStudy, check, load, load_study, with_budget
from harness.study.overrides import Overrides, data_set
from harness.study.protocol import Study
from harness.study.search import Search
from harness.study.space import OneOf, Real, Whole, Widths
from harness.study.strategy import Constraint, Pruner, SearchBudget

__all__ = [
    "SCORES",
    "Ablation",
    "Budget",
    "Cell",
    "Constraint",
    "Hypothesis",
    "LoadedStudy",
    "OneOf",
    "Overrides",
    "Pruner",
    "Real",
    "Score",
    "Search",
    "SearchBudget",
    "Study",
    "Whole",
    "Widths",
    "check",
    "data_set",
    "load",
    "load_study",
    "names",
    "questions",
    "with_budget",
    "write_first",
]
