"""Whose samples are sharper? BCE and MSE by a score of our own."""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="digits", network="mlp", hidden=(64,), batch_size=64, latent=4),
    arms={"bce": {"likelihood": "bce"}, "mse": {"likelihood": "mse"}},
    budgets={
        "smoke": Budget(epochs=2, seeds=range(2)),
        "default": Budget(epochs=40, seeds=range(6)),
    },
    hypotheses=(Hypothesis(better="bce", worse="mse", metric="test/sharpness"),),
    metrics=("sharpness.py:SHARPNESS",),
)
