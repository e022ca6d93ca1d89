"""Signs that a trial went wrong. Shapes: N images, B a batch of them, P pixels, H units of a layer, Z latents."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from harness.metrics.bounds import View, batches, estimate_elbos, native
from harness.metrics.memory import at_once
from harness.models.networks import MLP
from harness.models.vae import VAE, kl_per_dimension
from harness.scores.rows import EFFECTIVE_BETA
from harness.spec import TrialSpec

KEPT = 4  # tensors of a decoder's outputs that a gradient keeps


def dead_units(vae: VAE, x: Tensor, latent: int, seed: int = 0) -> dict[str, Tensor]:
    """Return which hidden units are dead on all images, as booleans (H,) by layer: `encoder_1`, ..., `decoder_1`, ...

    It ends with the images that show every unit to be alive, for no further image can change that.

    A unit is dead if its output after the activation is the same for every image, or if the gradient of the ELBO (one draw of z) in
    front of the activation is exactly 0 for every image. A ReLU that is never positive meets both conditions, a saturated sigmoid
    the second. Layers are known of fully connected networks of the package only; of others there are none.

    Args:
        vae: The model, of one lane.
        x: The encoder's inputs, (N, P).
        latent: The number of latents, Z.
        seed: Of the draws of z.
    """
    layers = {
        f"{name}_{i + 1}": pair
        for name, body in {"encoder": vae.encoder, "decoder": vae.decoder}.items()
        for i, pair in enumerate(_hidden(body))
    }
    size = max(1, at_once(vae.decoder, x.new_zeros(1, 1, latent)) // KEPT)
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    hooks = [
        hook
        for name, (layer, following) in layers.items()
        for hook in (
            layer.register_forward_hook(lambda _, __, output, name=name: before.__setitem__(name, output)),
            following.register_forward_pre_hook(lambda _, inputs, name=name: after.__setitem__(name, inputs[0].detach())),
        )
    ]
    if not layers:
        return {}
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    largest_gradient: dict[str, Tensor] = {}

    def dead() -> dict[str, Tensor]:
        """Return which units were dead so far, (1, H) by layer."""
        return {name: (low[name] == high[name]) | (largest_gradient[name] == 0) for name in layers}

    try:
        for inputs, eps in _drawn_for(x, latent, size, seed):
            p = vae(inputs, eps)
            elbo = p.log_px.sum() - kl_per_dimension(p.mean, p.log_var).sum()
            gradients = torch.autograd.grad(elbo, list(before.values()))
            for name, gradient in zip(before, gradients, strict=True):
                least, most = after[name].aminmax(dim=1)
                magnitude = gradient.abs().amax(1)
                low[name] = torch.minimum(low.get(name, least), least)
                high[name] = torch.maximum(high.get(name, most), most)
                largest_gradient[name] = torch.maximum(largest_gradient.get(name, magnitude), magnitude)
            if not any(unit.any() for unit in dead().values()):
                break
    finally:
        for hook in hooks:
            hook.remove()
    return {name: units[0].cpu() for name, units in dead().items()}


def _drawn_for(x: Tensor, latent: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield x (1, B, P) with its noise (1, 1, B, Z), so many images at a time; noise is drawn for a batch of an evaluation."""
    generator = torch.Generator().manual_seed(seed)
    for batch in batches(len(x)):
        drawn = torch.randn(1, 1, batch.stop - batch.start, latent, generator=generator, dtype=x.dtype).to(x.device)
        yield from zip(torch.split(x[None, batch], size, 1), torch.split(drawn, size, 2), strict=True)


def _hidden(body: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return what is in front of each activation, and the affine map behind it; the hidden units of a layer are between the two."""
    return [pair for mlp in body.modules() if isinstance(mlp, MLP) for pair in zip(mlp.norms, mlp.layers[1:], strict=True)]


def noise(spec: TrialSpec, vae: VAE, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Return the scale of a model's pixel noise and its effective beta, over images x (N, P) with one draw z ~ q each.

    The scores by key, of which a model without a noise scale has the last only:

    - `test/noise_scale`: the mean sigma (or scale) on the [0, 1] axis.
    - `diagnostics/scale_at_floor`: the share of pixels whose learned scale is within 5 % of its lower bound.
    - `diagnostics/effective_beta`: the weight of the KL relative to a likelihood whose scale fits the residual. A Gaussian of any
      sigma weighs the KL as the Gaussian that fits would with beta / E[((x - m) / sigma)^2], a Laplace as beta / E[|x - m| / b];
      both are beta if the scale fits. For other likelihoods it is beta itself. It is left out if there is no residual.
    """
    views = noise_views(vae, native(vae, x))
    means = [score.recon for score in estimate_elbos(vae, list(views.values()), [1] * len(views), seed)] if views else []
    return noise_scores(spec, dict(zip(views, means, strict=True)))


@torch.no_grad()
def noise_views(vae: VAE, view: View) -> dict[str, View]:
    """Return what `noise` is computed from by name, means over pixels in place of a log-probability; nothing if there is no scale.

    `view` says which images, as the model sees them; of its target and probability nothing is used.
    """
    likelihood, floor = vae.likelihood, vae.likelihood.scale_floor
    latents = vae.encoder(view.x[None, :1])[0].shape[-1]
    nothing = view.x.new_zeros(1, 1, latents)

    def scale(*out: Tensor) -> Tensor:
        """Return the noise scale of each pixel, (..., P) or what broadcasts to it."""
        found = likelihood.noise_scale(*out)
        assert found is not None  # as it is for nothing
        return found

    def mean(values: Tensor, x: Tensor) -> Tensor:
        """Return the mean over pixels of values that broadcast to x (..., P), in float64: (...)."""
        return values.expand(*x.shape[:-1], values.shape[-1] if values.dim() else 1).mean(-1, dtype=torch.float64)

    of_pixels: dict[str, Callable[..., Tensor]] = {}
    out = vae.decode(nothing)
    if likelihood.noise_scale(*out) is not None:
        of_pixels["scale"] = lambda x, *out: mean(scale(*out), x)
        if floor is not None:
            of_pixels["floored"] = lambda x, *out: mean(scale(*out) <= 1.05 * floor, x)
        if likelihood.misfit(view.x[None, :1], *out) is not None:
            of_pixels["misfit"] = lambda x, *out: mean(cast(Tensor, likelihood.misfit(x, *out)), x)
    return {name: replace(view, target=view.x, log_prob=function) for name, function in of_pixels.items()}


def noise_scores(spec: TrialSpec, means: Mapping[str, float]) -> dict[str, float]:
    """Return the scores of `noise`, given the means of its views over all images."""
    names = {"scale": "test/noise_scale", "floored": "diagnostics/scale_at_floor"}
    scores = {key: means[name] for name, key in names.items() if name in means}
    misfit = means.get("misfit", 1.0)
    if misfit:  # else every pixel is met exactly, and no finite weight says so
        scores[EFFECTIVE_BETA.key] = spec.beta / misfit
    return scores


def nan_count(vae: VAE) -> int:
    """Return the number of weights that are not finite."""
    return sum(int((~p.isfinite()).sum()) for p in vae.parameters())
