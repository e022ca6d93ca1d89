"""Training of trials of one shape together, one lane each.

Shapes: S lanes, L draws, B images, P pixels, Z latents, T steps of a chunk.
"""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness import catalog, devices
from harness.data import Data, frozen_noise
from harness.kernels import matmul
from harness.models.lanes import bucket
from harness.models.likelihoods import MAX_LEVEL
from harness.models.vae import VAE, kept_floats, likelihood_of, mixable, side_by_side
from harness.scores import not_finite
from harness.spec import CHUNK, TrialSpec
from harness.training import batches, optimizers, state
from harness.training.batches import BatchStream, Row, generator
from harness.training.extras import AVERAGE, Extras, clipped, follow, norms
from harness.training.manual import ManualStep
from harness.training.optimizers import Rates
from harness.training.state import Snapshot, TrainingState
from harness.training.step import BoundStep, Chunk, Execution, LaneConstants, StepConfig, StepInputs, TracedStep, gradients
from harness.training.stopping import Groups, Patience
from harness.training.validation import Validation

# The traced steps of this process, by the cohorts of their lanes, the number of images and their shape, the device, whether they
# are compiled, and whether they use our own kernel.
_PROGRAMS: dict[tuple[Any, ...], TracedStep] = {}


class Cohort:
    """S trials that one program can train together.

    They differ in lane fields, activation and likelihood only (`harness.models.vae.mixable`).

    Noise is data: order, initial weights and all draws come from a lane's own seed, so a trial trains alike alone and beside
    others: bitwise in cohorts of equal size on a CPU, else to rounding (weights to 1e-3 relative over two epochs in the tests),
    since matrix products of several lanes sum in another order. By `graph` and `compiled` each step is one program
    (harness/training/step.py), equal to rounding too; the last step of an epoch, whose batch is smaller, is taken operation by
    operation in either case.

    A trial that meets a value that is not finite is masked: its lane is still computed but its results are ignored, until at the
    end of an epoch the remaining lanes are compacted: at once if steps are taken operation by operation, else when they fit into a
    smaller bucket and the steps left are worth a new program. A compiled program on a GPU starts with its lanes filled up to a
    bucket by masked ones, so that cohorts of other sizes use it again.

    Attributes:
        specs: the trials still in training.
        lanes: the trials in the lanes, masked ones included.
        shape: the spec that all trials share (`TrialSpec.cohort` of the first one).
        device: the device that they train on.
        execution: how the steps are taken.
        data: the data set, on the device.
        epoch: the number of epochs done.
        levels: the grey levels of the images to train on, (N, P); 0 and 255 only where the likelihood's noise is frozen.
        steps_per_epoch: the number of steps of an epoch.
        compile_s: seconds that tracing, compiling and capturing the step took, which are no part of any step's time.
        step_s: the seconds of a step in the newest epoch.
        gradient_norm: the norm of each lane's gradient at the newest epoch's last step, (S,).
        failures: the reason by spec id, for trials that met a value that is not finite.
        patience: the best epochs of the trials with patience, and those that have stopped.
        validation: the scoring of the trials after every epoch; None if the validation images are trained on too.
        vae: the model of all lanes.
        params: the model's parameters.
        state: the optimizer's state.
        config: the configuration of the training step.
        weight_decay: the weight decay of each lane, (S,).
        free_bits: the free bits of each lane, (S,).
        traced: the program of the steps; None until the first one, and if steps are taken operation by operation.
        bound: that program with this cohort's tensors; None until the first step by it.

    Raises:
        ValueError: one program cannot train these trials, or two of them are the same.
    """

    def __init__(self, specs: Sequence[TrialSpec], data: Data, device: torch.device, execution: Execution = "eager") -> None:
        if not mixable(specs) or len({s.id for s in specs}) != len(specs):
            raise ValueError("a cohort is made of different trials that one program can train")
        self.specs = list(specs)
        self.shape = specs[0].cohort
        self.device = device
        self.execution = execution
        self.data = data.to(device)
        self.epoch = 0
        self.compile_s = self.step_s = 0.0
        self.traced: TracedStep | None = None
        self.failures: dict[str, str] = {}
        self.patience = Patience()
        fit = self.data.fit_on(self.shape.fit_on)
        self.levels = fit.levels
        likelihood = likelihood_of(self.shape)
        if likelihood.noise == "frozen":
            self.levels = likelihood.observe(fit.levels.float(), frozen_noise(fit)).to(torch.uint8) * MAX_LEVEL
        self.steps_per_epoch = math.ceil(len(self.levels) / self.shape.batch_size)
        self.gradient_norm: Tensor = torch.zeros(len(specs))
        filled_up = execution == "compiled" and devices.can_capture(device)
        lanes = [*specs, *[specs[-1]] * (bucket(len(specs)) - len(specs) if filled_up else 0)]
        vae = side_by_side(lanes, self.data.image_shape)
        for lane, spec in enumerate(lanes):
            vae.reset(lane, generator(spec.seed, "weights", 0))
        self._adopt(vae, lanes)
        self.state = optimizers.start(self.config.optimizer, self.params, self.config.extras.slots)
        self.validation = Validation(self.data.validation) if self.shape.fit_on == "train" else None

    def _adopt(self, vae: VAE, lanes: Sequence[TrialSpec]) -> None:
        """Make `vae` this cohort's model, with `lanes` as the trials in its lanes, masked ones included."""
        self.vae = vae.to(self.device)
        self.lanes = list(lanes)
        self.params: list[Tensor] = list(self.vae.parameters())
        objective = catalog.find("objective", self.shape.objective)
        optimizer = catalog.find("optimizer", self.shape.optimizer)()
        self.config = StepConfig(self.vae, objective, optimizer, self.shape.precision, Extras.of(lanes))
        self.weight_decay = self._lanes("weight_decay")
        self.free_bits = self._lanes("free_bits")
        self.bound: BoundStep | ManualStep | None = None

    def _lanes(self, field: str) -> Tensor:
        """Return a field of every lane's spec, (S,)."""
        return torch.tensor([getattr(s, field) for s in self.lanes], dtype=torch.float32, device=self.device)

    @property
    def noisy(self) -> list[bool]:
        """True for each lane that draws new pixel noise at every use of an image."""
        return [batches.noisy(s) for s in self.lanes]

    @property
    def compiler_fault(self) -> str:
        """The reason why the compiler failed, so that steps are taken as they were traced; empty if it did not."""
        return self.traced.fault if self.traced else ""

    @property
    def compiled(self) -> bool:
        """True if steps are taken by a compiled program."""
        return self.execution == "compiled" and self.traced is not None and not self.traced.fault

    @property
    def bytes_per_lane(self) -> int:
        """An upper estimate of a lane's memory on the device, in bytes.

        It counts parameters and optimizer slots twice (`training_state` copies them), gradients, what a step keeps of its layers,
        with gradients of that, and the inputs of chunks.
        """
        kept_by_layers = 2 * 4 * kept_floats(self.vae, self.data.image_shape, self.shape.latent) * self.shape.num_samples
        kept = 2 * (1 + self.config.extras.averages) * any(s.patience for s in self.lanes)  # the best epoch's, and the one before
        state = (3 * (1 + len(self.state.slots)) + kept) * sum(p[0].numel() for p in self.params) * 4
        batch = self.shape.batch_size * self.levels.shape[1] * 4 * self.shape.num_samples * self.vae.likelihood.outputs
        chunks = batch * (12 + 3 * CHUNK * any(self.noisy))  # one in use, and two being made
        return state + kept_by_layers * self.shape.batch_size + chunks + 8 * len(self.levels)

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
        compile_s, started = self.compile_s, time.perf_counter()
        with devices.tensor_cores(self.shape.precision == "tf32"), devices.no_subnormals():
            terms, step_seconds = self._train(steps)
        seconds = time.perf_counter() - started - (self.compile_s - compile_s)
        self.step_s = sum(step_seconds) / len(step_seconds)
        self.epoch += 1
        if not self.specs:
            return {}
        rows = self._rows(terms, step_seconds, seconds)
        if validation is not None:
            scores = validation.score(self.lanes, self.vae)
            for spec in self.specs:
                rows[spec.id] |= scores[self.lanes.index(spec)]
        self._give_up(rows)
        finite = self.specs
        if validation is not None:
            self.specs = self.patience.watch(finite, self.epoch, rows, self._weights)
        if self.specs:
            self._compact()
        return {spec.id: rows[spec.id] for spec in finite}

    def _give_up(self, rows: Mapping[str, Row]) -> None:
        """Give up every trial with a number in its row that is not finite, and note in `failures` which."""
        for spec in list(self.specs):
            words = not_finite(rows[spec.id])
            if words:
                self.failures[spec.id] = f"not finite after epoch {self.epoch}: {words}; {batches.likely_cause(spec)}"
                self.specs.remove(spec)

    def _train(self, steps: int) -> tuple[Tensor, list[float]]:
        """Take the first steps of an epoch. Return log p(x|z), KL and objective of each, (T, 3, S), and its time in seconds.

        On a GPU the host launches all of it without waiting, and values are checked at the end.
        """
        stream = BatchStream(self.lanes, self.levels, self.steps_per_epoch, self.epoch, self.config.optimizer)
        at_the_end = devices.can_capture(self.device)
        timer = devices.StepTimer(self.device)
        histories: list[Tensor] = []
        chunks = devices.ahead(stream.chunks(steps, whole=self.execution in ("graph", "compiled")), self.device)
        for start, chunk in zip(range(0, steps, CHUNK), chunks, strict=True):
            numbers = range(start, min(start + CHUNK, steps))
            timer.mark(0)
            self._take(chunk, numbers, timer, last=steps - 1)
            histories.append(chunk.history[: len(numbers)])
            if not at_the_end:
                self._check(histories[-1], start)
            if not self.specs:
                break
        terms = torch.cat(histories).cpu()
        if at_the_end:
            self._check(terms, 0)
        return terms, timer.seconds()

    def _take(self, chunk: Chunk, steps: range, timer: devices.StepTimer, *, last: int) -> None:
        """Take a chunk's steps, which have the numbers `steps` in their epoch.

        The epoch's `last` step is taken operation by operation: its batch may be smaller, and the norm of its gradients is kept.
        """
        single = range(len(steps))
        if self.execution != "eager":
            bound = self.bound or (self._bind_kernels(chunk) if self.execution == "manual" else self._bind(chunk))
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
            factors, limit, share = self.config.extras.split(chunk.factors[t].unbind(0))
            rates = Rates(chunk.learning_rate[t], self.weight_decay, factors)
            self.config.optimizer.update(self.params, clipped(grads, limit), self.state, rates)
            follow(self.state.slots.get(AVERAGE, ()), self.params, share)
            chunk.history[t].copy_(terms)
            timer.mark()
            if steps[t] == last:
                self.gradient_norm = norms(grads)

    def _constants(self) -> LaneConstants:
        """Return the tensors that stay the same over a chunk."""
        return LaneConstants(self.levels, self.weight_decay, self.free_bits)

    def _bind(self, chunk: Chunk) -> BoundStep:
        """Return the step's program bound to this cohort's tensors; trace it if this process has none of these shapes."""
        tensors = (self.params, *self.state.slots.values())
        lanes = tuple(s.cohort.derive(epochs=1, evaluation="quick") for s in self.lanes)
        compiled = self.execution == "compiled"
        images = (len(self.levels), self.data.image_shape)
        key = (lanes, self.config.extras, images, self.device, compiled, matmul.worthwhile(self.device))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = TracedStep(self.config, tensors, self._constants(), chunk, compiled=compiled)
            self.compile_s += _PROGRAMS[key].seconds
        self.traced = _PROGRAMS[key]
        self.bound = BoundStep(self.traced, tensors, self._constants(), chunk)
        self.compile_s += self.bound.seconds
        return self.bound

    def _bind_kernels(self, chunk: Chunk) -> ManualStep:
        """Return the step by native kernels, bound to this cohort's tensors."""
        self.bound = ManualStep(self.config, self.params, self.state, self.levels, chunk)
        return self.bound

    def _check(self, terms: Tensor, start: int) -> None:
        """Give up every trial whose loss is not finite any more, and note the step and the values in `failures`.

        `terms` are log p(x|z), KL and objective of the steps from `start` on, (T, 3, S).
        """
        for lane, (row, values) in batches.not_finite(terms).items():
            spec = self.lanes[lane]
            if spec in self.specs and self.lanes.index(spec) == lane:  # others fill the program up
                step = self.epoch * self.steps_per_epoch + start + row + 1
                where = f"step {step} (epoch {self.epoch + 1})"
                self.failures[spec.id] = f"loss not finite at {where}: {values}; {batches.likely_cause(spec)}"
                self.specs.remove(spec)

    def _compact(self) -> None:
        """Drop masked lanes if that pays. A cohort with a program keeps as many of them as fill the bucket of the others.

        A program for fewer lanes has to be traced, and compiled, anew; it pays if the steps left then save more than that took for
        the program in use.
        """
        live = [self.lanes.index(s) for s in self.specs]
        masked = [i for i in range(len(self.lanes)) if i not in live]
        room = len(live) if self.traced is None else bucket(len(live))
        if room >= len(self.lanes):
            return
        steps_left = (self.shape.epochs - self.epoch) * self.steps_per_epoch
        saved_s = steps_left * self.step_s * (1 - room / len(self.lanes))
        if self.traced is None or saved_s > self.traced.seconds:
            self.keep(sorted(live + masked[: room - len(live)]))

    @torch.no_grad()
    def keep(self, lanes: Sequence[int]) -> None:
        """Keep these lanes only, in this order, with their optimizer state."""
        lanes = list(lanes)
        self.gradient_norm = self.gradient_norm[lanes]
        trials = [self.lanes[i] for i in lanes]
        self.specs = [s for s in trials if s in self.specs]
        before = state.groups(self.vae, self.state)
        vae = state.extract(self.vae, lanes, trials, self.data.image_shape)
        names = [name for name, _ in vae.named_parameters()]
        self._adopt(vae, trials)
        slots = (*self.config.optimizer.slots, *self.config.extras.slots)
        self.state.slots = {slot: [before[slot][name][lanes] for name in names] for slot in slots}

    def prune(self, ids: Collection[str]) -> None:
        """Give up these trials, by spec id, so that their lanes take no time any more. Call it between two epochs."""
        self.specs = [s for s in self.specs if s.id not in ids]
        self.patience.stopped = [s for s in self.patience.stopped if s.id not in ids]
        if self.specs:
            self._compact()

    def training_state(self) -> TrainingState:
        """Return a copy of all that the trials need to go on from the end of the newest epoch. Call it between two epochs."""
        state = TrainingState.of(self.epoch, self.lanes, self.data.image_shape, self.vae, self.state)
        return replace(state, best=dict(self.patience.best), stopped=frozenset(s.id for s in self.patience.stopped))

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Go on from these snapshots, one per lane and all of one epoch.

        On a CPU, in a cohort of the size that they come from, training goes on bitwise as it would have without the interruption.

        Raises:
            ValueError: the snapshots are of different epochs.
        """
        filling = [snapshots[-1]] * (len(self.lanes) - len(snapshots))
        self.epoch = state.restore(self.vae, self.state, [*snapshots, *filling])
        self.state.step.fill_(self.epoch * self.steps_per_epoch)
        self.patience.restore(self.specs, snapshots, self.device)
        self.specs = [s for s in self.specs if s not in self.patience.stopped]

    def trained(self, spec: TrialSpec, group: str = "parameters") -> VAE:
        """Return a copy of one trial's model, alone in a single lane: of its best epoch if it has patience.

        The group `average` gives that of its averaged weights.
        """
        best = self.patience.best.get(spec.id)
        return state.model_of(spec, self.data.image_shape, (best.groups if best else self._weights(spec))[group])

    def _weights(self, spec: TrialSpec) -> Groups:
        """Return copies of one trial's weights, and of their average if it keeps one."""
        lane = self.lanes.index(spec)
        groups = state.groups(self.vae, self.state)
        kept = ("parameters", *((AVERAGE,) if spec.ema_decay else ()))
        return {g: {name: t[lane : lane + 1].detach().clone() for name, t in groups[g].items()} for g in kept}

    def _rows(self, terms: Tensor, step_seconds: list[float], seconds: float) -> dict[str, Row]:
        """Return the rows of an epoch by spec id.

        Args:
            terms: of the steps, (T, 3, S).
            step_seconds: of each step.
            seconds: of the whole epoch: feeding, steps and what is read back, without compiling and scoring.
        """
        images = min(len(self.levels), len(terms) * self.shape.batch_size)
        by_lane = batches.rows(terms, step_seconds, images, self.shape.batch_size)
        norms = self.gradient_norm.tolist()
        speed = images * len(self.specs) / seconds
        rows = {}
        for spec in self.specs:
            lane = self.lanes.index(spec)
            rows[spec.id] = by_lane[lane] | {"diagnostics/gradient_norm": norms[lane], "perf/images_per_s": speed}
        return rows
