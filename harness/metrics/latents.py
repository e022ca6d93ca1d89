"""Scores of codes alone, without decoding. Shapes: N images, Z latents."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from harness.scores import NEIGHBOURS

ACTIVE_VARIANCE = 0.01
PROBE_STEPS = 500
DRAWS_AT_ONCE = 200  # draws at a time against all images: 16 MB at 10,000 of them


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the share of test codes whose class is the majority among their 15 nearest training codes.

    Codes are q's means, (N, Z), their distance is Euclidean; labels are (N,).
    """
    from sklearn.neighbors import KNeighborsClassifier

    algorithm = "kd_tree" if train.shape[1] <= 5 else "brute"  # 50k codes: the tree takes 0.1 s at z=2; 10 s at z=10, brute 2.6 s
    model = KNeighborsClassifier(NEIGHBOURS, algorithm=algorithm).fit(train.cpu().numpy(), train_labels.cpu().numpy())
    return float(model.score(test.cpu().numpy(), test_labels.cpu().numpy()))


def active_units(mean: Tensor) -> int:
    """Return the number of latents whose posterior mean varies over the data: Var_x E_q[z] > 0.01; mean is (N, Z).

    From Burda et al., 2016 (https://arxiv.org/abs/1509.00519).
    """
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the share of test codes (N, Z) whose class a multinomial logistic regression on standardised training codes predicts.

    The L2 penalty has weight 1 beside the sum of log losses, scikit-learn's default; with 50,000 codes it is negligible.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_STEPS))
    model.fit(train.double().cpu().numpy(), train_labels.cpu().numpy())
    return float(model.score(test.double().cpu().numpy(), test_labels.cpu().numpy()))


class AggregateInformation(NamedTuple):
    """Information measures of the aggregate posterior q(z), in nats.

    Attributes:
        mutual_information: I_q(x; z), at most log N.
        marginal_kl: KL(q(z) || p(z)).
        log_n: log N.
    """

    mutual_information: float
    marginal_kl: float
    log_n: float


@torch.no_grad()
def mutual_information(
    mean: Tensor, log_var: Tensor, draws: int = 2_000, seed: int = 0, *, chunk: int = DRAWS_AT_ONCE
) -> AggregateInformation:
    """Return the mutual information of images and codes, and the divergence of the aggregate posterior from the prior N(0, I).

    I_q(x; z) = E[log q(z|x) - log q(z)] and KL(q(z) || p(z)) = E[log q(z) - log p(z)], x uniform on the N images and z ~ q(z|x),
    with the full aggregate q(z) = 1/N sum_n q(z|x_n); the two add up to the mean of KL(q(z|x) || p(z)). Hoffman & Johnson, 2016
    ("ELBO surgery", https://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf).

    Args:
        mean: Mean of q, (N, Z).
        log_var: Log variance of q, (N, Z).
        draws: The number of draws over which expectations are estimated, spread evenly over the images.
        seed: Of the draws.
        chunk: Draws that are compared with all images at a time.
    """
    mean, log_var = mean.double().cpu(), log_var.double().cpu()
    generator = torch.Generator().manual_seed(seed)
    n, latents = mean.shape
    image = torch.randperm(n, generator=generator)[torch.arange(draws) % n]
    eps = torch.randn(draws, latents, generator=generator, dtype=torch.float64)
    z = mean[image] + (log_var[image] / 2).exp() * eps
    # log q(z|x_n) = -1/2 sum_j [(z_j - m_j)^2 / s_j^2 + log s_j^2 + log 2 pi]: affine in (z^2, z), so all pairs are one product.
    # The term in 2 pi is left out throughout, for it cancels.
    precision = (-log_var).exp()
    slopes = torch.cat((-precision / 2, mean * precision), 1).T
    offset = -(mean.square() * precision + log_var).sum(1) / 2
    log_aggregate = torch.cat(
        [torch.logsumexp(torch.addmm(offset, t, slopes), 1) for t in torch.split(torch.cat((z * z, z), 1), chunk)]
    )
    log_aggregate -= math.log(n)
    log_own = -(eps.square() + log_var[image]).sum(1) / 2
    log_prior = -z.square().sum(1) / 2
    return AggregateInformation((log_own - log_aggregate).mean().item(), (log_aggregate - log_prior).mean().item(), math.log(n))
