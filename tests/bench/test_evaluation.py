"""Time of scoring a trained trial: all of the quick evaluation, and the bounds on log p(x) by themselves."""

import pytest

from harness import metrics
from harness.metrics.bounds import estimate_elbo, importance, native
from harness.metrics.inputs import model_inputs
from harness.metrics.quadrature import exact

IMAGES = 100
SHARE = 0.4  # of the training's CPU time, at most; a fifth is the goal


@pytest.fixture
def view(trained, mnist, where):
    """The test set under the trial's own likelihood."""
    return native(trained.vae, model_inputs(trained.spec, mnist.to(where).test))


def test_quick(benchmark, trained, mnist, where):
    benchmark.group = "evaluation"
    benchmark.pedantic(metrics.evaluate, args=(trained.spec, trained.vae, mnist.to(where)), rounds=2)


def test_quick_takes_a_share_of_the_training(trained):
    share = trained.parts["evaluation"].cpu / trained.parts["training"].cpu
    print(f"\nquick evaluation: {trained.parts['evaluation'].cpu:.1f} s of CPU time, {share:.2f} of the training's")
    assert share <= SHARE


def test_elbo(benchmark, trained, view):
    """10,000 images, 1 draw of z."""
    benchmark.group = "evaluation"
    benchmark.pedantic(estimate_elbo, args=(trained.vae, view, 1), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("draws", [10, 100, 1_000])
def test_importance(benchmark, trained, view, draws):
    benchmark.group = f"bounds, {IMAGES} images"
    benchmark.pedantic(importance, args=(trained.vae, view.first(IMAGES), draws), rounds=3, warmup_rounds=1)


def test_exact(benchmark, trained, view):
    benchmark.group = f"bounds, {IMAGES} images"
    benchmark.pedantic(exact, args=(trained.vae, view.first(IMAGES)), rounds=3, warmup_rounds=1)
