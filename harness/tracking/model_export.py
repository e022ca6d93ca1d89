"""The winner of a study as two programs that need torch alone: its encoder and its decoder."""

from pathlib import Path

import torch
from torch import Tensor, nn

from harness.data import load_dataset
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


class Encoder(nn.Module):
    """The encoder of a trained VAE: grey levels 0..255 (N, P) to mean and log variance of q(z|x), (N, Z) each.

    A likelihood that binarises or dequantises its data gets 1/2 for the noise.
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.encoder, self.likelihood = vae.encoder, vae.likelihood

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z|x), (N, Z) each, for grey levels (N, P)."""
        mean, log_var = self.encoder(self.likelihood.observe(levels, 0.5)[None])
        return mean[0], log_var[0]


class MeanDecoder(nn.Module):
    """The decoder of a trained VAE: latents z (N, Z) to the mean of p(x|z), (N, P) on [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), (N, P) on [0, 1], for latents z (N, Z)."""
        return self.vae.likelihood.mean(*self.vae.decode(z[None]))[0]


def export(spec: TrialSpec, weights: Path, folder: Path) -> Tensor:
    """Write a trial's encoder.pt2 and decoder.pt2 into a folder, from its saved state_dict; they take any number of rows.

    Return two images of the test set as an example, floats on [0, 1], (2, P).
    """
    data = load_dataset(spec.dataset, lambda _: None, spec.dataset_args)
    levels, vae = data.test.levels[:2].float(), build(spec, data.image_shape)
    vae.load_state_dict(torch.load(weights, weights_only=True))
    _write(Encoder(vae), levels, folder / "encoder.pt2")
    del vae.encoder  # a program keeps all weights of its module, used or not
    _write(MeanDecoder(vae), torch.zeros(2, spec.latent), folder / "decoder.pt2")
    return levels / 255


def load_exporter() -> None:
    """Load what `torch.export` imports when it is first called, which takes a second."""
    torch.export.export(nn.Identity(), (torch.zeros(1),))


@torch.no_grad()
def _write(module: nn.Module, example: Tensor, file: Path) -> None:
    """Write a module of one input, such as `example`, as a program that takes any number of rows."""
    rows = {0: torch.export.Dim("rows", min=1)}
    torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=(rows,)), file)
