"""A study: one question, as an ablation or a search, in a file of its own.

In come Python values, out come the specs of the trials to run; errors are found before anything runs. Torch must not be imported
here, so that a typo is reported at once.
"""

from harness.scores import SCORES, Score
from harness.study.ablation import Ablation, Budget, Cell, Hypothesis
from harness.study.loading import check, load_study, names, question, questions
from harness.study.protocol import Study
from harness.study.search import Constraint, Pruner, Search, SearchBudget
from harness.study.space import OneOf, Real, Whole, Widths

__all__ = [
    "SCORES",
    "Ablation",
    "Budget",
    "Cell",
    "Constraint",
    "Hypothesis",
    "OneOf",
    "Pruner",
    "Real",
    "Score",
    "Search",
    "SearchBudget",
    "Study",
    "Whole",
    "Widths",
    "check",
    "load_study",
    "names",
    "question",
    "questions",
]
