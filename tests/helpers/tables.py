"""The entries of the catalog as objects, by name."""

from harness import catalog
from harness.models.vae import likelihood_of
from harness.spec import TrialSpec

LIKELIHOODS = {name: likelihood_of(TrialSpec(likelihood=name)) for name in catalog.LIKELIHOODS}
SCALES = {name: spec.scale for name in catalog.LIKELIHOODS for spec in [TrialSpec(likelihood=name)]}
ACTIVATIONS = {name: catalog.find("activation", name) for name in catalog.ACTIVATIONS}
OBJECTIVES = {name: catalog.find("objective", name) for name in catalog.OBJECTIVES}
OPTIMIZERS = {name: catalog.find("optimizer", name)() for name in catalog.OPTIMIZERS}
NETWORKS = {name: catalog.find("network", name) for name in catalog.NETWORKS}
DATASETS = {name: catalog.find("dataset", name) for name in catalog.DATASETS}
SCHEDULES = {name: catalog.find("learning_rate_schedule", name) for name in catalog.SCHEDULES}
