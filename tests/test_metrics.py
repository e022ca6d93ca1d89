import math

import numpy as np
import pytest
import torch

from harness import data, metrics
from harness.cohort import Cohort
from harness.likelihoods import LIKELIHOODS
from harness.spec import TrialSpec
from harness.study import SCORES


def pair(side: int, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(n, side * side, generator=g, dtype=torch.float64)
    return a, (a + 0.2 * torch.randn(a.shape, generator=g, dtype=torch.float64)).clamp(0, 1)


def test_squared_error_and_psnr_by_hand() -> None:
    image, target = torch.tensor([[0.0, 0.5, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    assert metrics.squared_error(image, target).tolist() == [1.25]
    assert metrics.psnr(image, target).item() == pytest.approx(10 * math.log10(1 / (1.25 / 4)))


def naive_ssim(a: np.ndarray, b: np.ndarray, size: int) -> float:
    """Wang et al., position by position."""
    offset = np.arange(size) - size // 2
    weight = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    values = []
    for i in range(a.shape[0] - size + 1):
        for j in range(a.shape[1] - size + 1):
            p, q = a[i : i + size, j : j + size], b[i : i + size, j : j + size]
            m, n = (weight * p).sum(), (weight * q).sum()
            v, w, c = (weight * (p - m) ** 2).sum(), (weight * (q - n) ** 2).sum(), (weight * (p - m) * (q - n)).sum()
            values.append((2 * m * n + 1e-4) * (2 * c + 9e-4) / ((m**2 + n**2 + 1e-4) * (v + w + 9e-4)))
    return float(np.mean(values))


@pytest.mark.parametrize(("side", "window"), [(28, 11), (11, 11), (8, 7), (7, 7)])
def test_ssim_is_the_naive_one(side: int, window: int) -> None:
    a, b = pair(side)
    want = [naive_ssim(p.view(side, side).numpy(), q.view(side, side).numpy(), window) for p, q in zip(a, b, strict=True)]
    assert metrics.ssim(a, b, side).tolist() == pytest.approx(want, abs=1e-9)


def test_an_image_is_like_itself() -> None:
    a, _ = pair(28)
    torch.testing.assert_close(metrics.ssim(a, a, 28), torch.ones(4, dtype=torch.float64))


def test_knn_takes_the_majority_of_fifteen() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(40)
    far = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])[labels]
    codes = far + 0.3 * torch.randn(far.shape, generator=g)
    assert metrics.knn_accuracy(codes, labels, far, labels) == 1
    assert metrics.knn_accuracy(codes, labels, far, (labels + 1) % 3) == 0
    # Seven neighbours of one class at distance 0 lose to eight of the other a little further off.
    line = torch.tensor([[0.0]] * 7 + [[0.1]] * 8 + [[50.0]] * 9)
    classes = torch.tensor([0] * 7 + [1] * 8 + [0] * 9)
    assert metrics.knn_accuracy(line, classes, torch.zeros(1, 1), torch.tensor([1])) == 1


@pytest.mark.parametrize("latent", [2, 8])
def test_knn_is_the_same_by_tree_and_by_brute_force(latent: int) -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(60)
    codes = torch.randn(300, latent, generator=g) + labels[:, None] * 0.5
    nearest = torch.cdist(codes, codes).topk(15, largest=False).indices
    share = (torch.stack([labels[row].bincount(minlength=5).argmax() for row in nearest]) == labels).double().mean().item()
    assert metrics.knn_accuracy(codes, labels, codes, labels) == pytest.approx(share, abs=0.02)  # ties may fall either way


def test_active_units_vary_over_the_data() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(5_000, 3, generator=g) * torch.tensor([1.0, 0.2, 0.05]) + 7
    assert metrics.active_units(mean) == 2


@pytest.fixture(scope="module")
def trained() -> tuple[TrialSpec, Cohort]:
    spec = TrialSpec(dataset="digits", epochs=1, batch_size=64, likelihood="bernoulli")
    cohort = Cohort([spec], data.load("digits"), torch.device("cpu"))
    cohort.run_epoch()
    return spec, cohort


def test_monte_carlo_error_falls_with_the_root_of_samples(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    vae = cohort.lane(0)
    x = metrics.observed(spec, vae, cohort.data.test)
    few, many = metrics.elbo(vae, x, samples=8), metrics.elbo(vae, x, samples=512)
    assert few.standard_error / many.standard_error == pytest.approx(8, rel=0.2)
    assert few.elbo == pytest.approx(many.elbo, abs=4 * few.standard_error)
    assert few.kl == pytest.approx(many.kl, rel=1e-6)
    assert many.elbo == pytest.approx(many.recon - many.kl)
    # The error that it tells is the spread of independent estimates.
    again = [metrics.elbo(vae, x, samples=8, seed=s).elbo for s in range(30)]
    assert np.std(again, ddof=1) == pytest.approx(few.standard_error, rel=0.4)


def test_an_elbo_does_not_depend_on_batches(trained: tuple[TrialSpec, Cohort], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, cohort = trained
    vae = cohort.lane(0)
    x = metrics.observed(spec, vae, cohort.data.test)
    whole = metrics.elbo(vae, x, samples=64), metrics.codes(vae, x)
    monkeypatch.setattr(metrics, "BATCH", 64)
    parts = metrics.elbo(vae, x, samples=64), metrics.codes(vae, x)
    assert parts[0].kl == pytest.approx(whole[0].kl, rel=1e-6)
    assert parts[0].elbo == pytest.approx(whole[0].elbo, abs=4 * whole[0].standard_error)
    torch.testing.assert_close(parts[1].image, whole[1].image)


def test_evaluation_noise_is_frozen(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    vae, test = cohort.lane(0), cohort.data.test
    x = metrics.observed(spec, vae, test)
    assert torch.equal(x, metrics.observed(spec, vae, test))
    assert x.unique().tolist() == [0, 1]
    assert torch.equal(metrics.observed(spec.derive(binarisation="threshold"), vae, test), (test.levels >= 128).float())
    torch.testing.assert_close(metrics.encode(spec, vae, test), metrics.codes(vae, x).mean)


def test_an_evaluation_scores_everything_a_study_may_name(trained: tuple[TrialSpec, Cohort]) -> None:
    spec, cohort = trained
    result = metrics.evaluate(spec, cohort.lane(0), cohort.data)
    assert {s for s in SCORES if s != "elbo/validation"} <= set(result.scores)
    assert all(math.isfinite(v) for v in result.scores.values())
    assert result.kl_per_dimension.sum().item() == pytest.approx(result.scores["test/kl"], rel=1e-5)


def test_nothing_is_scored_on_validation_once_it_was_trained_on() -> None:
    spec = TrialSpec(dataset="digits", epochs=1, batch_size=600, fit_on="train+validation")
    cohort = Cohort([spec], data.load("digits"), torch.device("cpu"))
    (row,) = cohort.run_epoch().values()
    scores = metrics.evaluate(spec, cohort.lane(0), cohort.data).scores
    assert not any("validation" in name for name in (*row, *scores))


def test_anchors_on_mnist() -> None:
    """What no model is needed for: the entropy of grey pixels under bce, and the decoder that always shows the mean image."""
    mnist = data.load("mnist")
    x = mnist.test.levels.double() / 255
    mean = mnist.fit_on("train+validation").levels.double().mean(0) / 255
    log_prob = LIKELIHOODS["bce"].log_prob
    floor = -log_prob(x, torch.logit(x, 1e-12)).mean()
    constant = -log_prob(x, torch.logit(mean, 1e-6).expand_as(x)).mean()
    assert floor.item() == pytest.approx(45.53, abs=0.01)
    assert constant.item() == pytest.approx(205.80, abs=0.05)
    assert metrics.squared_error(mean, x).mean().item() == pytest.approx(52.90, abs=0.01)
