"""The winner of a study as a module of its own, from latents to mean images."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from harness.data import load_dataset
from harness.models.vae import VAE, build
from harness.spec import TrialSpec


class MeanDecoder(nn.Module):
    """The decoder of a trained VAE: latents z (N, Z) to the mean of p(x|z), (N, P) on [0, 1]."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor) -> Tensor:
        """Return the mean of p(x|z), (N, P) on [0, 1], for latents z (N, Z)."""
        return self.vae.likelihood.mean(*self.vae.decode(z[None]))[0]


def decoder_of(spec: TrialSpec, weights: Path) -> tuple[MeanDecoder, np.ndarray]:
    """Return a trial's decoder, loaded from its saved state_dict, and example latents (2, Z)."""
    vae = build(spec, load_dataset(spec.dataset).train.levels.shape[1])
    vae.load_state_dict(torch.load(weights, weights_only=True))
    return MeanDecoder(vae).eval(), np.zeros((2, spec.latent), dtype=np.float32)
