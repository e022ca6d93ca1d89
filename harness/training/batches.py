"""What the steps of an epoch read, and what they leave to show.

Order, noise and the weight of the KL are functions of a trial's spec and the epoch alone, so an epoch can be trained again, or by
another process, bit by bit.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk, N images to train on.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness.models.vae import likelihood_of
from harness.spec import TrialSpec
from harness.training.optimizers import Optimizer
from harness.training.schedules import learning_rates
from harness.training.step import Chunk

CHUNK = 32  # steps between two looks at the results; it also fixes how noise is drawn, so changing it changes every run

Row = dict[str, float]


def generator(seed: int, stream: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The source of one kind of randomness of one trial in one epoch: a function of these alone, never of its company."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))


def noisy(spec: TrialSpec) -> bool:
    """Whether a trial draws new pixel noise at every use of an image: dequantisation, dynamic binarisation."""
    return likelihood_of(spec).noisy and spec.binarisation not in ("static", "threshold")


def beta(lanes: Sequence[TrialSpec], steps: range, per_epoch: int, epoch: int) -> Tensor:
    """The weight of the KL at each step, (T, S): it rises linearly to beta over `kl_warmup` epochs, anew every `kl_cycle`."""
    before = epoch * per_epoch + np.arange(steps.start, steps.stop)[:, None]
    ramp, cycle = (np.array([getattr(s, f) for s in lanes]) * per_epoch for f in ("kl_warmup", "kl_cycle"))
    done = np.where(cycle > 0, before % np.maximum(cycle, 1), before) + 1
    weight = np.array([s.beta for s in lanes]) * np.minimum(1, done / np.maximum(ramp, 1))
    return torch.tensor(weight, dtype=torch.float32)


class BatchStream:
    """One epoch of these lanes, to be read chunk by chunk, in order.

    `levels` (N, P) are the images; `per_epoch` counts an epoch's steps.
    """

    def __init__(self, lanes: Sequence[TrialSpec], levels: Tensor, per_epoch: int, epoch: int) -> None:
        self.lanes, self.levels, self.per_epoch, self.epoch = lanes, levels, per_epoch, epoch
        self.device = levels.device
        self.noisy = [noisy(s) for s in lanes]
        self.order = torch.stack([self._order(s) for s in lanes])
        self.latent = [generator(s.seed, "latent", epoch, self.device) for s in lanes]
        self.pixels = [generator(s.seed, "pixels", epoch, self.device) for s in lanes]

    def _order(self, spec: TrialSpec) -> Tensor:
        """This epoch's order, padded to whole batches."""
        images, size = len(self.levels), spec.batch_size
        shuffled = torch.randperm(images, generator=generator(spec.seed, "order", self.epoch))
        return torch.nn.functional.pad(shuffled, (0, math.ceil(images / size) * size - images)).to(self.device)

    def chunk(self, steps: range, optimizer: Optimizer, *, whole: bool) -> Chunk:
        """All that the next `steps` read; where `whole`, for a program of fixed shapes, CHUNK rows, some idle in a short chunk."""
        shape, pixels = self.lanes[0], self.levels.shape[1]
        size, samples, latent = shape.batch_size, shape.num_samples, shape.latent
        used, lanes = len(steps), len(self.lanes)
        batch = self.order[:, steps.start * size : steps.stop * size].view(lanes, used, size).transpose(0, 1)
        eps = torch.empty(used, lanes, samples, size, latent, device=self.device)
        for lane, g in enumerate(self.latent):
            eps[:, lane] = torch.randn(used, samples, size, latent, generator=g, device=self.device)
        u = torch.full((used, lanes, size, pixels) if any(self.noisy) else (used, lanes, 1, 1), 0.5, device=self.device)
        for lane, g in enumerate(self.pixels):
            if self.noisy[lane]:
                u[:, lane] = torch.rand(used, size, pixels, generator=g, device=self.device)
        before = self.epoch * self.per_epoch + steps.start + 1
        numbers = torch.arange(before, before + used, device=self.device)
        rates = learning_rates(self.lanes, steps, self.per_epoch, self.epoch).to(self.device)
        factors = optimizer.factors(numbers, rates)
        weight = beta(self.lanes, steps, self.per_epoch, self.epoch).to(self.device)
        history = torch.zeros(used, 3, lanes, device=self.device)
        rows = Chunk(batch=batch, eps=eps, u=u, beta=weight, learning_rate=rates, factors=factors, history=history)
        return Chunk(*(_filled(r) for r in rows)) if whole else rows


def _filled(rows: Tensor) -> Tensor:
    """Rows of a chunk, filled up to CHUNK of them."""
    if len(rows) == CHUNK:
        return rows.contiguous()
    filled = rows.new_zeros(CHUNK, *rows.shape[1:])
    filled[: len(rows)] = rows
    return filled


def rows(terms: Tensor, seconds: Sequence[float], images: int, size: int) -> list[Row]:
    """What an epoch's steps show, a row per lane. terms (T, 3, S); means weigh every step by its images, `size` but the last."""
    weight = np.full(len(terms), size)
    weight[-1] = images - weight[:-1].sum()
    means = np.einsum("tks,t->sk", terms.double().numpy(), weight / weight.sum())
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    return [
        {
            "elbo/train": recon - kl,
            "recon/train": recon,
            "kl/train": kl,
            "objective/train": objective,
            "perf/step_ms_p50": float(p50),
            "perf/step_ms_p95": float(p95),
        }
        for recon, kl, objective in means.tolist()
    ]
