"""The contracts of what a user may bring, as functions: call them in tests of your own; the harness calls them before it trains.

In comes a likelihood, a network, an activation, an objective, a data set or a score, by name, by reference or as the object itself;
out comes nothing, or a `ContractError` with the rule that it breaks, the number that was found, and what would mend it. The
package's own entries go through the same functions. Studies, stores and executors must not enter here.
"""

from harness.testing.datasets import check_dataset
from harness.testing.functions import check_activation, check_objective
from harness.testing.likelihoods import check_likelihood
from harness.testing.networks import check_network
from harness.testing.rules import ContractError
from harness.testing.scores import check_score
from harness.testing.trials import check_trials

__all__ = [
    "ContractError",
    "check_activation",
    "check_dataset",
    "check_likelihood",
    "check_network",
    "check_objective",
    "check_score",
    "check_trials",
]
