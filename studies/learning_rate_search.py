"""Which learning rate and weight decay train the reference VAE best in a few epochs? A search, then its test on new seeds.

Trials that do not keep up are ended early (ASHA), so that most epochs go to rates that work. The rate of the base, 3e-4, is what
the best has to beat, on six seeds that it was not chosen on.
"""

from harness.spec import TrialSpec
from harness.study import Pruner, Real, Search, SearchBudget

STUDY = Search(
    base=TrialSpec(dataset="mnist", network="reference", latent=2, optimizer="adamw"),
    space={
        "learning_rate": Real(1e-4, 3e-2, log=True),
        "learning_rate_decay": Real(0.01, 1.0, log=True),
        "weight_decay": Real(1e-6, 1e-1, log=True),
    },
    objectives=("elbo/validation",),
    pruner=Pruner(name="asha", first=1, factor=3),
    budgets={
        "smoke": SearchBudget(trials=4, epochs=1, refit_seeds=range(1, 2)),
        "default": SearchBudget(trials=40, epochs=6),
        "full": SearchBudget(trials=100, epochs=50, evaluation="full"),
    },
)
