"""How many latents do discs and squares need? Images of our own, with two and with six."""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    base=TrialSpec(dataset="shapes.py:shapes", network="mlp", hidden=(128,), batch_size=64),
    arms={"2": {"latent": 2}, "6": {"latent": 6}},
    budgets={
        "smoke": Budget(epochs=2, seeds=range(2)),
        "default": Budget(epochs=60, seeds=range(6)),
    },
    hypotheses=(Hypothesis(better="6", worse="2", metric="test/squared_error"),),
)
