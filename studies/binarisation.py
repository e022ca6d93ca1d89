"""Does it matter how pixels are binarised? Anew at each use (dynamic), once and for all (static), or cut at one half (threshold).

The three are likelihoods of different data, so no ELBO ranks them; the common head and the mean image do.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="mlp", hidden=(256, 128), latent=10, likelihood="bernoulli", learning_rate=1e-3),
    arms={how: {"likelihood_args": {"binarisation": how}} for how in ("dynamic", "static", "threshold")},
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=10, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        Hypothesis(better="dynamic", worse="static", metric="test/common_bits"),
        Hypothesis(better="dynamic", worse="threshold", metric="test/common_bits"),
        Hypothesis(better="dynamic", worse="threshold", metric="test/squared_error"),
    ),
)
