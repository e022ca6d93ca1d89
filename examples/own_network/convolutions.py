"""Do convolutions help on small digits? A network of our own against the fully connected one."""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="digits", batch_size=64, latent=4),
    arms={
        "mlp": {"network": "mlp", "hidden": (64,)},
        "conv": {"network": "networks.py:conv", "network_args": {"width": 16}},
    },
    budgets={
        "smoke": Budget(epochs=2, seeds=range(2)),
        "default": Budget(epochs=40, seeds=range(6)),
    },
    hypotheses=(Hypothesis(better="conv", worse="mlp", metric="test/squared_error"),),
)
