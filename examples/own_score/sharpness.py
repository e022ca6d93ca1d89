"""A score of our own: how sharp the samples are, as a share of how sharp the data are."""

from torch import Tensor

from harness import Score, Trained


def edges(images: Tensor) -> float:
    """Return the mean absolute difference of neighbouring pixels of images (N, H, W) or (N, C, H, W) on [0, 1]."""
    return ((images.diff(dim=-2).abs().mean() + images.diff(dim=-1).abs().mean()) / 2).item()


def measure(trained: Trained) -> dict[str, float]:
    samples, real = trained.sample(500), trained.images(trained.data.test)
    return {"test/sharpness": edges(samples) / edges(real)}


SHARPNESS = Score(key="test/sharpness", label="sharpness of samples", better="higher", digits=3, compute=measure)
