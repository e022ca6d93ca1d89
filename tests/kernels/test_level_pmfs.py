"""Native log P(v|z) of grey levels equals float64 arithmetic of the likelihoods' own, and sums to 1.

Shapes: R rows, P pixels.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.kernels.library import Library
from harness.models.likelihoods import (
    SIGMA_FLOOR,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
)

LIKELIHOODS: dict[str, Any] = {
    "mse": Gaussian("nothing"),
    "narrowest": Gaussian("nothing", sigma=SIGMA_FLOOR),
    "gaussian_shared": Gaussian("shared"),
    "gaussian_per_pixel": Gaussian("pixel"),
    "continuous_bernoulli": ContinuousBernoulli(),
    "laplace": Laplace(),
    "discretized_logistic": DiscretizedLogistic(),
    "categorical": Categorical(),
}
RAW = [-30.0, -6.0, -3.0, -1.0, 0.0, 2.0, 20.0]  # of scales: from their floor, half a level, to their ceiling
SPREADS = [0.1, 1.0, 8.0, 400.0]  # of the decoder's outputs: as at the start, as trained, saturated
LEVELS = torch.arange(256.0)


def outputs(likelihood: Likelihood, rows: int, pixels: int, spread: float, raw: float) -> list[Tensor]:
    """The decoder's outputs as it gives them, (R, P) each, then shared scalars."""
    g = torch.Generator().manual_seed(0)
    out = spread * torch.randn(rows, likelihood.outputs, pixels, generator=g)
    if likelihood.outputs == 2:
        out[:, 1] = raw + 0.01 * out[:, 1]
    return [*out.unbind(1), *[torch.full((1, 1), raw)] * likelihood.shared]


def natively(native: Library, likelihood: Likelihood, v: Tensor, *out: Tensor) -> Tensor:
    """log P(v|z) of images v (images, P), (R,)."""
    assert likelihood.kernel is not None
    settings = torch.tensor([*likelihood.kernel.settings, 0.0], dtype=torch.float64)
    log_p = torch.full((len(out[0]),), torch.nan)
    shared = out[likelihood.outputs].data_ptr() if likelihood.shared else None
    at = (settings.data_ptr(), v.data_ptr(), out[0].data_ptr(), shared, log_p.data_ptr())
    native.levels(likelihood.kernel.kind, *at, len(log_p), len(v), v.shape[1])
    return log_p


def exactly(likelihood: Likelihood, v: Tensor, *out: Tensor) -> Tensor:
    """The same from torch's operations in float64, (R,)."""
    found = likelihood.log_pmf(v.double(), *(o.double() for o in out))
    assert found is not None
    return found


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_levels_are_scored_as_by_float64(native: Library, name: str, spread: float) -> None:
    """Every level, levels at the mean and in the farthest tails: an image's sum within 2e-6 of itself and 3e-6 nats a pixel.

    A single pixel is within what a mean that is rounded to float32 makes of it, 3e-5 of the narrowest scale.
    """
    likelihood, g = LIKELIHOODS[name], torch.Generator().manual_seed(1)
    for raw in RAW:
        for rows, pixels in ((256, 1), (5, 83), (5, 784)):
            out = outputs(likelihood, rows, pixels, spread, raw)
            v = torch.randint(-64, 320, (rows, pixels), generator=g).clamp(0, 255).float()
            at_mean = (255 * likelihood.mean(*out).clamp(0, 1)).round()
            for levels in (v, at_mean, LEVELS[:, None] if pixels == 1 else 255 - v):
                torch.testing.assert_close(
                    natively(native, likelihood, levels, *out).double(),
                    exactly(likelihood, levels, *out),
                    rtol=2e-6,
                    atol=1e-3 if pixels == 1 else 3e-6 * pixels,
                )


@pytest.mark.parametrize("raw", RAW)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_probabilities_of_levels_sum_to_1(native: Library, name: str, raw: float) -> None:
    likelihood = LIKELIHOODS[name]
    for spread in SPREADS:
        out = outputs(likelihood, 7, 1, spread, raw)
        # A row for each pair of outputs and level; row r is scored against level r % 256.
        repeated = [o.repeat_interleave(256, 0).contiguous() for o in out[: likelihood.outputs]]
        together = list(torch.stack(repeated, 1).unbind(1))
        log_p = natively(native, likelihood, LEVELS[:, None], *together, *out[likelihood.outputs :])
        torch.testing.assert_close(log_p.double().view(7, 256).exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=0, atol=3e-5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_an_output_that_is_no_number_is_not_hidden(native: Library, name: str) -> None:
    likelihood = LIKELIHOODS[name]
    for level in (0.0, 17.0, 255.0):
        for k in range(min(2, likelihood.outputs)):
            out = outputs(likelihood, 3, 40, 1.0, 0.0)
            out[k][1, 20] = torch.nan
            assert natively(native, likelihood, torch.full((1, 40), level), *out).isnan().tolist() == [False, True, False]


def test_scales_that_the_kernels_are_not_made_for_are_left_to_torch() -> None:
    widest = SIGMA_FLOOR + math.exp(7)
    for sigma in (SIGMA_FLOOR, 1.0, widest):
        assert Gaussian("nothing", sigma=sigma).kernel.of_levels
    for sigma in (SIGMA_FLOOR / 2, 2 * widest):
        assert not replace(Gaussian("nothing"), sigma=sigma).kernel.of_levels
