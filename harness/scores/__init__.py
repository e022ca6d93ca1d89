"""Scores as rows: the one place where the key of a metric stands.

In comes nothing, out go rows: what a score is called, which way is better, what it may rank, where it is shown and what a trial
must have for it. Tables, charts, objectives and complaints are filters over these rows. Torch must not enter, nor the computation
of the built-in scores, which `harness.metrics`, training and executors share between them.
"""

from harness.scores.rows import SCORES
from harness.scores.score import (
    CODES,
    COST,
    DIAGNOSTICS,
    ELBO_CURVES,
    EXACT_LATENTS,
    FEATURE_BATCH,
    FEATURES,
    IMAGES,
    KL_CURVES,
    MOST_CLASSES,
    NATIVE,
    NEEDS,
    NEIGHBOURS,
    OWN_PMF,
    SAMPLES,
    SELECTION,
    TRUST,
    Score,
    Scores,
    compared,
    costs,
    in_groups,
    on_test,
    qualities,
    row_of,
)
from harness.scores.soundness import NotFiniteError, diverged, finite, not_finite

__all__ = [
    "CODES",
    "COST",
    "DIAGNOSTICS",
    "ELBO_CURVES",
    "EXACT_LATENTS",
    "FEATURES",
    "FEATURE_BATCH",
    "IMAGES",
    "KL_CURVES",
    "MOST_CLASSES",
    "NATIVE",
    "NEEDS",
    "NEIGHBOURS",
    "OWN_PMF",
    "SAMPLES",
    "SCORES",
    "SELECTION",
    "TRUST",
    "NotFiniteError",
    "Score",
    "Scores",
    "compared",
    "costs",
    "diverged",
    "finite",
    "in_groups",
    "not_finite",
    "on_test",
    "qualities",
    "row_of",
]
