"""Scores of one trained trial: bounds on its likelihood, bits per dimension, image, sample and code quality, diagnostics.

In come a spec, a model of one lane and a data set; out come numbers by metric key, in nats per image unless a name says otherwise.
Pictures and comparisons between trials must not enter here.
"""

from harness.metrics.bounds import estimate_elbo, native
from harness.metrics.depth import DEPTHS, Depth
from harness.metrics.divergence import divergence
from harness.metrics.evaluation import Evaluation, averaged, evaluate, validate
from harness.metrics.inputs import encodings, model_inputs, prior_samples
from harness.metrics.own import Trained

__all__ = [
    "DEPTHS",
    "Depth",
    "Evaluation",
    "Trained",
    "averaged",
    "divergence",
    "encodings",
    "estimate_elbo",
    "evaluate",
    "model_inputs",
    "native",
    "prior_samples",
    "validate",
]
