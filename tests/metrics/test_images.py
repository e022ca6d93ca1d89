import math

import numpy as np
import pytest
import torch

from harness.metrics import images


def pair(side: int, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(n, side * side, generator=g, dtype=torch.float64)
    return a, (a + 0.2 * torch.randn(a.shape, generator=g, dtype=torch.float64)).clamp(0, 1)


def test_squared_error_and_psnr_by_hand() -> None:
    image, target = torch.tensor([[0.0, 0.5, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    assert images.squared_error(image, target).tolist() == [1.25]
    assert images.psnr(image, target).item() == pytest.approx(10 * math.log10(1 / (1.25 / 4)))


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
    assert images.ssim(a, b, (1, side, side)).tolist() == pytest.approx(want, abs=1e-9)


def test_an_image_is_like_itself() -> None:
    a, _ = pair(28)
    torch.testing.assert_close(images.ssim(a, a, (1, 28, 28)), torch.ones(4, dtype=torch.float64))
