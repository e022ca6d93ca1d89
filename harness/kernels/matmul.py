"""Products of lanes on a CPU by our own kernel, which also takes Adam's step on what it would else write down as a gradient.

On AMD cores with AVX-512 the BLAS that torch brings reaches 85 to 90 % of the peak at these sizes, the kernel (products.cpp) 93; a
gradient that is never written is not read again either; and where a few rows of the images are all zero, nothing is multiplied. The
five wide products of the reference step on MNIST with Adam's update of their weights take 0.7 of the time (docs/log.md). Elsewhere
torch's own products are used.
"""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness import devices

FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffast-math", "-fPIC")
_TORCH = Path(torch.__file__).parent


class AdamSettings(NamedTuple):
    """The constants of an Adam update; `decoupled` is AdamW's weight decay."""

    decoupled: bool
    beta1: float
    beta2: float
    eps: float


@cache
def _operators() -> torch.library.Library:
    """Define the operators that the kernel implements, with what tracing must know of them; kept as long as they are to be used."""
    library = torch.library.Library("harness", "DEF")
    library.define("matmul(Tensor a, Tensor b, bool sparse) -> Tensor")
    library.define("materialize(Tensor(a!) x) -> ()")
    library.define(
        "adam(Tensor x, Tensor g, Tensor(a!) p, Tensor(b!) mean, Tensor(c!) square, Tensor rate, Tensor spread, "
        "Tensor learning_rate, Tensor weight_decay, bool sparse, bool decoupled, float beta1, float beta2, float eps) -> ()"
    )
    torch.library.register_fake("harness::materialize", lambda x: None, lib=library)
    torch.library.register_fake("harness::matmul", lambda a, b, sparse: a.new_empty(*a.shape[:2], b.shape[2]), lib=library)
    torch.library.register_fake("harness::adam", lambda *_: None, lib=library)
    return library


@cache
def kernel() -> bool:
    """Return whether the kernel is at hand. Where a compiler can, it is compiled for this machine (6 s) and kept on disk."""
    compiler = devices.compiler(torch.device("cpu"))
    if compiler is None:
        return False
    source = Path(__file__).with_suffix(".cpp")
    made_of = (source.read_text(), FLAGS, compiler, devices.cpu_name(), torch.__version__)
    built = Path(_kept(), f"harness-{hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]}.so")
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        mine = built.with_suffix(f".{os.getpid()}")
        # In two steps: a library that is linked with -ffast-math makes the whole process flush subnormal numbers to zero.
        for command in (
            (compiler, *FLAGS, f"-I{_TORCH / 'include'}", "-c", str(source), "-o", f"{mine}.o"),
            (compiler, "-shared", f"{mine}.o", f"-L{_TORCH / 'lib'}", "-ltorch_cpu", "-o", str(mine)),
        ):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return False
        Path(f"{mine}.o").unlink()
        mine.replace(built)
    _operators()
    torch.ops.load_library(built)
    return True


def _kept() -> Path:
    """The folder of compiled code: torch's own if it is named, else one of this user beside it (asking torch takes a second)."""
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir(), f"harness_{os.getuid()}"))


def worthwhile(where: torch.device) -> bool:
    """Whether our own products are to be used: on a machine where they are faster than torch's, if they can be compiled."""
    return devices.slow_blas(where) and kernel()


class Inference(TorchFunctionMode):
    """In this block, without gradients: affine maps by our own kernel where it pays; zeros of sparse inputs are left out."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.baddbmm and not torch.is_grad_enabled() and not kwargs:
            bias, x, weight = args
            if x.dtype == weight.dtype == torch.float32 and worthwhile(x.device):
                return torch.ops.harness.matmul(x, weight, True).add_(bias)
        return func(*args, **(kwargs or {}))


class Matmuls:
    """The products of a step while it is traced: torch's, or `own`.

    It remembers what each was of, so that the gradient of a weight is known by its two factors.
    """

    def __init__(self, use_kernels: bool) -> None:
        self.use_kernels = use_kernels
        self.images = 0  # where they lie
        self.inputs: dict[int, Tensor] = {}  # of layers, by where their weights lie
        self.products: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # products by identity, with both factors

    @property
    def table(self) -> Mapping[Any, Callable]:
        """What stands for torch's batched operations."""
        aten = torch.ops.aten
        return {aten.baddbmm.default: self._affine, aten.bmm.default: self._bmm}

    def materialize(self, x: Tensor) -> Tensor:
        """The images x, written to memory once. Without this the compiler would make them anew for each that reads them."""
        self.images = x.data_ptr()
        if self.use_kernels:
            torch.ops.harness.materialize(x)
        return x

    def _sparse(self, x: Tensor) -> bool:
        return x.data_ptr() == self.images

    def _affine(self, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        out = self._of(x, weight)
        if out is NotImplemented:
            return out
        self.inputs[weight.data_ptr()] = x
        return out + bias  # which then joins the activation

    def _bmm(self, a: Tensor, b: Tensor) -> Tensor:
        out = self._of(a, b)
        if out is not NotImplemented:
            self.products[id(out)] = (out, a, b)
        return out

    def _of(self, a: Tensor, b: Tensor) -> Tensor:
        """Our own product, a plain one of a lone lane, or NotImplemented: torch's batched one."""
        if self.use_kernels and a.dtype == torch.float32:
            return torch.ops.harness.matmul(a, b, self._sparse(a))
        return (a[0] @ b[0])[None] if len(a) == 1 else NotImplemented

    def adam_step(
        self,
        settings: AdamSettings,
        p: Tensor,
        gradient: Tensor,
        slots: Sequence[Tensor],
        rates: tuple[Tensor, Tensor, tuple[Tensor, ...]],
    ) -> bool:
        """Take Adam's step on a layer's weight p straight from the two factors of its gradient, and return whether that can be.

        `slots` are the moments; `rates` learning rate and weight decay, (S,) each, and the two corrections of the moments, (S,) each. The
        product that the gradient came from is then used by nothing.
        """
        _, a, g = self.products.get(id(gradient), (None, None, None))
        x = self.inputs.get(p.data_ptr())
        if not self.use_kernels or a is None or g is None or x is None or x.data_ptr() != a.data_ptr():
            return False
        mean, square = slots
        learning_rate, weight_decay, (rate, spread) = rates
        given = (x, g, p, mean, square, rate, spread, learning_rate, weight_decay)
        torch.ops.harness.adam(*given, self._sparse(x), *settings)
        return True
