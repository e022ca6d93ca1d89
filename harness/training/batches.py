"""Inputs of an epoch's training steps (order of the images, noise, KL weights, learning rates), and the epoch's numbers.

Order, noise and the weight of the KL are functions of a trial's spec and the epoch alone, so an epoch can be trained again, or by
another process, with bitwise equal inputs.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk, N images to train on.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.kernels.uniform import uniform
from harness.models.vae import likelihood_of
from harness.spec import CHUNK, TrialSpec
from harness.training.extras import Extras
from harness.training.optimizers import Optimizer
from harness.training.schedules import learning_rates
from harness.training.step import Chunk

STREAMS = ("weights", "order", "latent", "pixels")  # the kinds of randomness of a trial

Row = dict[str, float]  # numbers of one trial in one epoch, by metric key


def generator(seed: int, stream: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the random generator of one kind of randomness (`stream`) of one trial in one epoch.

    It depends on these arguments alone, never on the trials that train beside this one.
    """
    return torch.Generator(device).manual_seed(seed_of(seed, stream, epoch))


def seed_of(seed: int, stream: str, epoch: int) -> int:
    """Return the seed of the generator of one kind of randomness of one trial in one epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()[:7])


def noisy(spec: TrialSpec) -> bool:
    """Return whether a trial draws new pixel noise at every use of an image: dequantisation, dynamic binarisation."""
    return likelihood_of(spec).noise == "fresh"


def beta(lanes: Sequence[TrialSpec], steps: range, per_epoch: int, epoch: int) -> Tensor:
    """Return the weight of the KL at each of these steps of an epoch, (T, S).

    It rises linearly to the trial's beta over its first `kl_warmup` epochs, and does so anew every `kl_cycle` epochs.
    `per_epoch` counts the steps of an epoch.
    """
    before = epoch * per_epoch + np.arange(steps.start, steps.stop)[:, None]
    ramp, cycle = (np.array([getattr(s, f) for s in lanes]) * per_epoch for f in ("kl_warmup", "kl_cycle"))
    done = np.where(cycle > 0, before % np.maximum(cycle, 1), before) + 1
    weight = np.array([s.beta for s in lanes]) * np.minimum(1, done / np.maximum(ramp, 1))
    return torch.tensor(weight, dtype=torch.float32)


class BatchStream:
    """The inputs of one epoch of these lanes, made on the device of `levels`, to be read chunk by chunk, in order.

    On a GPU all of it is drawn there, by generators of each lane's own seed, so that no step waits for the host.

    Attributes:
        lanes: the trials, one per lane.
        levels: the grey levels of the images, (N, P).
        per_epoch: the number of steps of an epoch.
        device: the device of `levels` and of every chunk.
        noisy: True for the lanes that draw new pixel noise at every use of an image.
        order: the indices of the images in each lane's order, padded with zeros to whole batches, (S, batches * B).
        weight: the weight of the KL at every step of the epoch, (steps, S).
        rates: the learning rates, (steps, S).
        factors: the optimizer's factors, then those of `Extras`, (steps, F, S).
        latent: the generator of each lane's draws of z.
        pixels: the generator of each lane's pixel noise.
    """

    def __init__(self, lanes: Sequence[TrialSpec], levels: Tensor, per_epoch: int, epoch: int, optimizer: Optimizer) -> None:
        self.lanes, self.levels, self.per_epoch = lanes, levels, per_epoch
        self.device = levels.device
        self.noisy = [noisy(s) for s in lanes]
        self.order = torch.stack([self._order(s, epoch) for s in lanes])
        steps = range(per_epoch)
        numbers = torch.arange(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)
        rates = learning_rates(lanes, steps, per_epoch, epoch)
        self.weight = beta(lanes, steps, per_epoch, epoch).to(self.device)
        extras = Extras.of(lanes).factors(lanes, numbers)
        self.rates, self.factors = rates.to(self.device), torch.cat((optimizer.factors(numbers, rates), extras), 1).to(self.device)
        self.latent = [generator(s.seed, "latent", epoch, self.device) for s in lanes]
        self.pixels = [generator(s.seed, "pixels", epoch, self.device) for s in lanes]

    def _order(self, spec: TrialSpec, epoch: int) -> Tensor:
        """Return the order of the images in this epoch, padded with zeros to whole batches."""
        images, size = len(self.levels), spec.batch_size
        shuffled = torch.randperm(images, generator=generator(spec.seed, "order", epoch, self.device), device=self.device)
        return torch.nn.functional.pad(shuffled, (0, math.ceil(images / size) * size - images))

    def chunks(self, steps: int, *, whole: bool) -> Iterator[Chunk]:
        """Yield all that the first `steps` steps of the epoch read, in chunks of CHUNK rows, a row per step.

        The last chunk may have fewer rows. If `whole`, it has CHUNK rows too, as a program of fixed shapes needs; the last ones are
        then zero and unused.
        """
        for start in range(0, steps, CHUNK):
            rows = self._rows(range(start, min(start + CHUNK, steps)))
            yield Chunk(*(_padded(r) for r in rows)) if whole else rows

    def _rows(self, steps: range) -> Chunk:
        """Return the inputs of these steps, which must follow those of the call before: it draws on from the lanes' generators."""
        shape, pixels = self.lanes[0], self.levels.shape[1]
        size, samples, latent = shape.batch_size, shape.num_samples, shape.latent
        used, lanes = len(steps), len(self.lanes)
        own = slice(steps.start, steps.stop)
        batch = self.order[:, steps.start * size : steps.stop * size].view(lanes, used, size).transpose(0, 1)
        eps = torch.empty(used, lanes, samples, size, latent, device=self.device)
        for lane, g in enumerate(self.latent):
            eps[:, lane] = torch.randn(used, samples, size, latent, generator=g, device=self.device)
        if self.noisy == [True]:  # as below, without filling and copying it: 0.4 ms a step less
            u = uniform(self.pixels[0], used, size, pixels)[:, None]
        else:
            u = torch.full((used, lanes, size, pixels) if any(self.noisy) else (used, lanes, 1, 1), 0.5, device=self.device)
            for lane, g in enumerate(self.pixels):
                if self.noisy[lane]:
                    u[:, lane] = uniform(g, used, size, pixels)
        return Chunk(
            batch=batch,
            eps=eps,
            u=u,
            beta=self.weight[own],
            learning_rate=self.rates[own],
            factors=self.factors[own],
            history=torch.zeros(used, 3, lanes, device=self.device),
        )


def _padded(rows: Tensor) -> Tensor:
    """Return the rows of a chunk, (T, ...), padded with zeros to CHUNK rows."""
    if len(rows) == CHUNK:
        return rows.contiguous()
    padded = rows.new_zeros(CHUNK, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded


def rows(terms: Tensor, seconds: Sequence[float], images: int, size: int) -> list[Row]:
    """Return the numbers of an epoch, a row per lane: means of the training terms, and quantiles of the step time in ms.

    Args:
        terms: log p(x|z), KL and objective of every step, (T, 3, S), in nats per image.
        seconds: the time of every step.
        images: the number of images that the steps trained on.
        size: the batch size; the last batch has what is left of `images`. Means weigh every step by its images.
    """
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


def not_finite(terms: Tensor) -> dict[int, tuple[int, str]]:
    """Return the first row with a value that is not finite, and its values in words, by lane; lanes without any are left out.

    `terms` are log p(x|z), KL and objective of some steps, (T, 3, S).
    """
    bad = ~terms.isfinite().all(1)
    found = {}
    for lane in bad.any(0).nonzero().flatten().tolist():
        row = int(bad[:, lane].nonzero()[0])
        values = zip(("log p(x|z)", "KL", "objective"), terms[row, :, lane].tolist(), strict=True)
        found[lane] = (row, ", ".join(f"{name} = {value:g}" for name, value in values))
    return found


def likely_cause(spec: TrialSpec) -> str:
    """Return in words why the numbers of a trial are most likely not finite."""
    clip = "" if spec.clip_norm else "; lower it, warm it up (learning_rate_warmup) or clip the gradients (clip_norm)"
    return f"likely cause: learning_rate={spec.learning_rate:g} is too high{clip}"
