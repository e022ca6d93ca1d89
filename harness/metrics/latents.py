"""Scores of codes alone, without decoding. Shapes: N images, Z latents."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.metrics.bounds import batches
from harness.scores import NEIGHBOURS

ACTIVE_VARIANCE = 0.01
PROBE_STEPS, PROBE_END = 50, 1e-8  # of an iteration at most; nats an image that its next step would gain
LBFGS_STEPS = 500
PROBE_PART, PROBE_FEWEST = 10, 500  # each tenth image gives where to begin and the curvature, if those are so many
PROBE_VALUES = 2**17  # of a part of the products of probabilities and inputs: 1 MiB
PROBE_MOST = 1_000  # weights; of more of them L-BFGS takes less time than the Hessian
MOST_IN_TREE = 5  # latents: of 50,000 codes a tree takes 0.1 s at 2 and 10 s at 10, all distances 2.6 s
DRAWS_AT_ONCE = 20  # draws at a time against all images: 1.6 MB at 10,000 of them


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the share of test codes whose class is the majority among their 15 nearest training codes.

    Codes are q's means, (N, Z), their distance is Euclidean; labels are (N,).
    """
    known, asked = train.cpu().numpy(), test.cpu().numpy()
    if known.shape[1] > MOST_IN_TREE:
        from sklearn.neighbors import KNeighborsClassifier

        model = KNeighborsClassifier(NEIGHBOURS, algorithm="brute").fit(known, train_labels.cpu().numpy())
        return float(model.score(asked, test_labels.cpu().numpy()))
    from scipy.spatial import KDTree

    nearest = KDTree(known).query(asked, NEIGHBOURS)[1]
    votes = F.one_hot(train_labels.cpu()[torch.from_numpy(nearest)]).sum(1)
    return float((votes.argmax(1) == test_labels.cpu()).double().mean())


def active_units(mean: Tensor) -> int:
    """Return the number of latents whose posterior mean varies over the data: Var_x E_q[z] > 0.01; mean is (N, Z).

    From Burda et al., 2016 (https://arxiv.org/abs/1509.00519).
    """
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


def linear_probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return the share of test codes (N, Z) whose class a multinomial logistic regression on standardised training codes predicts.

    The L2 penalty has weight 1 beside the sum of log losses, scikit-learn's default; with 50,000 codes it is negligible.
    """
    if (train.shape[1] + 1) * len(train_labels.unique()) > PROBE_MOST:
        return _by_lbfgs(train, train_labels, test, test_labels)
    center, spread = train.double().mean(0), train.double().std(0, correction=0)
    spread = torch.where(spread > 10 * torch.finfo(torch.float64).eps * center.abs(), spread, 1.0)  # else it is constant
    x, asked = ((codes.double() - center) / spread for codes in (train, test))
    x, asked = (torch.cat((codes, torch.ones_like(codes[:, :1])), 1) for codes in (x, asked))
    classes, number = train_labels.unique(return_inverse=True)
    weights = x.new_zeros(x.shape[1], len(classes))
    if len(x) < PROBE_PART * PROBE_FEWEST:
        weights = _regression(x, number, weights)
    else:
        weights = _refined(x, number, _regression(x[::PROBE_PART], number[::PROBE_PART], weights))
    return float((classes[(asked @ weights).argmax(1)] == test_labels).double().mean())


def _by_lbfgs(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Return `linear_probe` of many latents or classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=LBFGS_STEPS))
    model.fit(train.double().cpu().numpy(), train_labels.cpu().numpy())
    return float(model.score(test.double().cpu().numpy(), test_labels.cpu().numpy()))


def _regression(x: Tensor, number: Tensor, weights: Tensor) -> Tensor:
    """Return the weights of a multinomial logistic regression, (D, K), by Newton's method from the given ones.

    x is (N, D), its last column 1 for the intercepts, which have no penalty, and `number` the classes' numbers, (N,).
    """
    rows, penalty = len(x), _penalty(x, weights)
    value, log_p = _loss(x, number, weights, penalty)
    for _ in range(PROBE_STEPS):
        gradient = _gradient(x, number, weights, penalty, log_p)
        step = _by_class(torch.cholesky_solve(_flat(gradient), _curvature(x, log_p.exp(), penalty)), weights)
        gain, share, before = float((gradient * step).sum()), 1.0, value
        value, log_p = _loss(x, number, weights - step, penalty)
        while share > PROBE_END and value > before - 1e-4 * share * gain:
            share /= 2
            value, log_p = _loss(x, number, weights - share * step, penalty)
        weights = weights - share * step
        if gain < PROBE_END * rows:
            break
    return weights


def _refined(x: Tensor, number: Tensor, weights: Tensor) -> Tensor:
    """Return the weights of `_regression` by L-BFGS from those for a part of the images, in units of the part's curvature.

    In these the loss is about as steep in all directions, so that some ten gradients do where Newton's method takes five Hessians,
    of which one of 50 latents takes the time of a hundred gradients.
    """
    from scipy.optimize import minimize

    penalty = _penalty(x, weights)
    part = x[::PROBE_PART]
    root = _curvature(part, (part @ weights).softmax(1), penalty / PROBE_PART) * PROBE_PART**0.5

    def at(units: Tensor) -> Tensor:
        """Return the weights that lie so many units from the first ones."""
        return weights + _by_class(torch.linalg.solve_triangular(root.T, units[:, None], upper=True), weights)

    def loss(units: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient."""
        there = at(torch.from_numpy(units))
        value, log_p = _loss(x, number, there, penalty)
        gradient = _flat(_gradient(x, number, there, penalty, log_p))
        return value, torch.linalg.solve_triangular(root, gradient, upper=False)[:, 0].numpy()

    steepest = (PROBE_END * len(x) / weights.numel()) ** 0.5
    ends = {"maxiter": PROBE_STEPS, "ftol": 0.0, "gtol": steepest}
    return at(torch.from_numpy(minimize(loss, np.zeros(weights.numel()), jac=True, method="L-BFGS-B", options=ends).x))


def _penalty(x: Tensor, weights: Tensor) -> Tensor:
    """Return the weight of the L2 penalty on each of the regression's weights, (D, K): 1, and next to nothing on intercepts.

    These alone could all be moved together.
    """
    penalty = torch.ones_like(weights)
    penalty[-1] = 1e-9 * len(x)
    return penalty


def _curvature(x: Tensor, p: Tensor, penalty: Tensor) -> Tensor:
    """Return the Cholesky factor of the Hessian of the loss at class probabilities p (N, K), for weights class by class."""
    inputs, classes = penalty.shape
    hessian = torch.diag(penalty.T.flatten())
    for part in batches(len(x), max(1, PROBE_VALUES // (inputs * classes))):
        joint = (p[part, :, None] * x[part, None, :]).flatten(1)
        hessian += torch.block_diag(*(joint.T @ x[part]).split(inputs)) - joint.T @ joint
    factor: Tensor = torch.linalg.cholesky(hessian)
    return factor


def _gradient(x: Tensor, number: Tensor, weights: Tensor, penalty: Tensor, log_p: Tensor) -> Tensor:
    """Return the gradient of `_loss`, (D, K)."""
    rest = log_p.exp()
    rest[torch.arange(len(x)), number] -= 1
    return x.T @ rest + penalty * weights


def _flat(values: Tensor) -> Tensor:
    """Return values of weights class by class: (D, K) to (K D, 1)."""
    return values.T.reshape(-1, 1)


def _by_class(flat: Tensor, weights: Tensor) -> Tensor:
    """Return what `_flat` made flat: (K D, 1) to (D, K), the shape of the weights."""
    return flat.view(*weights.T.shape).T


def _loss(x: Tensor, number: Tensor, weights: Tensor, penalty: Tensor) -> tuple[float, Tensor]:
    """Return the penalised sum of log losses in nats, and the log probabilities of all classes, (N, K)."""
    log_p = (x @ weights).log_softmax(1)
    return float((penalty * weights.square()).sum() / 2 - log_p.gather(1, number[:, None]).sum()), log_p


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
