"""Products of one lane on a CPU by our own kernel, which also takes Adam's step on what it would else write down as a gradient.

On AMD cores with AVX-512 the BLAS that torch brings reaches 85 to 90 % of the peak at these sizes, the kernel (products.cpp) 93; a
gradient that is never written is not read again either; and where eight rows of the images are all zero, nothing is multiplied. The
five wide products of the reference step on MNIST with Adam's update of their weights take 0.7 of the time (docs/log.md). Elsewhere
torch's own products are used.
"""

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import engine
from harness.errors import MachineError
from harness.optim import Adam, Correction

LEAST = 2**14  # weights of a layer that is worth a call
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffast-math", "-shared", "-fPIC")
_LONG, _FLAG, _REAL, _POINTER = ctypes.c_long, ctypes.c_int, ctypes.c_double, ctypes.c_void_p
_SIGNATURES = {
    "product": [_LONG] * 3 + [_FLAG] + [_POINTER, _LONG, _LONG] * 2 + [_POINTER],
    "adam": [_LONG] * 3 + [_FLAG] + [_POINTER] * 9 + [_FLAG] + [_REAL] * 3,
}
_LIBRARY = torch.library.Library("harness", "DEF")
_LIBRARY.define("product(Tensor a, Tensor b, bool sparse) -> Tensor")
_LIBRARY.define("settle(Tensor(a!) x) -> ()")
_LIBRARY.define(
    "adam(Tensor x, Tensor g, Tensor(a!) p, Tensor(b!) mean, Tensor(c!) square, Tensor rate, Tensor spread, "
    "Tensor learning_rate, Tensor weight_decay, bool sparse, bool decoupled, float beta1, float beta2, float eps) -> ()"
)


@cache
def kernel() -> ctypes.CDLL | None:
    """The kernel, compiled for this machine (0.8 s, once a process), or None where no compiler can."""
    compiler = engine.compiler(torch.device("cpu"))
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "products.so")
        source = Path(__file__).with_suffix(".cpp")
        if subprocess.run([compiler, *FLAGS, str(source), "-o", str(built)], capture_output=True, check=False).returncode:
            return None
        library = ctypes.CDLL(str(built))
    for name, types in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    return library


def pay(where: torch.device) -> bool:
    """Whether our own products are to be used: on a machine where they are faster than torch's, if they can be compiled."""
    return engine.slow_blas(where) and kernel() is not None


def _call(name: str, *arguments: float) -> None:
    library = kernel()
    if library is None:
        raise MachineError("our own products cannot be compiled here, and this step was made of them")
    getattr(library, name)(*arguments)


def _product(a: Tensor, b: Tensor, sparse: bool) -> Tensor:
    (m, k), n = a.shape, b.shape[1]
    out = a.new_empty(m, n)
    _call("product", m, n, k, sparse, a.data_ptr(), *a.stride(), b.data_ptr(), *b.stride(), out.data_ptr())
    return out


def _adam(
    x: Tensor, g: Tensor, p: Tensor, mean: Tensor, square: Tensor, rate: Tensor, spread: Tensor, learning_rate: Tensor,
    weight_decay: Tensor, sparse: bool, decoupled: bool, *rates: float,
) -> None:  # fmt: skip
    tensors = (x, g, p, mean, square, rate, spread, learning_rate, weight_decay)
    _call("adam", x.shape[1], g.shape[1], len(x), sparse, *(t.data_ptr() for t in tensors), decoupled, *rates)


_LIBRARY.impl("product", _product, "CPU")
_LIBRARY.impl("adam", _adam, "CPU")
_LIBRARY.impl("settle", lambda x: None, "CPU")
torch.library.register_fake("harness::settle", lambda x: None, lib=_LIBRARY)
torch.library.register_fake("harness::product", lambda a, b, sparse: a.new_empty(a.shape[0], b.shape[1]), lib=_LIBRARY)
torch.library.register_fake("harness::adam", lambda *_: None, lib=_LIBRARY)


class Products:
    """The products of a step of one lane, while it is traced: torch's, or `own`.

    It remembers what each was of, so that the gradient of a weight is known by its two factors.
    """

    def __init__(self, own: bool) -> None:
        self.own = own
        self.images = 0  # where they lie
        self.inputs: dict[int, Tensor] = {}  # of layers, by where their weights lie
        self.made: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # batched products by identity, with both factors

    @property
    def table(self) -> Mapping[Any, Callable]:
        """What stands for torch's batched operations. A batched product of one lane is a plain one."""
        aten = torch.ops.aten
        return {aten.baddbmm.default: self._affine, aten.bmm.default: self._bmm}

    def settle(self, x: Tensor) -> Tensor:
        """The images x, written to memory once. Without this the compiler would make them anew for each that reads them."""
        self.images = x.data_ptr()
        if self.own:
            torch.ops.harness.settle(x)
        return x

    def _sparse(self, x: Tensor) -> bool:
        return x.data_ptr() == self.images

    def _affine(self, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        lone = x[0]
        self.inputs[weight.data_ptr()] = lone
        return self._of(lone, weight[0])[None] + bias  # the bias then joins the activation

    def _bmm(self, a: Tensor, b: Tensor) -> Tensor:
        factors = a[0], b[0]
        out = self._of(*factors)[None]
        self.made[id(out)] = (out, *factors)
        return out

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        wide = self.own and a.dtype == torch.float32 and min(a.shape[1] * b.shape[1], a.shape[0] * b.shape[1]) >= LEAST
        return torch.ops.harness.product(a, b, self._sparse(a)) if wide else a @ b

    def update(
        self, adam: Adam, p: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, correction: Correction, *rates: Tensor
    ) -> bool:
        """Adam's step on a wide layer's weight p straight from its gradient's factors, or False: take it by the gradient.

        `rates` are learning rate and weight decay. The product that the gradient came from is then used by nothing.
        """
        _, a, g = self.made.get(id(gradient), (None, None, None))
        x = self.inputs.get(p.data_ptr())
        if not self.own or p.numel() < LEAST or a is None or g is None or x is None or x.data_ptr() != a.data_ptr():
            return False
        rule = (self._sparse(x), adam.decoupled, adam.beta1, adam.beta2, adam.eps)
        torch.ops.harness.adam(x, g, p, mean, square, *correction, *rates, *rule)
        return True
