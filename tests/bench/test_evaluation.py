"""Time of scoring a trained trial: all of the quick evaluation, and the bounds on log p(x) by themselves."""

import time

import pytest
from tables import LIKELIHOODS

from harness import metrics, study
from harness.metrics.bounds import estimate_elbo, importance, native
from harness.metrics.inputs import model_inputs
from harness.metrics.quadrature import exact
from harness.training.cohort import Cohort
from harness.training.planner import execution_alone

IMAGES = 100
SHARE = 0.5  # of its training's CPU time a quick evaluation may take


@pytest.fixture
def view(trained, mnist, where):
    """The test set under the trial's own likelihood."""
    return native(trained.vae, model_inputs(trained.spec, mnist.to(where).test))


def test_quick(benchmark, trained, mnist, where):
    benchmark.group = "evaluation"
    benchmark.pedantic(metrics.evaluate, args=(trained.spec, trained.vae, mnist.to(where)), rounds=2)


@pytest.mark.usefixtures("trained")  # what only a process's first evaluation pays is paid by that one
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_quick_takes_a_share_of_the_training(benchmark, mnist, where, likelihood):
    """A quick evaluation takes at most `SHARE` of the CPU time of its arm's training in the default budget of loss_ablation.

    `SHARE` is a step on the way: the goal is a fifth. The arm trains alone, its steps taken as the default budget takes them. Its
    epochs are alike, so the second of two is timed, and counted as often as the budget has epochs. What is evaluated is the model
    after two, whose quadrature may take less than that of the last.
    """
    benchmark.group = "evaluation by likelihood"
    plan = study.load_study("loss_ablation")
    epochs = plan.budgets["default"].epochs
    spec = plan.base.derive(likelihood=likelihood, epochs=epochs)
    cohort = Cohort((spec,), mnist, where, execution_alone(spec, mnist, where))
    cohort.run_epoch()
    started = time.process_time()
    cohort.run_epoch()
    training = epochs * (time.process_time() - started)
    vae, images = cohort.trained(spec), mnist.to(where)
    started = time.process_time()
    benchmark.pedantic(metrics.evaluate, args=(spec, vae, images), rounds=1)
    evaluation = time.process_time() - started
    share = evaluation / training
    benchmark.extra_info.update(share=share, cpu_seconds={"training": training, "evaluation": evaluation})
    print(f"\n{likelihood}: {evaluation:.1f} s of CPU time, {share:.2f} of the {training:.1f} s of its training")
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
