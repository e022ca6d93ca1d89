import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tables import LIKELIHOODS

from harness import data, metrics
from harness.metrics import features, images, inputs
from harness.metrics.bits_per_dim import CommonHead, bits_per_dimension
from harness.metrics.evaluation import YARDSTICK_DRAWS
from harness.metrics.quadrature import exact
from harness.models.vae import build
from harness.scores import COST, SCORES, row_of
from harness.spec import TrialSpec
from harness.training.cohort import Cohort

SHALLOW = {"full": metrics.Depth(samples=8, draws=1_000, images=100, exact_images=300, other_images=5)}


@pytest.fixture(scope="module")
def trained() -> tuple[TrialSpec, Cohort]:
    spec = TrialSpec(dataset="digits", epochs=1, batch_size=64, likelihood="bernoulli")
    cohort = Cohort([spec], data.load_dataset("digits"), torch.device("cpu"))
    cohort.run_epoch()
    return spec, cohort


@pytest.fixture(scope="module")
def fitted() -> tuple[TrialSpec, Cohort]:
    """A trial whose posteriors are no longer the prior, nor what its encoder says."""
    spec = TrialSpec(dataset="digits", epochs=20, batch_size=32, likelihood="bernoulli", learning_rate=3e-3, evaluation="full")
    cohort = Cohort([spec], data.load_dataset("digits"), torch.device("cpu"))
    for _ in range(spec.epochs):
        cohort.run_epoch()
    return spec, cohort


def test_monte_carlo_error_falls_with_the_root_of_samples(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    vae = cohort.trained(cohort.specs[0])
    x = metrics.model_inputs(spec, cohort.data.test)
    few, many = (
        metrics.estimate_elbo(vae, metrics.native(vae, x), samples=8),
        metrics.estimate_elbo(vae, metrics.native(vae, x), samples=512),
    )
    assert few.standard_error / many.standard_error == pytest.approx(8, rel=0.2)
    assert few.elbo == pytest.approx(many.elbo, abs=4 * few.standard_error)
    assert few.kl == pytest.approx(many.kl, rel=1e-6)
    assert many.elbo == pytest.approx(many.recon - many.kl)
    # The error that it tells is the spread of independent estimates.
    again = [metrics.estimate_elbo(vae, metrics.native(vae, x), samples=8, seed=s).elbo for s in range(30)]
    assert np.std(again, ddof=1) == pytest.approx(few.standard_error, rel=0.4)


def test_an_elbo_does_not_depend_on_batches(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    vae = cohort.trained(cohort.specs[0])
    x = metrics.model_inputs(spec, cohort.data.test)
    whole = metrics.estimate_elbo(vae, metrics.native(vae, x), samples=64), metrics.encodings(vae, x)
    elbo = metrics.estimate_elbo(vae, metrics.native(vae, x), samples=64, batch_size=64)
    parts = elbo, metrics.encodings(vae, x, batch_size=64)
    assert parts[0].kl == pytest.approx(whole[0].kl, rel=1e-6)
    assert parts[0].elbo == pytest.approx(whole[0].elbo, abs=4 * whole[0].standard_error)
    torch.testing.assert_close(parts[1].image, whole[1].image)


def test_evaluation_noise_is_frozen(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    vae, test = cohort.trained(cohort.specs[0]), cohort.data.test
    x = metrics.model_inputs(spec, test)
    assert torch.equal(x, metrics.model_inputs(spec, test))
    assert x.unique().tolist() == [0, 1]
    assert torch.equal(
        metrics.model_inputs(spec.derive(likelihood_args={"binarisation": "threshold"}), test), (test.levels >= 128).float()
    )
    torch.testing.assert_close(inputs.encode(spec, vae, test)[0], metrics.encodings(vae, x).mean)


def test_an_evaluation_scores_what_has_a_row_and_nothing_else(trained: tuple[TrialSpec, Cohort]) -> None:
    _, cohort = trained
    spec = TrialSpec(dataset="digits", likelihood="gaussian_shared", evaluation="full")
    vae = build(spec, cohort.data.image_shape)
    vae.reset(0, torch.Generator().manual_seed(0))
    result = metrics.evaluate(spec, vae, cohort.data, depths=SHALLOW)
    brought = {row.key for key in result.scores if (row := row_of(key, SCORES))}
    assert all(row_of(key, SCORES) for key in result.scores)
    selecting = metrics.validate(spec, vae, cohort.data)
    assert selecting == {key: result.scores[key] for key in selecting}
    of_training = {f"diagnostics/{name}" for name in ("late_gain", "gradient_norm", "lost_elbo", "over_histogram")}
    # and curves and costs: tests/executors
    wanted = {
        key for key, row in SCORES.items() if not row.curve and row.group != COST and not {"average", "patience"} & set(row.needs)
    }
    assert wanted - brought == of_training | {"test/iw_5000"}
    assert all(math.isfinite(v) for v in result.scores.values())
    assert result.kl_per_dimension.sum().item() == pytest.approx(result.scores["test/kl"], rel=1e-5)


def test_images_without_labels_are_scored_by_what_needs_none(
    trained: tuple[TrialSpec, Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setattr(features, "STEPS", 20)
    spec, cohort = trained
    vae, images = cohort.trained(cohort.specs[0]), cohort.data
    blank = {name: replace(getattr(images, name), labels=None) for name in ("train", "validation", "test")}
    scores = metrics.evaluate(spec, vae, replace(images, **blank)).scores
    left_out = {key for key, row in SCORES.items() if "labels" in row.needs}
    assert left_out == {"test/knn15_accuracy", "test/probe_accuracy"}
    assert not left_out & scores.keys()
    wanted = {key for key, row in SCORES.items() if row.images == "test" and row.needs in ((), ("features",))}
    assert scores.keys() >= wanted


def test_bounds_of_a_trained_model_climb_to_its_exact_likelihood(fitted: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = fitted
    scores = metrics.evaluate(spec, cohort.trained(cohort.specs[0]), cohort.data, depths=SHALLOW).scores
    ladder = [scores[f"test/{name}"] for name in ("elbo", "iw_10", "iw_100", "iw_1000", "exact_log_px")]
    assert all(b > a - 0.02 for a, b in pairwise(ladder))  # a draw of importance weights may overshoot by a little
    assert ladder[-1] > ladder[0] + 0.1
    assert scores["test/inference_gap"] == pytest.approx(ladder[-1] - ladder[0])
    assert scores["test/exact_resolution"] < 1e-3
    assert scores["test/common_bits"] > scores["test/common_bits_iw"]


@pytest.mark.parametrize("exact_images", [40, 150])  # fewer than the importance weights are of, and more
def test_log_px_of_the_first_images_enters_by_its_distance_to_their_elbo(
    exact_images: int, fitted: tuple[TrialSpec, Cohort]
) -> None:
    spec, cohort = fitted
    vae, depth = cohort.trained(cohort.specs[0]), replace(SHALLOW["full"], exact_images=exact_images, other_images=20)
    scores = metrics.evaluate(spec, vae, cohort.data, depths={"full": depth}).scores
    view = metrics.native(vae, metrics.model_inputs(spec, cohort.data.test))
    few, draws = view.first(exact_images), 1_000
    elbo = metrics.estimate_elbo(vae, few, draws)
    gap = (exact(vae, few).log_px - elbo.elbo).mean().item()
    error = elbo.standard_error * (draws / (depth.samples if exact_images > depth.images else draws)) ** 0.5
    assert gap > 8 * error
    assert scores["test/inference_gap"] == pytest.approx(gap, abs=4 * error)
    assert scores["test/exact_log_px"] == pytest.approx(scores["test/elbo"] + scores["test/inference_gap"])
    head = CommonHead.count(vae, *inputs.encode(spec, vae, cohort.data.train), cohort.data.train.levels)
    few = head.view(vae, view.x, cohort.data.test.levels.float()).first(depth.other_images)
    elbo = metrics.estimate_elbo(vae, few, draws)
    gap = (exact(vae, few).log_px - elbo.elbo).mean().item()
    bits = bits_per_dimension(gap, view.x.shape[1])
    error = abs(bits_per_dimension(elbo.standard_error * (draws / YARDSTICK_DRAWS) ** 0.5, view.x.shape[1]))
    assert -bits > 8 * error
    assert scores["test/common_bits_exact"] - scores["test/common_bits"] == pytest.approx(bits, abs=4 * error)


def test_nothing_is_scored_on_validation_once_it_was_trained_on() -> None:
    spec = TrialSpec(dataset="digits", epochs=1, batch_size=600, fit_on="train+validation")
    cohort = Cohort([spec], data.load_dataset("digits"), torch.device("cpu"))
    (row,) = cohort.run_epoch().values()
    scores = metrics.evaluate(spec, cohort.trained(cohort.specs[0]), cohort.data).scores
    assert not any("validation" in name for name in (*row, *scores))


def test_a_search_selects_by_what_an_evaluation_scores_on_the_test_set(trained: tuple[TrialSpec, Cohort]) -> None:
    """The same two scores, of other images: with validation in the test set's place they agree."""
    spec, cohort = trained
    vae, images = cohort.trained(cohort.specs[0]), cohort.data
    found = metrics.validate(spec, vae, replace(images, test=None))  # which is then not looked at
    scores = metrics.evaluate(spec, vae, replace(images, test=images.validation)).scores
    assert found == {
        "validation/squared_error": pytest.approx(scores["test/squared_error"], rel=1e-6),
        "validation/common_bits": pytest.approx(scores["test/common_bits"], rel=1e-6),
    }


def test_what_was_trained_on_validates_nothing(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    with pytest.raises(ValueError, match="fit_on='train'"):
        metrics.validate(spec.derive(fit_on="train+validation"), cohort.trained(cohort.specs[0]), cohort.data)


def test_anchors_on_mnist() -> None:
    """What no model is needed for: the entropy of grey pixels under bce, and the decoder that always shows the mean image."""
    mnist = data.load_dataset("mnist")
    x = mnist.test.levels.double() / 255
    mean = mnist.fit_on("train+validation").levels.double().mean(0) / 255
    log_prob = LIKELIHOODS["bce"].log_prob
    floor = -log_prob(x, torch.logit(x, 1e-12)).mean()
    constant = -log_prob(x, torch.logit(mean, 1e-6).expand_as(x)).mean()
    assert floor.item() == pytest.approx(45.53, abs=0.01)
    assert constant.item() == pytest.approx(205.80, abs=0.05)
    assert images.squared_error(mean, x).mean().item() == pytest.approx(52.90, abs=0.01)
