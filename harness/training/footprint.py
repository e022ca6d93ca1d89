"""How much memory a trial's training takes, told from the shapes of its tensors: none of them is made but those of small models.

Shapes: B images, L draws, P values of an image, Z latents, T steps of a chunk.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from harness import catalog, devices, references, resources
from harness.data import Data
from harness.errors import MachineError
from harness.models.vae import VAE, build, kept_floats, parameters_of_one
from harness.resources import size
from harness.spec import CHUNK, FLOAT, TrialSpec, in_words, step_in_words
from harness.training.batches import noisy
from harness.training.extras import Extras

BEYOND = 2**63  # bytes: more than torch can count
FEW = 2**24  # parameters, 64 MiB
SMALL = 2**16  # values of an image


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The memory of a trial's training, in bytes, as an estimate.

    Attributes:
        state: of parameters, gradients, the optimizer's moments, averages, and the copies that patience keeps.
        step: of what a step keeps of its layers, gradients of that, and the inputs of a chunk of steps.
        data: of the images.
        words: what it is for, for people.
    """

    state: int = 0
    step: int = 0
    data: int = 0
    words: str = ""

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.state + self.step + self.data


def footprint(spec: TrialSpec, data: Data) -> Footprint:
    """Return how much memory a trial's training takes at its peak; nothing if a network of the user's own cannot tell.

    The model is made on torch's device `meta`, which knows shapes and takes no memory; one with code of the user's own is made for
    real, for that code may keep a tensor that it makes. A small one for small images is made for real before it is run: on `meta`,
    elu and others are Python functions with which torch imports its compiler, and every start of a study would wait for that.
    """
    own = any(references.is_reference(name) for name in (spec.network, spec.likelihood, spec.activation))
    images, pixels = len(data.fit_on(spec.fit_on)), math.prod(data.image_shape)
    try:
        vae = _built(spec, data, "cpu" if own else "meta")
        parameters = parameters_of_one(vae)
        if not own and parameters <= FEW and pixels <= SMALL:
            vae = _built(spec, data, "cpu")
        with torch.device(next(vae.parameters()).device):
            kept = kept_floats(vae, data.image_shape, spec.latent)
    except Exception as fault:  # the code may be the user's own, and do what has no answer without values
        if own or "overflow" not in str(fault):
            return Footprint()
        return Footprint(state=BEYOND, words=f"{in_words(spec)} has more parameters than can be counted")
    optimizer, extras = catalog.find("optimizer", spec.optimizer)(), Extras.of([spec])
    copies = 2 + len(optimizer.slots) + extras.averages + (2 * (1 + extras.averages) if spec.patience else 0)
    rows = spec.batch_size * spec.num_samples
    inputs = CHUNK * (rows * spec.latent + noisy(spec) * spec.batch_size * pixels)
    of_step = FLOAT * (2 * kept * rows + inputs)
    of_state = FLOAT * copies * parameters
    return Footprint(
        state=of_state,
        step=of_step,
        data=2 * images * pixels,
        words=(
            f"{in_words(spec)} takes about {size(of_state + of_step)}: "
            f"{size(of_state)} for {parameters:,} parameters with gradients and {spec.optimizer}'s state, "
            f"{size(of_step)} for a step of {step_in_words(spec, spec.batch_size)}"
        ),
    )


def _built(spec: TrialSpec, data: Data, device: str) -> VAE:
    """Return the model of a spec on a device, without weights."""
    with torch.device(device):
        return build(spec, data.image_shape)


def check_fits(need: Footprint, device: str, workers: int = 1, per_gpu: int = 1) -> None:
    """Raise an error if this many trainings at a time do not fit into the memory of this machine, or of its GPU.

    Args:
        need: Of a training.
        device: By name, as `devices.named` takes it.
        workers: How many train at a time on a CPU.
        per_gpu: How many share a GPU.

    Raises:
        MachineError: They do not; the message has the estimate and the memory.
    """
    at = devices.named(device)
    if not devices.is_gpu(at.type):
        resources.fitting(need.bytes, workers, workers, need.words)
    elif need.bytes > (memory := devices.memory_of(at)):
        raise resources.too_large(need.words, memory, devices.describe(at))
    elif need.bytes * per_gpu > memory:
        raise MachineError(
            f"WORKERS_PER_GPU={per_gpu}: {per_gpu} trials do not fit into the memory of {devices.describe(at)}\n{need.words}\n"
            f"WORKERS_PER_GPU={memory // need.bytes} would fit"
        )


def largest(specs: Iterable[TrialSpec], data: Data) -> Footprint:
    """Return the footprint of the trial of these that takes the most memory."""
    different = {(s.cohort, s.ema_decay > 0, s.patience > 0): s for s in specs}
    return max((footprint(spec, data) for spec in different.values()), key=lambda f: f.bytes, default=Footprint())
