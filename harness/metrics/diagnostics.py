"""Signs that a trial went wrong. Shapes: N images, B a batch of them, P pixels, H units of a layer, Z latents."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from harness.metrics.bounds import batches
from harness.models.likelihoods import Gaussian, Laplace
from harness.models.networks import LaneLinear
from harness.models.vae import VAE, kl_per_dimension
from harness.spec import TrialSpec


def dead_units(vae: VAE, x: Tensor, latent: int, seed: int = 0) -> dict[str, Tensor]:
    """Which hidden units are dead on all of x (N, P): (H,) booleans by layer, `encoder_1`, ..., `decoder_1`, ...

    Dead: the output after the activation is the same for every image, or the gradient of the ELBO (one draw of z) in front of the
    activation is exactly 0 for every image. A ReLU that is never positive is both; a saturated sigmoid is the latter.
    """
    layers = {
        f"{name}_{i + 1}": pair
        for name, body in {"encoder": vae.encoder, "decoder": vae.decoder}.items()
        for i, pair in enumerate(_hidden(body))
    }
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}
    hooks = [
        hook
        for name, (own, following) in layers.items()
        for hook in (
            own.register_forward_hook(lambda _, __, output, name=name: before.__setitem__(name, output)),
            following.register_forward_pre_hook(lambda _, inputs, name=name: after.__setitem__(name, inputs[0].detach())),
        )
    ]
    generator = torch.Generator().manual_seed(seed)
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    pull: dict[str, Tensor] = {}
    try:
        for batch in batches(len(x)):
            shown = x[None, batch]
            eps = torch.randn(1, 1, shown.shape[1], latent, generator=generator, dtype=x.dtype).to(x.device)
            p = vae(shown, eps)
            elbo = p.log_px.sum() - kl_per_dimension(p.mean, p.log_var).sum()
            gradients = torch.autograd.grad(elbo, list(before.values()))
            for name, gradient in zip(before, gradients, strict=True):
                least, most = after[name].aminmax(dim=1)
                slope = gradient.abs().amax(1)
                low[name] = torch.minimum(low.get(name, least), least)
                high[name] = torch.maximum(high.get(name, most), most)
                pull[name] = torch.maximum(pull.get(name, slope), slope)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: ((low[name] == high[name]) | (pull[name] == 0))[0].cpu() for name in layers}


def _hidden(body: nn.Module) -> list[tuple[LaneLinear, LaneLinear]]:
    """Each affine map with the next one: its hidden units lie between them."""
    maps = [m for m in body.modules() if isinstance(m, LaneLinear)]
    return list(pairwise(maps))


@torch.no_grad()
def noise(spec: TrialSpec, vae: VAE, x: Tensor, seed: int = 0) -> dict[str, float]:
    """A model's own pixel noise and the beta that it really trains with, over images x (N, P) with one draw z ~ q each.

    `noise_scale` is its mean sigma (or scale), `scale_at_floor` the share of pixels whose learned scale is within 5 % of its bound.
    `effective_beta`: a Gaussian of a given sigma weighs the KL as the Gaussian that fits the residual would with
    beta / E[((x - m) / sigma)^2], a Laplace as beta / E[|x - m| / b]; 1 where the scale fits. Others: beta itself.
    """
    generator = torch.Generator().manual_seed(seed)
    scales, floored, misfits = [], [], []
    for batch in batches(len(x)):
        mean, log_var = vae.encoder(x[None, batch])
        eps = torch.randn(mean.shape, generator=generator, dtype=x.dtype).to(x.device)
        out = vae.decode(mean + (log_var / 2).exp() * eps)
        scale = vae.likelihood.noise_scale(*out)
        if scale is None:
            return {"diagnostics/effective_beta": spec.beta}
        scales.append(scale.double().mean())
        if vae.likelihood.scale_floor is not None:
            floored.append((scale <= 1.05 * vae.likelihood.scale_floor).double().mean())
        off = ((x[None, batch] - vae.likelihood.mean(*out)) / scale).double()
        misfits.append(off.abs().mean() if isinstance(vae.likelihood, Laplace) else off.square().mean())
    found = {"test/noise_scale": torch.stack(scales).mean().item()}
    if floored:
        found["diagnostics/scale_at_floor"] = torch.stack(floored).mean().item()
    fits = isinstance(vae.likelihood, Gaussian | Laplace)
    found["diagnostics/effective_beta"] = spec.beta / torch.stack(misfits).mean().item() if fits else spec.beta
    return found


def nan_count(vae: VAE) -> int:
    """Weights that are not finite."""
    return sum(int((~p.isfinite()).sum()) for p in vae.parameters())
