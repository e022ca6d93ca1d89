"""How much does the learning rate matter? Six of them, from 1e-4 to 1e-3, on the reference model; a factor of 3 should show.

Not higher: at 2e-3 one trial in ten diverges within 50 epochs (docs/log.md). `make bench-study` times the `long` budget: 36 equal
trials of the reference workload.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=2, likelihood="bce"),
    arms={f"lr={rate:g}": {"learning_rate": rate} for rate in (1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 1e-3)},
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=6, seeds=range(6)),
        "long": Budget(epochs=50, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="lr=0.001", worse="lr=0.0003", metric="test/common_bits"),
        Hypothesis(better="lr=0.0003", worse="lr=0.0001", metric="test/common_bits"),
    ),
)
