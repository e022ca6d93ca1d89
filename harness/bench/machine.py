"""What a step costs on paper and what the machine can do: FLOP, bytes, the rate of a large product, and a clock for a call."""

import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from harness import devices
from harness.errors import UserError

BATCH = 128
LAYERS = (*pairwise((784, 256, 64, 32, 4)), *pairwise((2, 32, 64, 256, 784)))  # of the reference model, (inputs, outputs)
SIDE, PRODUCTS = 768, 10  # size of the matrices whose product is the yardstick, and products per call

CLASSES = {"AVX512": "AVX-512", "AVX2": "AVX2", "DEFAULT": "portable"}  # of a processor's instructions, as torch names them
# What forces a class: on our kernels, on torch's and on MKL's products.
FORCED_BY = ("HARNESS_KERNELS", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
FORCED = "HARNESS_KERNELS=avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2"

Layers = Sequence[tuple[int, int]]


class Spent(NamedTuple):
    """The seconds of a call.

    Attributes:
        wall: on the wall; on a GPU by its own clock.
        cpu: on all cores that the process used.
    """

    wall: float
    cpu: float


def described(device: torch.device) -> str:
    """Return the device in words, and of a CPU its class of instructions, which comes first if the environment forces it.

    Raises:
        UserError: some of the libraries that take part are forced to a class and others not.
    """
    if device.type != "cpu":
        return devices.describe(device)
    name = CLASSES.get(capability := torch.backends.cpu.get_cpu_capability(), capability)
    forced = {variable: os.environ.get(variable, "") for variable in FORCED_BY}
    if not any(forced.values()):
        return f"{devices.describe(device)}, {name}"
    if {value.upper() for value in forced.values()} != {capability}:
        came = ", ".join(f"{variable}={value or '(not set)'}" for variable, value in forced.items())
        raise UserError(f"a class of instructions is forced on all or on none, got {came}; torch has {capability}\nwrite {FORCED}")
    return f"{name} (forced on {devices.describe(device)})"


def timed(device: torch.device, run: Callable[[], None]) -> Spent:
    """Return the seconds that a call of `run` takes, with the work that it leaves on the device."""
    timer, cpu = devices.StepTimer(device), time.process_time()
    run()
    timer.mark()
    return Spent(timer.seconds()[0], time.process_time() - cpu)


def parameters(layers: Layers = LAYERS) -> int:
    """Return the number of weights and biases."""
    return sum(a * b + b for a, b in layers)


def flop_per_sample(layers: Layers = LAYERS) -> int:
    """Return the FLOP per image of the matrix products of a training step.

    They are forward, the gradient of the weights, and the gradient of the inputs of all layers but the first.

    >>> flop_per_sample()
    2229376
    """
    weights = [a * b for a, b in layers]
    return 4 * sum(weights) + 2 * sum(weights[1:])


def bytes_per_step(layers: Layers = LAYERS, batch: int = BATCH) -> int:
    """Return the fp32 traffic of a step in bytes if products and optimizer read and write each operand once.

    This is a floor without any cache. Adam reads and writes p, m and v; the gradient is written and read; products read weights
    forward and, except for the first layer, backward; activations and their gradients are read and written by the three products
    of each layer.
    """
    weights = [a * b for a, b in layers]
    state = (6 + 2) * parameters(layers)
    reads = sum(weights) + sum(weights[1:])
    forward_and_weights = 2 * sum(a + b for a, b in layers)
    inputs = sum(a + b for a, b in layers[1:])
    return 4 * (state + reads + batch * (forward_and_weights + inputs))


def product(device: torch.device) -> Callable[[], None]:
    """Return a function that multiplies two square fp32 matrices `PRODUCTS` times.

    Its rate is the best that a step made of products could reach.
    """
    a, b, out = (torch.randn(SIDE, SIDE, device=device) for _ in range(3))

    def run() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, b, out=out)

    return run


def flop_of_product() -> int:
    """Return the FLOP of a call of `product`."""
    return PRODUCTS * 2 * SIDE**3
