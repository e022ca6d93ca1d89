"""Scores of images against target images. Shapes: N images, C channels, H rows, W columns, P = C H W; values on [0, 1]."""

import torch
from torch import Tensor

from harness.metrics.memory import most_values

BATCH = 1_000
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Return the squared error of each image, summed over pixels: (N, P) twice to (N,)."""
    return (image - target).square().sum(-1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in dB, for a peak of 1 and at most 100: (N, P) twice to (N,)."""
    return -10 * (image - target).square().mean(-1).clamp_min(1e-10).log10()


def ssim(image: Tensor, target: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
    """Return the structural similarity of each image: (N, P) twice to (N,).

    From Wang et al., 2004 (https://doi.org/10.1109/TIP.2003.819861), with a Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01,
    K2 = 0.03 and range 1, averaged over the positions where the window fits and over the channels. For images that are smaller
    than the window in height or width it is the largest odd window that fits.
    """
    channels, height, width = image_shape
    shortest = min(height, width)
    size = min(SSIM_WINDOW, shortest - 1 + shortest % 2)
    offset = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
    weight = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))

    def band(length: int) -> Tensor:
        """Return the window at all its positions along so many pixels, (length, length - size + 1): one per column."""
        columns = image.new_zeros(length, length - size + 1)
        for j in range(columns.shape[1]):
            columns[j : j + size, j] = weight / weight.sum()
        return columns

    down, along = band(height).T, band(width)

    def blur(x: Tensor) -> Tensor:
        """Return the window's means at all its positions: (N C, H, W) to (N C, H - size + 1, W - size + 1)."""
        return down @ x @ along  # two small products, ten times faster than a convolution with one channel

    scores, at_once = [], max(1, min(BATCH, most_values(image.device) // image.shape[1]))
    for batch in zip(torch.split(image, at_once), torch.split(target, at_once), strict=True):
        a, b = (t.reshape(-1, height, width) for t in batch)
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        cov = blur(a * b) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        scores.append(score.mean((1, 2)).view(-1, channels).mean(1))
    return torch.cat(scores)
