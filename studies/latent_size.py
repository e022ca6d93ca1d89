"""How many latents does MNIST need? 2, 5, 10, 20 and 50, and from where on they bring nothing more.

Binarised pixels, one likelihood, so the ELBO may rank. Latents beyond need are expected to stay inactive
and to cost nothing.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="mlp", hidden=(256, 128), likelihood="bernoulli", learning_rate=1e-3),
    arms={f"z={z}": {"latent": z} for z in (2, 5, 10, 20, 50)},
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=7, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="z=10", worse="z=5", metric="test/elbo"),
        Hypothesis(better="z=20", worse="z=10", metric="test/elbo"),
        Hypothesis(better="z=50", worse="z=20", metric="test/elbo"),
    ),
)
