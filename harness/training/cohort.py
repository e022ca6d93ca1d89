"""Training of trials of one shape together, one lane each.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk.
"""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from harness import devices
from harness.data import Data, frozen_noise
from harness.kernels import matmul
from harness.models.likelihoods import MAX_LEVEL
from harness.models.objectives import OBJECTIVES
from harness.models.vae import VAE, mixable, side_by_side
from harness.spec import TrialSpec
from harness.training import batches, optimizers, state
from harness.training.batches import CHUNK, BatchStream, Row, generator
from harness.training.optimizers import OPTIMIZERS, Rates
from harness.training.state import Snapshot, TrainingState
from harness.training.step import BoundStep, Chunk, CompiledStep, LaneConstants, StepConfig, StepInputs, gradients
from harness.training.validation import Validation

# The compiled steps of this process, by the cohorts of their lanes, the number of images, the device, `fuse`, and whether they use
# our own kernel.
_PROGRAMS: dict[tuple[Any, ...], CompiledStep] = {}


class Cohort:
    """S trials that one program can train together.

    They differ in lane fields, activation and likelihood only (`harness.models.vae.mixable`).

    Noise is data: order, initial weights and all draws come from a lane's own seed, so a trial trains alike alone and beside
    others: bitwise in cohorts of equal size on a CPU, else to rounding (weights to 1e-3 relative over two epochs in the tests),
    since matrix products of several lanes sum in another order. If `compiled`, each step is one graph (harness/training/step.py),
    equal to rounding too; the last step of an epoch, whose batch is smaller, is taken as single operations in either case.

    A trial that meets a value that is not finite is masked: its lane is still computed but its results are ignored, until at the
    end of the epoch the remaining lanes are compacted (if compiled, when they fit into the next smaller bucket, so that programs
    are used again).

    Attributes:
        specs: the trials still in training.
        lanes: the trials in the lanes, masked ones included.
        shape: the spec that all trials share (`TrialSpec.cohort` of the first one).
        device: the device that they train on.
        compiled: True if the steps are compiled.
        fuse: True if the compiled graph goes through torch.compile; else it is left as it was traced, for a probe.
        data: the data set, on the device.
        epoch: the number of epochs done.
        levels: the grey levels of the images to train on, (N, P); for static binarisation 0 and 255 only.
        steps_per_epoch: the number of steps of an epoch.
        step_compile_s: seconds that tracing and compiling the step took.
        gradient_norm: the norm of each lane's gradient at the newest epoch's last step, (S,).
        failures: the reason by spec id, for trials that met a value that is not finite.
        validation: the scoring of the trials after every epoch; None if the validation images are trained on too.
        vae: the model of all lanes.
        params: the model's parameters.
        state: the optimizer's state.
        config: the configuration of the training step.
        weight_decay: the weight decay of each lane, (S,).
        free_bits: the free bits of each lane, (S,).
        bound: the compiled step with this cohort's tensors; None until the first compiled step.

    Raises:
        ValueError: one program cannot train these trials, or two of them are the same.
    """

    def __init__(
        self, specs: Sequence[TrialSpec], data: Data, device: torch.device, compiled: bool = False, fuse: bool = True
    ) -> None:
        if not mixable(specs) or len({s.id for s in specs}) != len(specs):
            raise ValueError("a cohort is made of different trials that one program can train")
        self.specs = list(specs)
        self.shape = specs[0].cohort
        self.device = device
        self.compiled, self.fuse = compiled, fuse
        self.data = data.to(device)
        self.epoch = 0
        self.step_compile_s = 0.0
        self.failures: dict[str, str] = {}
        fit = self.data.fit_on(self.shape.fit_on)
        self.levels = fit.levels
        if self.shape.binarisation == "static":
            self.levels = (frozen_noise(fit) < fit.levels / MAX_LEVEL).to(torch.uint8) * MAX_LEVEL
        self.steps_per_epoch = math.ceil(len(self.levels) / self.shape.batch_size)
        self.gradient_norm: Tensor = torch.zeros(len(specs))
        vae = side_by_side(specs, self.levels.shape[1])
        for lane, spec in enumerate(specs):
            vae.reset(lane, generator(spec.seed, "weights", 0))
        self._adopt(vae, self.specs)
        self.state = optimizers.start(self.config.optimizer, self.params)
        alone = compiled and fuse and len(specs) == 1  # several would take as many programs as there are arms
        self.validation = Validation(self.data.validation, alone) if self.shape.fit_on == "train" else None

    def _adopt(self, vae: VAE, lanes: Sequence[TrialSpec]) -> None:
        """Make `vae` this cohort's model, with `lanes` as the trials in its lanes, masked ones included."""
        self.vae = vae.to(self.device)
        self.lanes = list(lanes)
        self.params: list[Tensor] = list(self.vae.parameters())
        self.config = StepConfig(self.vae, OBJECTIVES[self.shape.objective], OPTIMIZERS[self.shape.optimizer], self.shape.precision)
        self.weight_decay = self._lanes("weight_decay")
        self.free_bits = self._lanes("free_bits")
        self.bound: BoundStep | None = None

    def _lanes(self, field: str) -> Tensor:
        """Return a field of every lane's spec, (S,)."""
        return torch.tensor([getattr(s, field) for s in self.lanes], dtype=torch.float32, device=self.device)

    @property
    def noisy(self) -> list[bool]:
        """True for each lane that draws new pixel noise at every use of an image."""
        return [batches.noisy(s) for s in self.lanes]

    @property
    def compile_s(self) -> float:
        """The seconds that compiling took, which are no part of any step's time; 0 if nothing was compiled."""
        return self.step_compile_s + (self.validation.compile_s if self.validation else 0.0)

    @property
    def bytes_per_lane(self) -> int:
        """An upper estimate of a lane's memory on the device, in bytes.

        It counts parameters and optimizer slots twice (`training_state` copies them), gradients, and the inputs of a chunk.
        """
        state = 3 * (1 + len(self.state.slots)) * sum(p[0].numel() for p in self.params) * 4
        batch = self.shape.batch_size * self.levels.shape[1] * 4 * self.shape.num_samples * self.vae.likelihood.params
        return state + batch * (12 + 2 * CHUNK * any(self.noisy)) + 8 * len(self.levels)

    def run_epoch(self) -> dict[str, Row]:
        """Train every lane for one epoch and score it on validation. Return a row per trial that is still finite, by spec id."""
        return self._run(self.steps_per_epoch, self.validation)

    def run_steps(self, n: int) -> dict[str, Row]:
        """Train every lane for the first n steps of an epoch, which then counts as done, and score nothing. Made for measurements.

        Raises:
            ValueError: n is less than one, or more than an epoch has.
        """
        if not 1 <= n <= self.steps_per_epoch:
            raise ValueError(f"an epoch of these trials has {self.steps_per_epoch} steps, got {n}")
        return self._run(n, None)

    def _run(self, steps: int, validation: Validation | None) -> dict[str, Row]:
        """Train the first `steps` steps of an epoch, score on `validation` unless it is None, compact. Return rows by spec id."""
        with devices.tensor_cores(self.shape.precision == "tf32"):
            terms, seconds = self._train(steps)
        self.epoch += 1
        if not self.specs:
            return {}
        rows = self._rows(terms, seconds)
        if validation is not None:
            for spec in self.specs:
                rows[spec.id] |= validation.score(spec, self.trained(spec))
        self._compact()
        return rows

    def _train(self, steps: int) -> tuple[Tensor, list[float]]:
        """Take the first steps of an epoch. Return log p(x|z), KL and objective of each, (T, 3, S), and its time in seconds."""
        stream = BatchStream(self.lanes, self.levels, self.steps_per_epoch, self.epoch)
        timer = devices.StepTimer(self.device)
        terms = []
        for start in range(0, steps, CHUNK):
            numbers = range(start, min(start + CHUNK, steps))
            chunk = stream.chunk(numbers, self.config.optimizer, whole=self.compiled)
            timer.mark(0)
            self._take(chunk, numbers, timer, last=steps - 1)
            terms.append(chunk.history[: len(numbers)].cpu())
            self._check(terms[-1], start)
            if not self.specs:
                break
        return torch.cat(terms), timer.seconds()

    def _take(self, chunk: Chunk, steps: range, timer: devices.StepTimer, *, last: int) -> None:
        """Take a chunk's steps, which have the numbers `steps` in their epoch.

        The epoch's `last` step is taken by single operations: its batch may be smaller, and the norm of its gradients is kept.
        """
        single = range(len(steps))
        if self.compiled:
            bound = self.bound or self._compile(chunk)
            timer.mark(0)
            program = len(steps) - (steps[-1] == last)
            bound.run(self._constants(), chunk, program, timer.mark)
            self.state.step += program
            single = range(program, len(steps))
        size = self.shape.batch_size
        for t in single:
            images = min(size, len(self.levels) - steps[t] * size)
            inputs = StepInputs(chunk.batch[t, :, :images], chunk.eps[t, :, :, :images], chunk.u[t, :, :images], chunk.beta[t])
            grads, terms = gradients(self.config, self.vae, self.params, self._constants(), inputs)
            rates = Rates(chunk.learning_rate[t], self.weight_decay, chunk.factors[t].unbind(0))
            self.config.optimizer.update(self.params, grads, self.state, rates)
            chunk.history[t].copy_(terms)
            timer.mark()
            if steps[t] == last:
                self.gradient_norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()

    def _constants(self) -> LaneConstants:
        """Return the tensors that stay the same over a chunk."""
        return LaneConstants(self.levels, self.weight_decay, self.free_bits)

    def _compile(self, chunk: Chunk) -> BoundStep:
        """Return the compiled step bound to this cohort's tensors; compile it if this process has none of these shapes."""
        state = (self.params, *self.state.slots.values())
        lanes = tuple(s.cohort.derive(epochs=1, evaluation="quick") for s in self.lanes)
        key = (lanes, len(self.levels), self.device, self.fuse, matmul.worthwhile(self.device))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = CompiledStep(self.config, state, self._constants(), chunk, fuse=self.fuse)
            self.step_compile_s += _PROGRAMS[key].seconds
        self.bound = BoundStep(_PROGRAMS[key], state, self._constants(), chunk)
        return self.bound

    def _check(self, terms: Tensor, start: int) -> None:
        """Give up every trial whose loss is not finite any more, and note the step and the values in `failures`.

        `terms` are log p(x|z), KL and objective of the steps from `start` on, (T, 3, S).
        """
        bad = ~terms.isfinite()
        for spec in list(self.specs):
            lane = self.lanes.index(spec)
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
                self.specs.remove(spec)

    def _compact(self) -> None:
        """Drop masked lanes. A compiled cohort keeps as many of them as fill the bucket of the lanes still in training."""
        live = [self.lanes.index(s) for s in self.specs]
        masked = [i for i in range(len(self.lanes)) if i not in live]
        room = devices.bucket(len(live)) if self.compiled else len(live)
        if room < len(self.lanes):
            self.keep(sorted(live + masked[: room - len(live)]))

    @torch.no_grad()
    def keep(self, lanes: Sequence[int]) -> None:
        """Keep these lanes only, in this order, with their optimizer state."""
        lanes = list(lanes)
        self.gradient_norm = self.gradient_norm[lanes]
        trials = [self.lanes[i] for i in lanes]
        self.specs = [s for s in trials if s in self.specs]
        before = state.groups(self.vae, self.state)
        vae = self._extract(lanes)
        names = [name for name, _ in vae.named_parameters()]
        self._adopt(vae, trials)
        self.state.slots = {slot: [before[slot][name][lanes] for name in names] for slot in self.state.slots}

    def prune(self, ids: Collection[str]) -> None:
        """Give up these trials, by spec id, so that their lanes take no time any more. Call it between two epochs."""
        self.specs = [s for s in self.specs if s.id not in ids]
        if self.specs:
            self._compact()

    def training_state(self) -> TrainingState:
        """Return a copy of all that the trials need to go on from the end of the newest epoch. Call it between two epochs."""
        return TrainingState.of(self.epoch, self.lanes, self.levels.shape[1], self.vae, self.state)

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Go on from these snapshots, one per lane and all of one epoch.

        On a CPU, in a cohort of the size that they come from, training goes on bitwise as it would have without the interruption.

        Raises:
            ValueError: the snapshots are of different epochs.
        """
        self.epoch = state.restore(self.vae, self.state, snapshots)
        self.state.step.fill_(self.epoch * self.steps_per_epoch)

    def trained(self, spec: TrialSpec) -> VAE:
        """Return a copy of one trial's model, alone in a single lane."""
        return self._extract([self.lanes.index(spec)])

    def _extract(self, lanes: Sequence[int]) -> VAE:
        """Return a copy of these lanes as a model of its own."""
        return state.extract(self.vae, lanes, [self.lanes[i] for i in lanes], self.levels.shape[1])

    def _rows(self, terms: Tensor, seconds: list[float]) -> dict[str, Row]:
        """Return the rows of an epoch by spec id, from the terms of its steps, (T, 3, S), and their times in seconds."""
        images = min(len(self.levels), len(terms) * self.shape.batch_size)
        by_lane = batches.rows(terms, seconds, images, self.shape.batch_size)
        speed = images * len(self.specs) / sum(seconds)
        rows = {}
        for spec in self.specs:
            lane = self.lanes.index(spec)
            norm = float(self.gradient_norm[lane])
            rows[spec.id] = by_lane[lane] | {"diagnostics/gradient_norm": norm, "perf/images_per_s": speed}
        return rows
