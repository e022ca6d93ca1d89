"""Scores of one trained trial. Shapes: N images, B a batch of them, P pixels, Z latents; every VAE here has one lane.

Nats per image throughout: summed over pixels and latents, averaged over images last, in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from harness.data import Data, Split, frozen_noise
from harness.spec import TrialSpec
from harness.vae import VAE, kl_per_dimension

BATCH = 1_000
SAMPLES = 8  # draws of z per image in a final score
NEIGHBOURS = 15
ACTIVE_VARIANCE = 0.01
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


class ElboScore(NamedTuple):
    """Means over images, in nats, and the Monte Carlo standard error of `elbo` (from the draws of z alone)."""

    elbo: float
    recon: float
    kl: float
    standard_error: float


@dataclass(frozen=True)
class Codes:
    """What a model makes of a split: q's mean and log variance (N, Z), and the image decoded at q's mean (N, P)."""

    mean: Tensor
    log_var: Tensor
    image: Tensor


def _evaluation_noise(spec: TrialSpec, vae: VAE, split: Split) -> Tensor | None:
    fixed = vae.likelihood.noisy and spec.binarisation != "threshold"
    return frozen_noise(split) if fixed else None


def observed(spec: TrialSpec, vae: VAE, split: Split) -> Tensor:
    """A split as `vae` sees it in an evaluation, (N, P): binarised or dequantised once, with noise frozen by the split's name."""
    u = _evaluation_noise(spec, vae, split)
    return vae.likelihood.observe(split.levels.float(), 0.5 if u is None else u)


def _batches(n: int) -> Iterator[slice]:
    return (slice(i, min(i + BATCH, n)) for i in range(0, n, BATCH))


@torch.no_grad()
def elbo(vae: VAE, x: Tensor, samples: int, seed: int = 0) -> ElboScore:
    """The ELBO of x (N, P) with `samples` draws of z per image; the same draws for every model of equal Z."""
    generator = torch.Generator().manual_seed(seed)
    recon, kl, variance = (torch.zeros((), dtype=torch.float64) for _ in range(3))
    for batch in _batches(len(x)):
        mean, log_var = vae.encoder(x[None, batch])
        kl += kl_per_dimension(mean, log_var).sum(dtype=torch.float64).cpu()
        std = (log_var / 2).exp()
        draws = []
        for _ in range(samples):
            eps = torch.randn(mean.shape, generator=generator).to(x.device, x.dtype)
            draws.append(vae.likelihood.log_prob(x[None, batch], *vae.decode(mean + std * eps)))
        log_px = torch.stack(draws).double()
        recon += log_px.mean(0).sum().cpu()
        variance += log_px.var(0).sum().cpu() / samples if samples > 1 else torch.nan
    n = len(x)
    return ElboScore(((recon - kl) / n).item(), (recon / n).item(), (kl / n).item(), (variance.sqrt() / n).item())


@torch.no_grad()
def codes(vae: VAE, x: Tensor) -> Codes:
    """Encode x (N, P) and decode the mean of q."""
    parts = []
    for batch in _batches(len(x)):
        mean, log_var = vae.encoder(x[None, batch])
        parts.append((mean[0], log_var[0], vae.likelihood.mean(*vae.decode(mean))[0]))
    return Codes(*(torch.cat(p) for p in zip(*parts, strict=True)))


@torch.no_grad()
def encode(spec: TrialSpec, vae: VAE, split: Split) -> Tensor:
    """The mean of q for a split, observed batch by batch: (N, Z)."""
    u = _evaluation_noise(spec, vae, split)
    means = []
    for batch in _batches(len(split)):
        x = vae.likelihood.observe(split.levels[batch].float(), 0.5 if u is None else u[batch])
        means.append(vae.encoder(x[None])[0][0])
    return torch.cat(means)


def squared_error(image: Tensor, target: Tensor) -> Tensor:
    """Summed over pixels, per image: (N, P) to (N,)."""
    return (image - target).square().sum(-1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1, per image."""
    return -10 * (image - target).square().mean(-1).clamp_min(1e-10).log10()


def ssim(image: Tensor, target: Tensor, side: int) -> Tensor:
    """Structural similarity per image (Wang et al., 2004, https://doi.org/10.1109/TIP.2003.819861).

    Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, range 1, averaged over the positions where the window fits.
    (N, P) to (N,). Images smaller than the window take the largest odd window that fits.
    """
    size = min(SSIM_WINDOW, side - 1 + side % 2)
    offset = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
    weight = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    band = image.new_zeros(side, side - size + 1)  # column j holds the window that starts at pixel j
    for j in range(band.shape[1]):
        band[j : j + size, j] = weight / weight.sum()

    def blur(x: Tensor) -> Tensor:
        return band.T @ x @ band  # two small products, ten times faster than a convolution with one channel

    scores = []
    for batch in _batches(len(image)):
        a, b = (t[batch].view(-1, side, side) for t in (image, target))
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
        cov = blur(a * b) - mean_a * mean_b
        c1, c2 = 0.01**2, 0.03**2
        score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
        scores.append(score.mean((1, 2)))
    return torch.cat(scores)


def knn_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Share of test codes whose class is the majority among their 15 nearest training codes (Euclidean, on q's mean)."""
    from sklearn.neighbors import KNeighborsClassifier

    algorithm = "kd_tree" if train.shape[1] <= 5 else "brute"  # 50k codes: 0.1 s at z=2; at z=10 the tree takes 10 s, brute 2.6 s
    model = KNeighborsClassifier(NEIGHBOURS, algorithm=algorithm).fit(train.cpu().numpy(), train_labels.cpu().numpy())
    return float(model.score(test.cpu().numpy(), test_labels.cpu().numpy()))


def active_units(mean: Tensor) -> int:
    """Latents whose posterior mean varies over the data: Var_x E_q[z] > 0.01 (Burda et al., 2016). mean is (N, Z)."""
    return int((mean.var(0) > ACTIVE_VARIANCE).sum())


@torch.no_grad()
def noise_scale(vae: VAE, x: Tensor) -> Tensor | None:
    """The model's own pixel noise at the mean of q for the first images of x; None where it has none."""
    mean, _ = vae.encoder(x[None, :BATCH])
    return vae.likelihood.noise_scale(*vae.decode(mean))


@dataclass(frozen=True)
class Evaluation:
    """A trial's final scores by metric name, and what figures need: its codes of the test set, and KL per latent (Z,)."""

    scores: dict[str, float]
    test: Codes
    kl_per_dimension: Tensor


def evaluate(spec: TrialSpec, vae: VAE, data: Data) -> Evaluation:
    """Everything that a finished trial is judged by. `test/...` is scored here, once; selection sees `validation/...` only.

    Likelihood-free scores compare with the grey image v/255, whatever the model was shown.
    """
    scores: dict[str, float] = {}
    if spec.fit_on == "train":
        validation = codes(vae, observed(spec, vae, data.validation))
        grey = data.validation.levels.float() / 255
        scores["validation/squared_error"] = squared_error(validation.image, grey).double().mean().item()
    x = observed(spec, vae, data.test)
    native = elbo(vae, x, SAMPLES)
    test = codes(vae, x)
    grey = data.test.levels.float() / 255
    fit = data.fit_on(spec.fit_on)
    train_codes = encode(spec, vae, fit)
    scores |= {
        "test/elbo": native.elbo,
        "test/recon": native.recon,
        "test/kl": native.kl,
        "test/elbo_mc_error": native.standard_error,
        "test/squared_error": squared_error(test.image, grey).double().mean().item(),
        "test/psnr": psnr(test.image, grey).double().mean().item(),
        "test/ssim": ssim(test.image, grey, data.side).double().mean().item(),
        "test/knn15_accuracy": knn_accuracy(train_codes, fit.labels, test.mean, data.test.labels),
        "test/active_units": active_units(test.mean),
    }
    sigma = noise_scale(vae, x)
    if sigma is not None:
        scores["test/noise_scale"] = sigma.double().mean().item()
    kl = kl_per_dimension(test.mean.double(), test.log_var.double()).mean(0)
    return Evaluation(scores, test, kl)
