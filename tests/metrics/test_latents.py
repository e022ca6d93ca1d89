import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from harness.metrics.latents import active_units, knn_accuracy, linear_probe, mutual_information
from harness.models.vae import kl_per_dimension


def test_knn_takes_the_majority_of_fifteen() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(40)
    far = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])[labels]
    codes = far + 0.3 * torch.randn(far.shape, generator=g)
    assert knn_accuracy(codes, labels, far, labels) == 1
    assert knn_accuracy(codes, labels, far, (labels + 1) % 3) == 0
    # Seven neighbours of one class at distance 0 lose to eight of the other a little further off.
    line = torch.tensor([[0.0]] * 7 + [[0.1]] * 8 + [[50.0]] * 9)
    classes = torch.tensor([0] * 7 + [1] * 8 + [0] * 9)
    assert knn_accuracy(line, classes, torch.zeros(1, 1), torch.tensor([1])) == 1


@pytest.mark.parametrize("latent", [2, 8])
def test_knn_is_the_same_by_tree_and_by_brute_force(latent: int) -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat(60)
    codes = torch.randn(300, latent, generator=g) + labels[:, None] * 0.5
    nearest = torch.cdist(codes, codes).topk(15, largest=False).indices
    share = (torch.stack([labels[row].bincount(minlength=5).argmax() for row in nearest]) == labels).double().mean().item()
    assert knn_accuracy(codes, labels, codes, labels) == pytest.approx(share, abs=0.02)  # ties may fall either way


def test_active_units_vary_over_the_data() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(5_000, 3, generator=g) * torch.tensor([1.0, 0.2, 0.05]) + 7
    assert active_units(mean) == 2


# -------------------------------------------------------------------------------- linear probe


def test_a_linear_probe_separates_what_a_line_can() -> None:
    g = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(100)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    # Scales of 1,000 and 0.001, and a latent that says nothing: standardisation takes care of them.
    codes = (corners[labels] + 0.05 * torch.randn(400, 2, generator=g)) * torch.tensor([1e3, 1e-3])
    codes = torch.cat((codes, torch.full((400, 1), 7.0)), 1)
    assert linear_probe(codes[:200], labels[:200], codes[200:], labels[200:]) == 1
    assert linear_probe(codes[:200], labels[:200], codes[200:], (labels[200:] + 1) % 4) == 0


def test_a_linear_probe_cannot_undo_xor() -> None:
    g = torch.Generator().manual_seed(0)
    codes = torch.randn(2_000, 2, generator=g)
    labels = (codes.prod(1) > 0).long()
    assert linear_probe(codes[:1000], labels[:1000], codes[1000:], labels[1000:]) < 0.7


def test_a_linear_probe_on_noise_is_at_chance() -> None:
    g = torch.Generator().manual_seed(0)
    codes, labels = torch.randn(4_000, 5, generator=g), torch.randint(10, (4_000,), generator=g)
    assert linear_probe(codes[:2000], labels[:2000], codes[2000:], labels[2000:]) == pytest.approx(0.1, abs=0.03)


# -------------------------------------------------------------------------------- aggregate information


def posteriors(n: int, latents: int, spread: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return spread * torch.randn(n, latents, generator=g), torch.randn(n, latents, generator=g) - 1


def test_posteriors_apart_tell_which_image() -> None:
    mean = 100.0 * torch.arange(50)[:, None].expand(-1, 3)
    found = mutual_information(mean, torch.zeros(50, 3))
    assert found.log_n == pytest.approx(math.log(50))
    assert found.mutual_information == pytest.approx(found.log_n, abs=1e-9)


def test_equal_posteriors_tell_nothing() -> None:
    """All are N(m, s^2), and so is the aggregate: KL(q(z) || p(z)) is theirs."""
    mean, log_var = torch.tensor([0.5, -1.0]), torch.tensor([-0.5, 0.3])
    found = mutual_information(mean.expand(40, -1), log_var.expand(40, -1), draws=200_000)
    assert found.mutual_information == pytest.approx(0, abs=1e-9)
    kl = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum().item()
    assert found.marginal_kl == pytest.approx(kl, abs=0.02)


def test_the_prior_as_posterior_is_free() -> None:
    found = mutual_information(torch.zeros(30, 4), torch.zeros(30, 4))
    assert found[:2] == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize("latents", [1, 2, 7])
def test_information_is_the_mean_by_brute_force(latents: int) -> None:
    """Every image once, the same noise, each pair's density by torch.distributions."""
    mean, log_var = posteriors(60, latents)
    found = mutual_information(mean, log_var, draws=60, seed=3)
    g = torch.Generator().manual_seed(3)
    image = torch.randperm(60, generator=g)
    eps = torch.randn(60, latents, generator=g, dtype=torch.float64)
    q = Normal(mean.double(), (log_var.double() / 2).exp())
    information, marginal = [], []
    for i, e in zip(image, eps, strict=True):
        z = q.mean[i] + q.stddev[i] * e
        densities = q.log_prob(z).sum(1)
        log_aggregate = densities.exp().mean().log()
        information.append(densities[i] - log_aggregate)
        marginal.append(log_aggregate - Normal(0.0, 1.0).log_prob(z).sum())
    assert found.mutual_information == pytest.approx(torch.stack(information).mean().item(), rel=1e-9)
    assert found.marginal_kl == pytest.approx(torch.stack(marginal).mean().item(), rel=1e-9)


@pytest.mark.parametrize("latents", [2, 20])
def test_information_and_marginal_kl_add_up_to_the_kl(latents: int) -> None:
    mean, log_var = posteriors(300, latents)
    kl = kl_per_dimension(mean, log_var).sum(1).double().mean().item()
    runs = [mutual_information(mean, log_var, seed=s) for s in range(10)]
    sums = torch.tensor([r.mutual_information + r.marginal_kl for r in runs], dtype=torch.float64)
    assert abs(sums.mean().item() - kl) < 4 * sums.std().item() / math.sqrt(10)
    assert all(0 < r.mutual_information <= r.log_n + 1e-9 for r in runs)


def test_information_does_not_depend_on_chunks() -> None:
    mean, log_var = posteriors(100, 3)
    whole = mutual_information(mean, log_var, draws=250)
    assert mutual_information(mean, log_var, draws=250, chunk=7) == pytest.approx(whole, rel=1e-12)
