"""Does the harness reproduce the reference model? BCE, 50 epochs on all 60,000 training images, 10 seeds, against known results.

The numbers to expect stand in docs/reproduction.md. It fits on the validation images too, so it selects nothing.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=2, fit_on="train+validation"),
    arms={"bce": {"likelihood": "bce"}},
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=50, seeds=range(10)),
        "full": Budget(epochs=50, seeds=range(10), evaluation="full"),
    },
    objective=None,
)
