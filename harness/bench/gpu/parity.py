"""Parity on a GPU: captured steps against an oracle in float64 on the CPU, and trials in one program against each alone.

Shapes: S lanes, B images, T steps.
"""

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from harness import catalog, devices, metrics
from harness.bench.gpu.record import Row
from harness.bench.gpu.setting import COMPILED, EAGER, GRAPH, Case, Setting, again, cohort_of, ready
from harness.models.vae import Pass, likelihood_of
from harness.spec import CHUNK, TrialSpec
from harness.training.cohort import Cohort
from harness.training.extras import AVERAGE, clipped, follow
from harness.training.optimizers import Rates
from harness.training.step import Chunk, Execution, LaneConstants, StepInputs, gradients

STEPS = CHUNK // 2  # that the oracle takes, the first ones of the third chunk
NATS_PER_PIXEL = 1e-5  # the largest error of a step's terms against the oracle; in fp32 on a CPU it is at most 7e-7
SAME = 1e-3  # the largest difference of a test ELBO between two ways of training, relative


# -------------------------------------------------------------------------------- against the oracle


def oracle_cases(setting: Setting) -> Iterator[Case]:
    """Yield every likelihood alone, and all activations in one program."""
    for name in catalog.LIKELIHOODS:
        yield name, partial(against_oracle, setting, [setting.base.derive(likelihood=name)], [name])
    specs = [setting.base.derive(activation=name) for name in catalog.ACTIVATIONS]
    yield "activations", partial(against_oracle, setting, specs, list(catalog.ACTIVATIONS))
    helped = [setting.base.derive(clip_norm=1.0), setting.base.derive(ema_decay=0.99)]
    yield "clip_norm and ema_decay", partial(against_oracle, setting, helped, ["clip_norm", "ema_decay"])


def network_cases(setting: Setting) -> Iterator[Case]:
    """Yield each network of ordinary modules, several lanes of which go through vmap: alone, and two lanes in one program."""
    for name in ("conv", "resnet"):
        spec = setting.base.derive(network=name, hidden=None, latent=20)
        specs = [spec, spec.derive(seed=1)]
        yield name, partial(against_oracle, setting, [spec], [name])
        yield f"{name}, two lanes", partial(against_oracle, setting, specs, [f"{name}, lane {i} of 2" for i in range(2)])


def against_oracle(setting: Setting, specs: Sequence[TrialSpec], names: Sequence[str], execution: Execution = GRAPH) -> list[Row]:
    """Return by name of the trial the largest error of the terms of STEPS captured steps against the oracle.

    A chunk is launched as a whole, as in training; the oracle takes its first steps.

    Both start from the same weights and moments, two chunks of steps into training, and read the same chunk: noise is drawn on the
    device, so its draws are copied. The terms are log p(x|z), KL and objective, in nats per pixel.
    """
    cohort = cohort_of(setting, specs, execution)
    bound = ready(cohort)
    bound.chunk.history.zero_()  # so that replays that do nothing are seen
    torch.set_num_threads(devices.cores())
    try:
        expected = oracle(cohort, bound.chunk, STEPS)
    finally:
        devices.one_thread()
    again(bound)()
    error = (bound.chunk.history[:STEPS].cpu().double() - expected).abs() / cohort.levels.shape[1]
    rows = []
    for name, worst in zip(names, error.amax((0, 1)).tolist(), strict=True):
        rows.append(
            Row(name, f"{worst:.1e} nats per pixel", f"at most {NATS_PER_PIXEL:g} nats per pixel", worst <= NATS_PER_PIXEL, worst)
        )
    return rows


def oracle(cohort: Cohort, chunk: Chunk, steps: int) -> Tensor:
    """Return the terms of the first steps of a chunk, (T, 3, S), by single operations in float64 on the CPU.

    The cohort's own weights and moments stay as they are.
    """

    def double(t: Tensor) -> Tensor:
        return t.detach().to("cpu", torch.float64, copy=True)

    vae = copy.deepcopy(cohort.vae).to("cpu", torch.float64)
    config, params = cohort.config._replace(vae=vae), list(vae.parameters())
    slots = {name: [double(t) for t in group] for name, group in cohort.state.slots.items()}
    constants = LaneConstants(cohort.levels.cpu(), double(cohort.weight_decay), double(cohort.free_bits))
    batch, eps, u, beta, learning_rate, factors, _ = (t.cpu() for t in chunk)

    def model(x: Tensor, eps: Tensor) -> Pass:
        """Return the pass in float64, of images that were scaled in float32 as on the device."""
        result: Pass = vae(x.double(), eps)
        return result

    terms = []
    for t in range(steps):
        inputs = StepInputs(batch[t], eps[t].double(), u[t], beta[t].double())
        grads, step_terms = gradients(config, model, params, constants, inputs)
        own_factors, limit, share = config.extras.split(factors[t].double().unbind(0))
        rates = Rates(learning_rate[t].double(), constants.weight_decay, own_factors)
        with torch.no_grad():
            for p, g, *own in zip(params, clipped(grads, limit), *slots.values(), strict=True):
                config.optimizer.apply(p, g, own[: len(config.optimizer.slots)], rates)
            follow(slots.get(AVERAGE, ()), params, share)
        terms.append(step_terms)
    return torch.stack(terms)


# -------------------------------------------------------------------------------- in one program, and alone


def fused_cases(setting: Setting) -> Iterator[Case]:
    """Yield the likelihoods of one decoder output in one program, as traced and then compiled."""
    specs = [setting.base.derive(likelihood=name) for name in catalog.LIKELIHOODS]
    specs = [spec for spec in specs if likelihood_of(spec).outputs == 1]
    alone: dict[str, float] = {}
    for execution in (GRAPH, COMPILED):
        yield execution, partial(fused, setting, specs, execution, alone)


def fused(setting: Setting, specs: Sequence[TrialSpec], execution: Execution, alone: dict[str, float]) -> list[Row]:
    """Return how far the test ELBO of each trial is from its own alone and by single operations, after an epoch, relative.

    `alone` keeps the ELBOs of the trials alone by spec id, for the next call.
    """
    together = cohort_of(setting, specs, execution)
    together.run_epoch()
    rows = []
    for spec in specs:
        name = f"{spec.likelihood}, {execution}"
        if spec.id not in alone:
            cohort = cohort_of(setting, [spec], EAGER)
            cohort.run_epoch()
            if not cohort.specs:
                rows.append(Row(name, f"alone: {cohort.failures[spec.id]}", ok=False))
                continue
            alone[spec.id] = test_elbo(cohort, spec)
        if spec.id in together.failures:
            rows.append(Row(name, together.failures[spec.id], ok=False))
            continue
        elbo = test_elbo(together, spec)
        apart = abs(elbo / alone[spec.id] - 1)
        words = f"{apart:.1e} apart; test ELBO {elbo:.3f}, alone {alone[spec.id]:.3f}"
        rows.append(Row(name, words, f"at most {SAME:g}", apart <= SAME, apart))
    return rows


def test_elbo(cohort: Cohort, spec: TrialSpec) -> float:
    """Return the test ELBO of a trial of a cohort, from one draw of z per image."""
    vae = cohort.trained(spec)
    x = metrics.model_inputs(spec, cohort.data.test)
    return metrics.estimate_elbo(vae, metrics.native(vae, x), samples=1).elbo
