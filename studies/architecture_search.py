"""Which encoder fits MNIST best at z = 10: how deep, how wide, which activation? The likelihood stays, so the ELBO may rank.

The number of layers decides which widths there are, a conditional space, so the sampler is TPE.
"""

from harness.spec import TrialSpec
from harness.study import OneOf, Pruner, Search, SearchBudget, Widths

STUDY = Search(
    base=TrialSpec(dataset="mnist", network="mlp", hidden=(256, 128), likelihood="bernoulli", latent=10, learning_rate=1e-3),
    space={
        "hidden": Widths(layers=(1, 3), units=(64, 512)),
        "activation": OneOf(("elu", "relu", "silu", "tanh")),
    },
    objectives=("elbo/validation",),
    sampler="tpe",
    pruner=Pruner(name="hyperband", first=1, factor=3),
    budgets={
        "smoke": SearchBudget(trials=4, epochs=1, refit_seeds=range(1, 2)),
        "default": SearchBudget(trials=30, epochs=4),
        "full": SearchBudget(trials=150, epochs=50, evaluation="full"),
    },
)
