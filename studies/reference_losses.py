"""What does the reference model reach under the other likelihoods? 50 epochs on all 60,000 training images, against known results.

The numbers to expect stand in docs/reproduction.md. It fits on the validation images too, so it selects nothing.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=2, fit_on="train+validation"),
    arms={
        "bernoulli": {"likelihood": "bernoulli"},
        "mse": {"likelihood": "mse"},
        "gaussian_shared": {"likelihood": "gaussian_shared"},
        "discretized_logistic": {"likelihood": "discretized_logistic"},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=50, seeds=range(1), evaluation="full"),
        "full": Budget(epochs=50, seeds=range(10), evaluation="full"),
    },
    objective=None,
)
