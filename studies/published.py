"""Does the harness reach published likelihoods? VAEs on dynamically binarised MNIST, at z = 2, 20 and 50.

What to expect stands in docs/reproduction.md. It fits on the validation images too, so it selects nothing. z = 50 takes the
network, activation and learning rates of Burda et al., 2016 (https://arxiv.org/abs/1509.00519); `conv` is beside its equal of MLPs.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="mlp", likelihood="bernoulli", fit_on="train+validation", learning_rate=1e-3),
    arms={
        "z=2": {"hidden": (256, 128), "activation": "relu", "latent": 2},
        "z=20": {"hidden": (256, 128), "activation": "relu", "latent": 20},
        "z=20 conv": {"network": "conv", "activation": "relu", "latent": 20},
        "z=50": {"hidden": (200, 200), "activation": "tanh", "latent": 50, "learning_rate_decay": 0.1},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "early": Budget(epochs=40, seeds=range(1), evaluation="thorough"),
        "default": Budget(epochs=150, seeds=range(1), evaluation="thorough"),
        "full": Budget(epochs=500, seeds=range(1), evaluation="thorough"),
    },
    objective=None,
)
