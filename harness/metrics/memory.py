"""How many images, or draws of z, a model takes at a time, so that memory is bounded by bytes whatever an image's size.

Shapes: S lanes, B images or draws, P values of an image, Z latents.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from harness.metrics.inference import mean_of
from harness.models.networks import StackedDecoder, StackedEncoder
from harness.models.vae import VAE

# Values of the largest tensor at a time, half a MiB in float32 on a CPU and 256 MiB on a GPU; what a score takes beside it is two
# or three times as much. On a CPU they stay in the cache of a core: log p of a continuous Bernoulli takes 8 ns a pixel, and 14 of
# tensors of 16 MiB. Of large images, or of many outputs a value, some rows are taken all the same, up to 32 MiB: convolutions of 16
# rows take 1.3 times as long a row as of 100, and a mixture of logistics of two rows 3 ms each, of 16 of them 0.8.
CPU_VALUES, GPU_VALUES = 2**17, 2**26
FEW_ROWS, FEW_VALUES = 100, 2**23


def most_values(device: torch.device) -> int:
    """Return how many values the largest tensor on this device may have."""
    return CPU_VALUES if device.type == "cpu" else GPU_VALUES


@torch.no_grad()
def at_once(module: nn.Module, x: Tensor) -> int:
    """Return how many of the B rows of x (S, B, ...) an encoder or decoder may take at a time, at least 1.

    The module and the modules in it are called with one row; the largest output of any of them decides.
    """
    largest = [0]
    stacked = isinstance(module, StackedEncoder | StackedDecoder)  # the modules in it then see one lane each

    def note(called: nn.Module, _: Any, given: Any) -> None:
        """Keep the size of what a module gives, if it is the largest so far."""
        tensors = given if isinstance(given, tuple | list) else (given,)
        values = sum(t.numel() for t in tensors if isinstance(t, Tensor))
        largest[0] = max(largest[0], values * (x.shape[0] if stacked and called is not module else 1))

    hook = register_module_forward_hook(note)
    try:
        module(x[:, :1])
    finally:
        hook.remove()
    most, row = most_values(x.device), max(1, largest[0])
    return max(1, min(max(most // row, FEW_ROWS), max(most, FEW_VALUES) // row))


def parts(module: nn.Module, x: Tensor) -> Iterator[slice]:
    """Return slices of the B rows of x (S, B, ...), as many of which an encoder or decoder takes at a time as `at_once` tells."""
    rows, size = x.shape[1], at_once(module, x)
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))


def encoded(vae: VAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance of q for x (S, B, P), (S, B, Z) each."""
    mean, log_var = zip(*(vae.encoder(x[:, part]) for part in parts(vae.encoder, x)), strict=True)
    return torch.cat(mean, 1), torch.cat(log_var, 1)


def mean_images(vae: VAE, z: Tensor) -> Tensor:
    """Return the mean images of latents z (1, B, Z), (B, P)."""
    mean = mean_of(vae.likelihood)
    return torch.cat([mean(*vae.decode(z[:, part]))[0] for part in parts(vae.decoder, z)])
