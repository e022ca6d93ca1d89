"""Uniform noise as torch draws it, but some ten times as fast on a CPU, where torch computes one number after another."""

from functools import cache

import torch
from torch import Tensor

from harness.kernels import library

STATE_BYTES = 24 + 8 * 624  # of a state that the kernel reads and writes (`GeneratorState` in native/uniform.cpp)


def uniform(generator: torch.Generator, *size: int) -> Tensor:
    """Return what torch.rand returns for this size, in fp32 on the generator's device, and move the generator on as it does."""
    if generator.device.type != "cpu" or library.load() is None or not _same_as_torch():
        return torch.rand(size, generator=generator, device=generator.device, dtype=torch.float32)
    return _native(generator, *size)


def _native(generator: torch.Generator, *size: int) -> Tensor:
    """Return the numbers that the native kernel draws from the state of a generator on a CPU."""
    native = library.load()
    assert native is not None
    u, state = torch.empty(size, dtype=torch.float32), generator.get_state()
    native.uniform(state.data_ptr(), u.data_ptr(), u.numel())
    generator.set_state(state)
    return u


@cache
def _same_as_torch() -> bool:
    """Return whether the native kernel draws what torch does: a later torch may keep another generator, or state."""
    if torch.Generator().get_state().numel() < STATE_BYTES:
        return False
    ours, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    return all(_native(ours, n).equal(torch.rand(n, generator=theirs)) for n in (700, 1, 700))
