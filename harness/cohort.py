"""Trains trials of one shape together, one lane each.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from harness import engine, metrics
from harness.data import Data, frozen_noise
from harness.likelihoods import LEVELS
from harness.objectives import OBJECTIVES
from harness.optim import OPTIMIZERS
from harness.spec import TrialSpec
from harness.vae import VAE, build, kl_per_dimension

CHUNK = 32  # steps between two looks at the results; it also fixes how noise is drawn, so changing it changes every run

Row = dict[str, float]


def generator(seed: int, stream: str, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The source of one kind of randomness of one trial in one epoch: a function of these alone, never of its company."""
    digest = hashlib.sha256(f"{seed}/{stream}/{epoch}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7]))


class Cohort:
    """S trials whose specs differ in lane fields only.

    Noise is data: order, initial weights and all draws come from a lane's own seed, so a trial trains alike alone and in company:
    bitwise in cohorts of equal size on a CPU, else to rounding (weights to 1e-3 relative over two epochs in the tests), since one
    lane takes another Adam kernel than several.

    Attributes:
        specs: the trials still in training, one per lane.
        failures: reason by spec id, for trials that met a value that is not finite.
    """

    def __init__(self, specs: Sequence[TrialSpec], data: Data, device: torch.device) -> None:
        if len({s.cohort for s in specs}) != 1 or len({s.id for s in specs}) != len(specs):
            raise ValueError("a cohort is made of different trials whose structure fields are equal")
        self.specs = list(specs)
        self.shape = specs[0].cohort
        self.device = device
        self.data = data.to(device)
        self.epoch = 0
        self.failures: dict[str, str] = {}
        fit = self.data.fit_on(self.shape.fit_on)
        self.levels = fit.levels
        if self.shape.binarisation == "static":
            self.levels = (frozen_noise(fit) < fit.levels / LEVELS).to(torch.uint8) * LEVELS
        self.steps_per_epoch = math.ceil(len(self.levels) / self.shape.batch_size)
        self.optimizer = OPTIMIZERS[self.shape.optimizer]
        self.objective = OBJECTIVES[self.shape.objective]
        self.gradient_norm: Tensor = torch.zeros(len(specs))  # of the newest step, (S,)
        vae = build(self.shape, self.levels.shape[1], len(specs))
        for lane, spec in enumerate(specs):
            vae.reset(lane, generator(spec.seed, "weights", 0))
        self._adopt(vae)
        self.state = self.optimizer.init(self.params)
        self.eval_x = metrics.observed(self.shape, vae, self.data.validation) if self.shape.fit_on == "train" else None

    def _adopt(self, vae: VAE) -> None:
        self.vae = vae.to(self.device)
        self.params = list(self.vae.parameters())
        self.first_rate, self.decay = self._lanes("learning_rate"), self._lanes("learning_rate_decay")
        self.weight_decay = self._lanes("weight_decay")
        self.free_bits = self._lanes("free_bits")

    def _lanes(self, field: str) -> Tensor:
        return torch.tensor([getattr(s, field) for s in self.specs], dtype=torch.float32, device=self.device)

    @property
    def fresh_noise(self) -> bool:
        """Whether each use of an image draws new pixel noise: dequantisation, dynamic binarisation."""
        return self.vae.likelihood.noisy and self.shape.binarisation not in ("static", "threshold")

    @property
    def learning_rate(self) -> Tensor:
        """This epoch's, (S,)."""
        return self.first_rate * self.decay ** (self.epoch / max(1, self.shape.epochs - 1))

    @property
    def bytes_per_lane(self) -> int:
        """An upper estimate of a lane's memory on the device: parameters, moments, gradients and a chunk of inputs."""
        state = 6 * sum(p[0].numel() for p in self.params) * 4
        batch = self.shape.batch_size * self.levels.shape[1] * 4 * self.shape.num_samples * self.vae.likelihood.params
        return state + batch * (12 + CHUNK * self.fresh_noise) + 8 * len(self.levels)

    def run_epoch(self) -> dict[str, Row]:
        """Train every lane for one epoch and score it on validation. Returns a row per trial still finite, by spec id."""
        order = torch.stack([self._order(s) for s in self.specs])
        streams = [generator(s.seed, "latent", self.epoch, self.device) for s in self.specs]
        pixel_streams = [generator(s.seed, "pixels", self.epoch, self.device) for s in self.specs]
        timer = engine.StepTimer(self.device)
        terms = []
        for start in range(0, self.steps_per_epoch, CHUNK):
            steps = range(start, min(start + CHUNK, self.steps_per_epoch))
            terms.append(self._run_chunk(steps, order, streams, pixel_streams, timer))
            if self._check(terms[-1], steps.start):
                keep = [i for i, s in enumerate(self.specs) if s.id not in self.failures]
                if not keep:
                    self.specs = []
                    return {}
                order = order[keep]
                streams, pixel_streams = ([g[i] for i in keep] for g in (streams, pixel_streams))
                terms = [t[:, :, keep] for t in terms]
                self.keep(keep)
        self.epoch += 1
        return self._rows(torch.cat(terms), timer.seconds())

    def _order(self, spec: TrialSpec) -> Tensor:
        shuffled = torch.randperm(len(self.levels), generator=generator(spec.seed, "order", self.epoch))
        return shuffled.to(self.device)

    def _run_chunk(
        self,
        steps: range,
        order: Tensor,
        streams: list[torch.Generator],
        pixel_streams: list[torch.Generator],
        timer: engine.StepTimer,
    ) -> Tensor:
        """Train for `steps` of this epoch.

        Returns (T, 3, S) on the host: log p(x|z), KL and objective of every step, mean over its batch.
        """
        size, latents = self.shape.batch_size, self.shape.latent
        draw = (len(steps), self.shape.num_samples, size)
        eps = torch.stack([torch.randn(*draw, latents, generator=g, device=self.device) for g in streams], 1)
        u = None
        if self.fresh_noise:
            pixels = self.levels.shape[1]
            u = torch.stack([torch.rand(len(steps), size, pixels, generator=g, device=self.device) for g in pixel_streams], 1)
        beta = self._beta(steps)
        history = torch.empty(len(steps), 3, len(self.specs), device=self.device)
        for t, step in enumerate(steps):
            index = order[:, step * size : (step + 1) * size]
            images = index.shape[1]
            grads = self._step(index, eps[t, :, :, :images], 0.5 if u is None else u[t, :, :images], beta[t], history[t])
            timer.mark()
        self.gradient_norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        return history.cpu()

    def _beta(self, steps: range) -> Tensor:
        """The weight of the KL at each step, (T, S): it rises linearly to beta over `kl_warmup` epochs, anew every `kl_cycle`."""
        before = self.epoch * self.steps_per_epoch + np.arange(steps.start, steps.stop)[:, None]
        ramp, cycle = (np.array([getattr(s, f) for s in self.specs]) * self.steps_per_epoch for f in ("kl_warmup", "kl_cycle"))
        done = np.where(cycle > 0, before % np.maximum(cycle, 1), before) + 1
        weight = np.array([s.beta for s in self.specs]) * np.minimum(1, done / np.maximum(ramp, 1))
        return torch.tensor(weight, dtype=torch.float32, device=self.device)

    def _step(self, index: Tensor, eps: Tensor, u: Tensor | float, beta: Tensor, history: Tensor) -> tuple[Tensor, ...]:
        """One step of every lane: index (S, B) into the images, eps (S, L, B, Z), u (S, B, P) or a constant, beta (S,).

        Writes log p(x|z), KL and objective into history (3, S); returns the gradients.
        """
        v = self.levels.index_select(0, index.flatten()).view(*index.shape, -1).float()
        x = self.vae.likelihood.observe(v, u)
        p = self.vae(x, eps)
        bound = self.objective(p, beta, self.free_bits)
        grads = torch.autograd.grad(-bound.sum(), self.params)  # lanes share no parameter, so it is each lane's own gradient
        self.optimizer.update(self.params, grads, self.state, self.learning_rate, self.weight_decay)
        history[0], history[2] = p.log_px.detach().mean((1, 2)), bound.detach()
        history[1] = kl_per_dimension(p.mean.detach(), p.log_var.detach()).sum(-1).mean(-1)
        return grads

    def _check(self, terms: Tensor, start: int) -> bool:
        """Note every lane whose loss stopped being finite, with the step and the term; True if there is one."""
        bad = ~terms.isfinite()
        for lane, spec in enumerate(self.specs):
            if bad[:, :, lane].any():
                t = int(bad[:, :, lane].any(1).nonzero()[0])
                step = self.epoch * self.steps_per_epoch + start + t + 1
                values = [
                    f"{n} = {v:g}" for n, v in zip(("log p(x|z)", "KL", "objective"), terms[t, :, lane].tolist(), strict=True)
                ]
                self.failures[spec.id] = (
                    f"loss not finite at step {step} (epoch {self.epoch + 1}): {', '.join(values)}; "
                    f"learning_rate={spec.learning_rate:g}"
                )
        return bool(bad.any())

    @torch.no_grad()
    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes only, in this order."""
        self.specs = [self.specs[i] for i in lanes]
        self.gradient_norm = self.gradient_norm[list(lanes)]
        moments = [[m[list(lanes)] for m in ms] for ms in (self.state.mean, self.state.square)]
        self._adopt(self._extract(lanes))
        self.state.mean, self.state.square = moments

    def lane(self, index: int) -> VAE:
        """One trial's model, alone."""
        return self._extract([index])

    @torch.no_grad()
    def _extract(self, lanes: Sequence[int]) -> VAE:
        vae = build(self.shape, self.levels.shape[1], len(lanes)).to(self.device)
        for new, old in zip(vae.parameters(), self.vae.parameters(), strict=True):
            new.copy_(old[list(lanes)])
        return vae

    def _rows(self, terms: Tensor, seconds: list[float]) -> dict[str, Row]:
        """What an epoch shows, by spec id. terms (T, 3, S); the train means weigh every step by its images."""
        images = np.full(self.steps_per_epoch, self.shape.batch_size)
        images[-1] = len(self.levels) - images[:-1].sum()
        recon, kl, objective = np.einsum("tks,t->ks", terms.double().numpy(), images / images.sum())
        p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
        speed = len(self.levels) * len(self.specs) / sum(seconds)
        rows = {}
        for lane, spec in enumerate(self.specs):
            rows[spec.id] = {
                "elbo/train": float(recon[lane] - kl[lane]),
                "recon/train": float(recon[lane]),
                "kl/train": float(kl[lane]),
                "objective/train": float(objective[lane]),
                "diagnostics/gradient_norm": float(self.gradient_norm[lane]),
                "perf/images_per_s": speed,
                "perf/step_ms_p50": float(p50),
                "perf/step_ms_p95": float(p95),
            }
            if self.eval_x is not None:
                vae = self.lane(lane)
                score = metrics.elbo(vae, metrics.native(vae, self.eval_x), samples=1)
                rows[spec.id] |= {
                    "elbo/validation": score.elbo,
                    "recon/validation": score.recon,
                    "kl/validation": score.kl,
                }
        return rows
