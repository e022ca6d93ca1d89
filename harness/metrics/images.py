"""Scores of images against target images. Shapes: N images, P pixels; pixels on [0, 1]."""

import torch
from torch import Tensor

BATCH = 1_000
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each image, summed over pixels: (N, P) twice to (N,)."""
    return (image - target).square().sum(-1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB, for a peak of 1 and at most 100: (N, P) twice to (N,)."""
    return -10 * (image - target).square().mean(-1).clamp_min(1e-10).log10()


def ssim(image: Tensor, target: Tensor, side: int) -> Tensor:
    """Return the structural similarity of each image: (N, P) twice to (N,).

    From Wang et al., 2004 (https://doi.org/10.1109/TIP.2003.819861), with a Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01,
    K2 = 0.03 and range 1, averaged over the positions where the window fits. For images smaller than the window it is the largest
    odd window that fits. `side` is an image's width, so P = side^2.
    """
    size = min(SSIM_WINDOW, side - 1 + side % 2)
    offset = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
    weight = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    band = image.new_zeros(side, side - size + 1)  # column j holds the window that starts at pixel j
    for j in range(band.shape[1]):
        band[j : j + size, j] = weight / weight.sum()

    def blur(x: Tensor) -> Tensor:
        """Return the window's means at all its positions: (N, side, side) to (N, side - size + 1, side - size + 1)."""
        return band.T @ x @ band  # two small products, ten times faster than a convolution with one channel

    scores = []
    for batch in zip(torch.split(image, BATCH), torch.split(target, BATCH), strict=True):
        a, b = (t.view(-1, side, side) for t in batch)
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        cov = blur(a * b) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        scores.append(score.mean((1, 2)))
    return torch.cat(scores)
