"""Does ELU beat ReLU? ReLU units can die, so the story goes: how many do, at which learning rate, and does it cost anything?

Two activations at the reference learning rate and at ten times it. A hidden unit is dead where its output is the same for all
validation images or its gradient is zero on all of them. One likelihood, so the ELBO may rank.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=2, likelihood="bce"),
    arms={
        "elu lr=3e-4": {"activation": "elu", "learning_rate": 3e-4},
        "relu lr=3e-4": {"activation": "relu", "learning_rate": 3e-4},
        "elu lr=3e-3": {"activation": "elu", "learning_rate": 3e-3},
        "relu lr=3e-3": {"activation": "relu", "learning_rate": 3e-3},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=7, seeds=range(7)),
        "full": Budget(epochs=50, seeds=range(7), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="elu lr=3e-4", worse="relu lr=3e-4", metric="validation/dead_units"),
        Hypothesis(better="elu lr=3e-3", worse="relu lr=3e-3", metric="validation/dead_units"),
        Hypothesis(better="elu lr=3e-4", worse="relu lr=3e-4", metric="test/elbo"),
        Hypothesis(better="elu lr=3e-3", worse="relu lr=3e-3", metric="test/elbo"),
    ),
)
