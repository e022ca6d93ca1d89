"""Do more latents describe a digit better? A first study: two arms, six seeds, under a minute on small digits.

Change whatever you like and run it again: trials that are the same are not trained twice. `harness list` shows this line.
"""

from harness.spec import TrialSpec
from harness.study import Ablation, Budget, Hypothesis

STUDY = Ablation(
    # What all arms share. Every field of a trial and what it means: python -c "import harness.spec; help(harness.spec.TrialSpec)"
    base=TrialSpec(dataset="digits", likelihood="bernoulli", network="mlp", hidden=(64,), latent=2, learning_rate=2e-3),
    # What each arm changes of it. Differences are taken against the first.
    arms={
        "two latents": {},
        "eight latents": {"latent": 8},
    },
    # How much to spend: `--budget smoke` shows whether it runs, `default` is what you get without a word.
    budgets={
        "smoke": Budget(epochs=1, seeds=range(1)),
        "default": Budget(epochs=60, seeds=range(6)),
    },
    # What you expect, written down before the runs; the report says whether it held.
    hypotheses=(Hypothesis(better="eight latents", worse="two latents", metric="test/squared_error"),),
)
