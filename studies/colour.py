"""Does it pay for the channels of a pixel to know of each other? Drawn shapes in colour, 32 x 32, a convolutional VAE.

Both likelihoods are pmfs of the levels 0..255, so their bits/dim compare, and the histogram that a study prints is to beat.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(
        dataset="shapes",
        dataset_args={"channels": 3, "size": 32},
        network="conv",
        latent=10,
        batch_size=64,
        learning_rate=2e-3,
    ),
    arms={
        "apart": {"likelihood": "discretized_logistic"},
        "coupled": {"likelihood": "logistic_mixture", "likelihood_args": {"channels": 3}},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=10, seeds=range(6)),
        "full": Budget(epochs=60, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="coupled", worse="apart", metric="test/own_bits"),
        Hypothesis(better="coupled", worse="apart", metric="test/squared_error"),
    ),
)
