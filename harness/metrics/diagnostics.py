"""Signs that a trial went wrong. Shapes: N images, B a batch of them, P pixels, H units of a layer, Z latents."""

import torch
from torch import Tensor, nn

from harness.metrics.bounds import batches
from harness.metrics.memory import at_once, encoded, parts
from harness.models.networks import MLP
from harness.models.vae import VAE, kl_per_dimension
from harness.scores.rows import EFFECTIVE_BETA
from harness.spec import TrialSpec

KEPT = 4  # tensors of a decoder's outputs that a gradient keeps


def dead_units(vae: VAE, x: Tensor, latent: int, seed: int = 0) -> dict[str, Tensor]:
    """Return which hidden units are dead on all images, as booleans (H,) by layer: `encoder_1`, ..., `decoder_1`, ...

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
    generator = torch.Generator().manual_seed(seed)
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}
    largest_gradient: dict[str, Tensor] = {}
    try:
        for batch in batches(len(x)):
            drawn = torch.randn(1, 1, batch.stop - batch.start, latent, generator=generator, dtype=x.dtype).to(x.device)
            for inputs, eps in zip(torch.split(x[None, batch], size, 1), torch.split(drawn, size, 2), strict=True):
                p = vae(inputs, eps)
                elbo = p.log_px.sum() - kl_per_dimension(p.mean, p.log_var).sum()
                gradients = torch.autograd.grad(elbo, list(before.values()))
                for name, gradient in zip(before, gradients, strict=True):
                    least, most = after[name].aminmax(dim=1)
                    magnitude = gradient.abs().amax(1)
                    low[name] = torch.minimum(low.get(name, least), least)
                    high[name] = torch.maximum(high.get(name, most), most)
                    largest_gradient[name] = torch.maximum(largest_gradient.get(name, magnitude), magnitude)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: ((low[name] == high[name]) | (largest_gradient[name] == 0))[0].cpu() for name in layers}


def _hidden(body: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return what is in front of each activation, and the affine map behind it; the hidden units of a layer are between the two."""
    return [pair for mlp in body.modules() if isinstance(mlp, MLP) for pair in zip(mlp.norms, mlp.layers[1:], strict=True)]


@torch.no_grad()
def noise(spec: TrialSpec, vae: VAE, x: Tensor, seed: int = 0) -> dict[str, float]:
    """Return the scale of a model's pixel noise and its effective beta, over images x (N, P) with one draw z ~ q each.

    The scores by key, of which a model without a noise scale has the last only:

    - `test/noise_scale`: the mean sigma (or scale) on the [0, 1] axis.
    - `diagnostics/scale_at_floor`: the share of pixels whose learned scale is within 5 % of its lower bound.
    - `diagnostics/effective_beta`: the weight of the KL relative to a likelihood whose scale fits the residual. A Gaussian of any
      sigma weighs the KL as the Gaussian that fits would with beta / E[((x - m) / sigma)^2], a Laplace as beta / E[|x - m| / b];
      both are beta if the scale fits. For other likelihoods it is beta itself. It is left out if there is no residual.
    """
    generator = torch.Generator().manual_seed(seed)
    images, scales, floored, misfits = [], [], [], []
    for batch in batches(len(x)):
        mean, log_var = encoded(vae, x[None, batch])
        eps = torch.randn(mean.shape, generator=generator, dtype=x.dtype).to(x.device)
        z = mean + (log_var / 2).exp() * eps
        for part in parts(vae.decoder, z):
            out = vae.decode(z[:, part])
            scale = vae.likelihood.noise_scale(*out)
            if scale is None:
                return {EFFECTIVE_BETA.key: spec.beta}
            images.append(part.stop - part.start)
            scales.append(scale.double().mean())
            if vae.likelihood.scale_floor is not None:
                floored.append((scale <= 1.05 * vae.likelihood.scale_floor).double().mean())
            errors = vae.likelihood.misfit(x[None, batch][:, part], *out)
            if errors is not None:
                misfits.append(errors.double().mean())
    share = torch.tensor(images, dtype=torch.float64, device=x.device) / sum(images)
    scores = {"test/noise_scale": (share @ torch.stack(scales)).item()}
    if floored:
        scores["diagnostics/scale_at_floor"] = (share @ torch.stack(floored)).item()
    misfit = (share @ torch.stack(misfits)).item() if misfits else 1.0
    if misfit:  # else every pixel is met exactly, and no finite weight says so
        scores[EFFECTIVE_BETA.key] = spec.beta / misfit
    return scores


def nan_count(vae: VAE) -> int:
    """Return the number of weights that are not finite."""
    return sum(int((~p.isfinite()).sum()) for p in vae.parameters())
