"""Batched matrix products on a CPU by the native library (native/products.h), with Adam's update at their end, in traced steps.

On AMD cores the BLAS that torch brings reaches 85 to 90 % of the peak at these sizes, the library 93 %. With Adam's update as the
end of a product, the gradient is neither written to memory nor read again. Multiplications where a few neighbouring rows of the
images are all zero are skipped. The five wide products of the reference step on MNIST with Adam's update of their weights take 0.7
of the time (docs/log.md).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.kernels import convolutions, library, operators

# The sets of instructions with which a step of our products and convolutions was measured to be faster than one of torch's
# with the same instructions: single products by 1.0 to 1.1 times, convolutions by 1.05 to 1.4, and what skips zeros by 2 to 3.5
# (docs/log.md). That was on AMD's cores; Intel's were not measured.
FASTER = frozenset({"avx512", "avx2"})


class AdamSettings(NamedTuple):
    """The constants of an Adam update (Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980).

    Attributes:
        decoupled: True for AdamW's weight decay (Loshchilov & Hutter, 2019, https://arxiv.org/abs/1711.05101).
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
    """

    decoupled: bool
    beta1: float
    beta2: float
    eps: float


def worthwhile(device: torch.device) -> bool:
    """Return whether the kernel is to be used on this device: if there is a library for it that is faster there than torch."""
    native = library.load() if device.type == "cpu" else None
    return native is not None and native.instructions in FASTER and operators.available()


class Inference(TorchFunctionMode):
    """A context in which affine maps without gradients use the kernel if that is worthwhile, skipping zeros of their inputs."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.baddbmm and not torch.is_grad_enabled() and not kwargs:
            bias, x, weight = args
            if x.dtype == weight.dtype == torch.float32 and worthwhile(x.device):
                return torch.ops.harness.matmul(x, weight, True).add_(bias)
        return func(*args, **(kwargs or {}))


class Matmuls:
    """The matrix products of a step while it is traced, by torch or by the kernel.

    It records the factors of each product, so that the gradient of a weight can be replaced by its two factors.

    Attributes:
        use_kernels: True if products in float32 use the kernel.
        images_address: The address of the step's images, 0 before `materialize`.
        inputs: The input of each layer, by the address of its weight.
        products: Each product with both factors, by its identity.
    """

    def __init__(self, use_kernels: bool) -> None:
        self.use_kernels = use_kernels
        self.images_address = 0
        self.inputs: dict[int, Tensor] = {}
        self.products: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def table(self) -> Mapping[Any, Callable[..., Tensor]]:
        """The replacements of torch's batched products, by operator; they return NotImplemented to leave a product to torch.

        With the kernel, those of torch's convolutions too.
        """
        aten = torch.ops.aten
        of_convolutions = convolutions.table() if self.use_kernels else {}
        return {aten.baddbmm.default: self._affine, aten.bmm.default: self._bmm, **of_convolutions}

    def materialize(self, x: Tensor) -> Tensor:
        """Return the images x, which the compiled step then writes to memory once.

        Without this the compiler would compute them again for each operation that reads them.
        """
        self.images_address = x.data_ptr()
        if self.use_kernels:
            torch.ops.harness.materialize(x)
        return x

    def _sparse(self, x: Tensor) -> bool:
        """Return whether x is the images, many of whose pixels are 0."""
        return x.data_ptr() == self.images_address

    def _affine(self, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return x @ weight + bias of every lane and record x as the input of that weight, or return NotImplemented.

        The compiler fuses an addition of its own with the activation. On a GPU it saves the copy of the bias to the size of the
        product that cuBLAS would make, 8 of 59 kernels of a step of several lanes (docs/log.md).
        """
        out = self._multiply(x, weight)
        if out is not NotImplemented:
            self.inputs[weight.data_ptr()] = x
            return out + bias
        return out if x.device.type == "cpu" else torch.bmm(x, weight) + bias

    def _bmm(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a @ b of every lane and record its factors, or return NotImplemented."""
        out = self._multiply(a, b)
        if out is not NotImplemented:
            self.products[id(out)] = (out, a, b)
        return out

    def _multiply(self, a: Tensor, b: Tensor) -> Tensor:
        """Return a @ b by the kernel, as an unbatched product if there is one lane, or NotImplemented for torch's batched one."""
        if self.use_kernels and a.dtype == torch.float32:
            return cast(Tensor, torch.ops.harness.matmul(a, b, self._sparse(a)))
        return (a[0] @ b[0])[None] if len(a) == 1 else cast(Tensor, NotImplemented)

    def adam_step(
        self,
        settings: AdamSettings,
        p: Tensor,
        gradient: Tensor,
        slots: Sequence[Tensor],
        rates: tuple[Tensor, Tensor, tuple[Tensor, ...]],
    ) -> bool:
        """Take Adam's step on a weight from the two factors of its gradient, in place, and return whether that was possible.

        If it was, nothing uses the gradient itself any longer, so the compiler drops the product that computes it.

        Args:
            settings: The constants of the update.
            p: The weight, (S, inputs, outputs).
            gradient: Its gradient, a product that `_bmm` recorded.
            slots: The first and the second moment, of p's shape.
            rates: The learning rate and the weight decay, (S,) each; then the learning rate that corrects the bias of the first
                moment and the factor that corrects the root of the second, (S,) each.
        """
        _, a, g = self.products.get(id(gradient), (None, None, None))
        x = self.inputs.get(p.data_ptr())
        if not self.use_kernels or a is None or g is None or x is None or x.data_ptr() != a.data_ptr():
            return False
        mean, square = slots
        learning_rate, weight_decay, (rate, spread) = rates
        operands = (x, g, p, mean, square, rate, spread, learning_rate, weight_decay)
        torch.ops.harness.adam(*operands, self._sparse(x), *settings)
        return True
