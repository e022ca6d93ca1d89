"""Every likelihood on every network and every shape of images: it trains, is scored, draws, and goes on from a checkpoint.

Names of the catalog are picked up by themselves. Shapes are (C, H, W).
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import CPU, TERMS, assert_close, assert_same, trained, weights

from harness import catalog, metrics
from harness.data import Data, Split
from harness.models.vae import VAE, mixing_group
from harness.spec import TrialSpec
from harness.testing import check_trials
from harness.training.checkpoints import Checkpoints
from harness.training.cohort import Cohort

SMALL = TrialSpec(batch_size=16, latent=3, epochs=2, learning_rate=1e-3, evaluation="validation")
SIZES: dict[str, dict[str, Any]] = {"mlp": {"hidden": (16,)}, "conv": {"network_args": {"widths": (4, 8)}}}
SHAPES = [(1, 8, 8), (1, 8, 7), (3, 8, 8), (3, 8, 7)]
QUICK = [("mlp", (3, 8, 7)), ("conv", (3, 8, 7))]


def data_of(shape: tuple[int, int, int]) -> Data:
    """40 images to train on and 16 to score, of both ends and of levels between."""
    g = torch.Generator().manual_seed(0)
    sizes = {"train": 40, "validation": 16, "test": 16}
    splits = {
        name: Split(name, torch.randint(-200, 456, (n, math.prod(shape)), generator=g).clamp(0, 255).to(torch.uint8), None)
        for name, n in sizes.items()
    }
    return Data(name="made_up", image_shape=shape, digest="", **splits)


def spec_of(likelihood: str, network: str, shape: tuple[int, int, int]) -> TrialSpec:
    coupled = "channels" in catalog.LIKELIHOODS[likelihood].arguments
    arguments = {"channels": shape[0]} if coupled else {}
    return SMALL.derive(likelihood=likelihood, likelihood_args=arguments, network=network, **SIZES.get(network, {}))


def groups(network: str, shape: tuple[int, int, int]) -> list[list[TrialSpec]]:
    """Trials of all likelihoods, those together that one program can train."""
    by_group: dict[str, list[TrialSpec]] = {}
    for likelihood in catalog.LIKELIHOODS:
        spec = spec_of(likelihood, network, shape)
        by_group.setdefault(mixing_group(spec), []).append(spec)
    return list(by_group.values())


COMBINATIONS = [
    pytest.param(
        specs,
        shape,
        marks=() if (network, shape) in QUICK else pytest.mark.slow,
        id="-".join([network, "x".join(map(str, shape)), *(spec.likelihood for spec in specs)]),
    )
    for network in catalog.NETWORKS
    for shape in SHAPES
    for specs in groups(network, shape)
]


@pytest.mark.parametrize(("specs", "shape"), COMBINATIONS)
def test_likelihoods_on_a_network_and_a_shape(specs: list[TrialSpec], shape: tuple[int, int, int], tmp_path: Path) -> None:
    data = data_of(shape)
    check_trials(specs, data)
    cohort, (rows,) = trained(specs, data, epochs=1)
    start = Cohort(specs, data, CPU)
    for spec in specs:
        assert all(math.isfinite(rows[spec.id][term]) for term in TERMS)
        assert all((a != b).any() for a, b in zip(weights(cohort, spec), weights(start, spec), strict=True))
        vae = cohort.trained(spec)
        check_outputs(vae, shape)
        assert all(map(math.isfinite, metrics.validate(spec, vae, data).values()))
    check_checkpoint(cohort, data, tmp_path)


def check_checkpoint(cohort: Cohort, data: Data, folder: Path) -> None:
    """It goes on from checkpoints as it does undisturbed."""
    kept, again = Checkpoints(folder, "a code"), Cohort(cohort.specs, data, CPU)
    for spec in cohort.specs:
        kept.save(spec, 1, {"state": cohort.training_state().snapshot(spec)})
    again.restore([kept.load(spec, 1)["state"] for spec in cohort.specs])
    rows, own = again.run_epoch(), cohort.run_epoch()
    for spec in cohort.specs:
        assert [rows[spec.id][term] for term in TERMS] == [own[spec.id][term] for term in TERMS]
        assert_close(weights(again, spec), weights(cohort, spec), 0)


def check_outputs(vae: VAE, shape: tuple[int, int, int]) -> None:
    """Mean images and draws are where images are."""
    with torch.no_grad():
        out = vae.decode(torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0)))
        mean, draw = vae.likelihood.mean(*out), vae.likelihood.sample(torch.Generator().manual_seed(0), *out)
    assert mean.shape == draw.shape == (1, 5, math.prod(shape))
    assert mean.min() >= 0
    assert mean.max() <= 1
    assert draw.isfinite().all()


@pytest.mark.parametrize(("specs", "shape"), [c for c in COMBINATIONS if c.values[1] == SHAPES[-1]])
def test_the_graph_is_the_step(specs: list[TrialSpec], shape: tuple[int, int, int]) -> None:
    assert_same(specs, data_of(shape), "graph")
