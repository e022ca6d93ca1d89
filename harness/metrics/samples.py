"""Scores of samples without a likelihood, from features of real and of generated images. Shapes: N and M images, F features."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NEIGHBOUR = 3  # whose distance is the radius of a point's ball
BATCH = 50  # points whose distances to all others are computed at a time


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the Frechet distance between Gaussian fits of two sets of features, (N, F) and (M, F), in squared units of features.

    It is |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) (Heusel et al., 2017, https://arxiv.org/abs/1706.08500), in float64.
    With S = R^T R, R from the QR decomposition of the centred set, the last trace is the sum of the singular values of R_a R_b^T,
    which is exact even if a covariance is singular. The fit to few images is biased upwards: compare scores of equal N and M only.
    """

    def fit(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (F,) and R, at most (F, F), of a set of features."""
        mean = x.mean(0)
        return mean, torch.linalg.qr((x - mean) / math.sqrt(len(x) - 1), mode="r").R

    (mean_a, root_a), (mean_b, root_b) = fit(a.double()), fit(b.double())
    shift = (mean_a - mean_b).square().sum()
    spread = root_a.square().sum() + root_b.square().sum() - 2 * torch.linalg.matrix_norm(root_a @ root_b.T, "nuc")
    return max(0.0, float(shift + spread))


class PrecisionRecall(NamedTuple):
    """Precision and recall of generated samples, on [0, 1].

    Attributes:
        precision: The share of generated points that are within the manifold of the real ones.
        recall: The share of real points that are within the manifold of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(
    real: Tensor, fake: Tensor, k: int = NEIGHBOUR, *, real_balls: Tensor | None = None, batch_size: int = BATCH
) -> PrecisionRecall:
    """Return improved precision and recall (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

    A point is within the manifold of a set if it is within the ball of some member, whose radius is the distance to that member's
    k-th nearest other member. Compare scores of equal N, M and k only.

    Args:
        real: Features of real images, (N, F).
        fake: Features of generated images, (M, F).
        k: The neighbour that sets a ball's radius.
        real_balls: What `balls` gives for `real`, if it was computed before.
        batch_size: Points whose distances to all others are computed at a time.
    """
    fake_balls = balls(fake, k, batch_size)
    if real_balls is None:
        real_balls = balls(real, k, batch_size)
    real, fake = real.double(), fake.double()
    among_reals = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    among_fakes = []
    for points, ball in zip(torch.split(real, batch_size), torch.split(real_balls, batch_size), strict=True):
        distance = _squared(points, fake)
        among_reals |= (distance <= ball[:, None]).any(0)
        among_fakes.append((distance <= fake_balls).any(1))
    return PrecisionRecall(among_reals.double().mean().item(), torch.cat(among_fakes).double().mean().item())


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared distances between points (N, F) and (M, F), (N, M): half the time of their roots by torch.cdist."""
    return torch.addmm(b.square().sum(1), a, b.T, alpha=-2).add_(a.square().sum(1)[:, None])


def balls(points: Tensor, k: int = NEIGHBOUR, batch_size: int = BATCH) -> Tensor:
    """Return the squared distance from each point (N, F) to its k-th nearest other point, (N,), in float64."""
    points = points.double()
    # The k + 1 nearest points start with the point itself.
    return torch.cat(
        [_squared(chunk, points).topk(k + 1, largest=False).values[:, -1] for chunk in torch.split(points, batch_size)]
    )
