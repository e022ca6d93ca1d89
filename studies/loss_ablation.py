"""Does the reconstruction loss change what a VAE learns? BCE, MSE and their honest relatives.

The six arms share everything but the loss and what it must see: `bernoulli` binarises pixels anew at each use, which makes BCE a
true likelihood, and `continuous_bernoulli` dequantises them. They live on different scales, so no native ELBO ranks them; the
common head (one pmf of grey levels for every model's mean image) and scores that need no likelihood do.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=2),
    arms={
        "bce": {"likelihood": "bce"},
        "bernoulli": {"likelihood": "bernoulli"},
        "mse": {"likelihood": "mse"},
        "gaussian_shared": {"likelihood": "gaussian_shared"},
        "gaussian_per_pixel": {"likelihood": "gaussian_per_pixel"},
        "continuous_bernoulli": {"likelihood": "continuous_bernoulli"},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=6, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    hypotheses=(
        # sigma = 1 weighs the KL about six times heavier against the reconstruction than BCE does.
        Hypothesis(better="bce", worse="mse", metric="test/common_bits"),
        Hypothesis(better="gaussian_shared", worse="mse", metric="test/squared_error"),
        Hypothesis(better="bce", worse="mse", metric="test/knn15_accuracy"),
    ),
)
