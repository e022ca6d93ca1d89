"""Do convolutions pay on MNIST at z = 20, and what do they cost? Fully connected, convolutional and residual networks.

All arms have one likelihood, so the importance-weighted bound may rank them.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", likelihood="bernoulli", activation="relu", latent=20, learning_rate=1e-3),
    arms={
        "mlp": {"network": "mlp", "hidden": (256, 128)},
        "conv": {"network": "conv"},
        "resnet": {"network": "resnet"},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=3, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="conv", worse="mlp", metric="test/iw_100"),
        Hypothesis(better="resnet", worse="conv", metric="test/iw_100"),
    ),
)
