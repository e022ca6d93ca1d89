"""The native mixture of logistics equals float64 arithmetic of `LogisticMixture`'s own operations.

Shapes: R rows, P values of an image, N pixels.
"""

from ctypes import c_double

import pytest
import torch
from torch import Tensor

from harness.kernels.library import Library
from harness.models.likelihoods import LogisticMixture

MIXTURES = [LogisticMixture(components=k, channels=c) for c in (1, 3) for k in (1, 2, 5)]
PIXELS = [1, 19, 64]  # less than a vector; some vectors and a part of one; whole vectors only, for any width
ROWS, IMAGES = 6, 3
SPREADS = [0.1, 1.0, 8.0, 400.0]  # of the decoder's outputs: as at the start, as trained, saturated
RAW = [-30.0, 0.0, 2.0, 30.0]  # of scales: at their floor, as at the start, wide, at their ceiling


def name(mixture: LogisticMixture) -> str:
    return f"{mixture.channels} channels, {mixture.components} components"


def levels(rows: int, values: int) -> Tensor:
    """Grey levels, a third of them 0 or 255."""
    v = torch.randint(-64, 320, (rows, values), generator=torch.Generator().manual_seed(1)).clamp(0, 255).float()
    v[0, :3] = torch.tensor([0.0, 255.0, 128.0])[: v[0, :3].numel()]
    return v


def outputs(mixture: LogisticMixture, rows: int, pixels: int, spread: float, raw: float) -> Tensor:
    """The decoder's outputs, (R, K, P)."""
    of_scale = slice(2 * mixture.components, 3 * mixture.components)
    out = spread * torch.randn(rows, mixture.outputs, pixels * mixture.channels, generator=torch.Generator().manual_seed(0))
    out[:, of_scale] = raw + out[:, of_scale] / max(1, spread)
    return out


def settings(mixture: LogisticMixture) -> object:
    return (c_double * 5)(*mixture.kernel.settings)


def score(native: Library, mixture: LogisticMixture, x: Tensor, out: Tensor, *, of_levels: bool) -> Tensor:
    """log P of images x, v / 255 or v `of_levels`, (R,)."""
    log_p, kind = torch.full((len(out),), torch.nan), mixture.kernel.kind
    at, sizes = (settings(mixture), x.data_ptr(), out.data_ptr(), None), (len(out), len(x), x.shape[1])
    if of_levels:
        native.levels(kind, *at, log_p.data_ptr(), *sizes)
    else:
        native.head(kind, *at, None, None, log_p.data_ptr(), 0.0, *sizes)
    return log_p


def mean(native: Library, mixture: LogisticMixture, out: Tensor) -> Tensor:
    """The mean images, (R, P), of which nothing may be written behind the last."""
    rows, _, values = out.shape
    image = torch.full((rows * values + 16,), torch.nan)
    native.mixture_mean(settings(mixture), out.data_ptr(), image.data_ptr(), rows, values)
    assert image[rows * values :].isnan().all()
    return image[: rows * values].view(rows, values)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("mixture", MIXTURES, ids=name)
def test_images_are_scored_as_by_float64(native: Library, mixture: LogisticMixture, spread: float) -> None:
    """Row r against image r % 3: within 2e-6 of itself, and what centres rounded to float32 make of a value's narrowest scale."""
    for pixels in PIXELS:
        v = levels(IMAGES, pixels * mixture.channels)
        for raw in RAW:
            out = outputs(mixture, ROWS, pixels, spread, raw)
            exact = mixture.log_pmf(v.double().repeat(ROWS // IMAGES, 1), *out.double().unbind(1))
            for x, of_levels in ((v, True), (v / 255, False)):
                found = score(native, mixture, x, out, of_levels=of_levels).double()
                torch.testing.assert_close(found, exact, rtol=2e-6, atol=1e-3 if pixels == 1 else 1e-5 * pixels)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("mixture", MIXTURES, ids=name)
def test_mean_images_are_those_of_float64(native: Library, mixture: LogisticMixture, spread: float) -> None:
    for pixels in PIXELS:
        for raw in RAW:
            out = outputs(mixture, ROWS, pixels, spread, raw)
            exact = mixture.mean(*out.double().unbind(1))
            torch.testing.assert_close(mean(native, mixture, out).double(), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mixture", MIXTURES, ids=name)
def test_centres_at_and_beyond_the_ends_are_clipped_as_by_float64(native: Library, mixture: LogisticMixture) -> None:
    """Means at every scale, of centres close to 0, 1/2 and 1 and far outside."""
    centres = torch.tensor([-1e4, -30.0, -1.0, -0.02, -1e-4, 0.0, 1e-4, 0.3, 0.5, 0.501, 0.98, 0.9999, 1.0, 1.0001, 1.02, 2.0, 1e4])
    for raw in torch.arange(-6.0, 10.0, 0.25):
        out = torch.zeros(1, mixture.outputs, mixture.channels, len(centres))
        out[:, mixture.components : 2 * mixture.components] = centres - 0.5
        out[:, 2 * mixture.components : 3 * mixture.components] = raw
        out[:, 3 * mixture.components :] = 0.7
        out = out.flatten(2)
        exact = mixture.mean(*out.double().unbind(1))
        torch.testing.assert_close(mean(native, mixture, out).double(), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mixture", MIXTURES, ids=name)
def test_an_output_that_is_no_number_is_not_hidden(native: Library, mixture: LogisticMixture) -> None:
    """Not in its row's log P, nor in its pixel's mean; and nowhere else."""
    pixels, at = 19, 17
    v = levels(1, pixels * mixture.channels)
    for k in range(mixture.outputs):
        for channel in range(mixture.channels):
            out = outputs(mixture, 3, pixels, 1.0, 0.0)
            out[1, k, channel * pixels + at] = torch.nan
            assert score(native, mixture, v, out, of_levels=True).isnan().tolist() == [False, True, False]
            wrong = mean(native, mixture, out).isnan()
            assert wrong.any()
            assert wrong.equal(mixture.mean(*out.unbind(1)).isnan())


@pytest.mark.parametrize("mixture", MIXTURES, ids=name)
def test_a_component_that_is_impossible_adds_nothing(native: Library, mixture: LogisticMixture) -> None:
    """A weight of 0 is as no component; without any other, log P is that of torch."""
    pixels, k = 19, mixture.components
    v = levels(1, pixels * mixture.channels)
    out = outputs(mixture, 1, pixels, 1.0, 0.0)
    out[:, 0] = -torch.inf
    exact = mixture.log_pmf(v.double(), *out.double().unbind(1))
    found = score(native, mixture, v, out, of_levels=True).double()
    torch.testing.assert_close(found, exact, equal_nan=True, rtol=2e-6, atol=1e-4)
    assert found.isnan().item() == (k == 1)
    torch.testing.assert_close(
        mean(native, mixture, out).double(), mixture.mean(*out.double().unbind(1)), equal_nan=True, rtol=0, atol=2e-6
    )
