"""Is one reconstruction loss better, or does it only weigh the KL differently? Rate against distortion, over beta and sigma.

Every arm is a point: rate is the KL in nats, distortion the squared error of the decoded mean. Losses whose points fall on one
curve differ in nothing but that weight. For a Gaussian of fixed sigma, sigma^2 is a beta.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="mnist", network="reference", latent=10),
    arms={
        **{f"bce beta={b:g}": {"likelihood": "bce", "beta": b} for b in (0.25, 1, 4, 16)},
        **{f"mse sigma={s:g}": {"likelihood": "mse", "likelihood_args": {"sigma": s}} for s in (0.1, 0.2, 0.4, 1)},
        **{f"gaussian_shared beta={b:g}": {"likelihood": "gaussian_shared", "beta": b} for b in (0.25, 1, 4, 16)},
        **{f"continuous_bernoulli beta={b:g}": {"likelihood": "continuous_bernoulli", "beta": b} for b in (1, 4, 16)},
    },
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=5, seeds=range(6)),
        "full": Budget(epochs=50, seeds=range(6), evaluation="full"),
    },
    # Where the two spend about the same rate, is there a difference left?
    hypotheses=(Hypothesis(better="mse sigma=0.2", worse="bce beta=1", metric="test/squared_error"),),
    objective=None,
)
