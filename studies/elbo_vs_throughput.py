"""What does a better ELBO cost in images/s? Widths, activations and batch sizes between fast and good.

Each trial trains alone on its core, for its time is judged. No trial is best: the report shows those that no other beats in both,
and the fastest, the best and one in between are trained again on new seeds.
"""

from harness.spec import TrialSpec
from harness.study import Constraint, OneOf, Search, SearchBudget, Widths

STUDY = Search(
    base=TrialSpec(dataset="mnist", network="mlp", hidden=(256, 128), likelihood="bernoulli", latent=10, learning_rate=1e-3),
    space={
        "hidden": Widths(layers=(2, 2), units=(32, 512)),
        "activation": OneOf(("elu", "relu", "tanh")),
        "batch_size": OneOf((64, 128, 256, 512)),
    },
    objectives=("elbo/validation", "perf/throughput"),
    constraints=(Constraint(score="model/parameters", at_most=1_000_000),),
    sampler="tpe",
    budgets={
        "smoke": SearchBudget(trials=4, epochs=1, refit_seeds=range(1, 2)),
        "default": SearchBudget(trials=30, epochs=3),
        "full": SearchBudget(trials=150, epochs=30, evaluation="full"),
    },
)
