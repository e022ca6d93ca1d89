"""Do heavy tails pay? A Student-t likelihood of our own against the Gaussian with a scale for every pixel."""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(64,), batch_size=64),
    arms={
        "gaussian": {"likelihood": "gaussian_per_pixel"},
        "student_t": {"likelihood": "losses.py:StudentT", "likelihood_args": {"df": 3}},
    },
    budgets={
        "smoke": Budget(epochs=2, seeds=range(2)),
        "default": Budget(epochs=40, seeds=range(6)),
    },
    hypotheses=(Hypothesis(better="student_t", worse="gaussian", metric="test/squared_error"),),
)
