"""A stranger's file with one of everything that can be brought, and a study of it."""

from pathlib import Path

from harness.spec import TrialSpec

SOURCE = '''
"""Does everything of my own work?"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from harness import Ablation, Budget, Hypothesis, Score, TrialSpec


@dataclass(frozen=True)
class StudentT:
    df: float = 3.0
    outputs: int = 2
    scale: str = "density on v/255"

    def log_prob(self, x, a, b):
        n, scale = self.df, 1 / 510 + b.clamp(max=7).exp() / 4
        norm = math.lgamma(n / 2) - math.lgamma((n + 1) / 2) + 0.5 * math.log(n * math.pi)
        return -(norm + scale.log() + (n + 1) / 2 * torch.log1p(((x - a.sigmoid()) / scale) ** 2 / n)).sum(-1)

    def mean(self, a, b):
        return a.sigmoid()

    def sample(self, generator, a, b):
        u, v = (torch.rand(a.shape, generator=generator, device=a.device, dtype=a.dtype) for _ in range(2))
        radius = (self.df * ((1 - u) ** (-2 / self.df) - 1)).sqrt()
        return a.sigmoid() + (1 / 510 + b.clamp(max=7).exp() / 4) * radius * torch.cos(2 * math.pi * v)


class Encoder(nn.Sequential):
    def forward(self, x):
        return super().forward(x).chunk(2, dim=1)


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def small(image_shape, latent, outputs, activation=torch.relu, width=16):
    pixels = math.prod(image_shape)
    encoder = Encoder(nn.Flatten(), nn.Linear(pixels, width), Function(activation), nn.Linear(width, 2 * latent))
    decoder = nn.Sequential(
        nn.Linear(latent, width), Function(activation), nn.Linear(width, outputs * pixels), nn.Unflatten(1, (outputs, *image_shape))
    )
    return encoder, decoder


def bent(x):
    return x / (1 + x.abs())


def warm(p, beta, free_bits):
    kl = -0.5 * (1 + p.log_var - p.mean.square() - p.log_var.exp()).sum(-1).mean(1)
    return p.log_px.mean((1, 2)) - 0.5 * beta * kl


def stripes():
    random = np.random.default_rng(0)
    steps = np.arange(8)[None, :, None] * random.uniform(0.5, 2, (400, 1, 1)) + random.uniform(0, 6, (400, 1, 1))
    return (127.5 * (1 + np.sin(steps + 0 * np.arange(8)))).astype(np.uint8)


def measure(trained):
    return {"test/contrast": trained.sample(100).std().item()}


CONTRAST = Score(key="test/contrast", label="contrast of samples", better="higher", compute=measure)
'''
STUDY = """
STUDY = Ablation(
    base=TrialSpec(dataset=stripes, network="mlp", hidden=(16,), batch_size=64),
    arms={
        "plain": {"likelihood": "mse"},
        "loss": {"likelihood": StudentT, "likelihood_args": {"df": 3}},
        "network": {"network": "mine.py:small", "hidden": None, "network_args": {"width": 8}},
        "activation": {"activation": bent},
        "objective": {"objective": warm},
    },
    budgets={"default": Budget(epochs=1, seeds=range(1))},
    hypotheses=(Hypothesis(better="loss", worse="plain", metric="test/contrast"),),
    metrics=(CONTRAST,),
)
"""


def write(folder: Path, source: str = SOURCE) -> Path:
    """Write mine.py into a folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.py"
    path.write_text(source + STUDY)
    return path


def spec_of(folder: Path) -> TrialSpec:
    """A trial of all that is in mine.py, whose file is gone once the trial is made, as on another machine."""
    path = write(folder)
    spec = TrialSpec(
        dataset=f"{path}:stripes",
        likelihood=f"{path}:StudentT",
        likelihood_args={"df": 3.0},
        network=f"{path}:small",
        activation=f"{path}:bent",
        objective=f"{path}:warm",
        metrics=(f"{path}:CONTRAST",),
        batch_size=64,
        epochs=2,
    )
    path.unlink()
    return spec
