"""The native library's operators as torch's: for graphs that are traced and compiled, and for evaluation.

Torch's dispatcher calls native/operators.cpp directly; Python only defines what each operator takes and which shape it returns.
"""

import ctypes
from functools import cache

import torch
from torch import Tensor

from harness.kernels import library

# What native/operators.cpp calls, in its order: functions of torch's stable C interface, the same from torch 2.11 on.
_FUNCTIONS = (
    "aoti_torch_library_init_impl",
    "torch_library_impl",
    "aoti_torch_get_data_ptr",
    "aoti_torch_get_sizes",
    "aoti_torch_get_strides",
    "aoti_torch_empty_strided",
    "aoti_torch_delete_tensor_object",
)
_NUMBERS = ("aoti_torch_dtype_float32", "aoti_torch_device_type_cpu")


class _Torch(ctypes.Structure):
    """The addresses and numbers of _FUNCTIONS and _NUMBERS, `Torch` in native/operators.cpp."""

    _fields_ = [*((name, ctypes.c_void_p) for name in _FUNCTIONS), *((name, ctypes.c_int64) for name in _NUMBERS)]


@cache
def available() -> bool:
    """Return whether `torch.ops.harness` has the operators, which the first call gives it if there is a library (see `library`)."""
    native = library.load()
    if native is None:
        return False
    functions = ctypes.CDLL(torch._C.__file__)  # torch's own module, through which its libraries are found wherever they lie
    try:
        addresses = [ctypes.cast(getattr(functions, name), ctypes.c_void_p) for name in _FUNCTIONS]
        table = _Torch(*addresses, *(getattr(functions, name)() for name in _NUMBERS))
    except AttributeError:  # a build of torch that does not show its stable interface
        return False
    _definitions()
    register = ctypes.CDLL(str(native.path)).harness_register
    register.argtypes, register.restype = (ctypes.POINTER(_Torch),), ctypes.c_int32
    return bool(register(table) == 0)


@cache
def _definitions() -> torch.library.Library:
    """Define the operators, with their shapes for tracing, and return what holds them.

    They last as long as it does, which is why it is cached.
    """
    defined = torch.library.Library("harness", "DEF")
    defined.define("matmul(Tensor a, Tensor b, bool sparse) -> Tensor")
    defined.define("materialize(Tensor(a!) x) -> ()")
    defined.define(
        "adam(Tensor x, Tensor g, Tensor(a!) p, Tensor(b!) mean, Tensor(c!) square, Tensor rate, Tensor spread, "
        "Tensor learning_rate, Tensor weight_decay, bool sparse, bool decoupled, float beta1, float beta2, float eps) -> ()"
    )
    geometry = "int kh, int kw, int sh, int sw, int ph, int pw"
    for signature in (
        f"convolve(Tensor x, Tensor w, int down, int across, {geometry}) -> Tensor",
        f"convolve_weight(Tensor x, Tensor g, {geometry}) -> Tensor",
        f"convolve_image(Tensor g, Tensor w, int height, int width, {geometry}) -> Tensor",
    ):
        defined.define(signature, tags=(torch.Tag.needs_exact_strides,))  # contiguous, as they are given while tracing
    torch.library.register_fake("harness::convolve", _convolved, lib=defined)
    torch.library.register_fake("harness::convolve_weight", _convolved_weight, lib=defined)
    torch.library.register_fake("harness::convolve_image", _convolved_image, lib=defined)
    torch.library.register_fake("harness::materialize", lambda x: None, lib=defined)
    torch.library.register_fake("harness::matmul", lambda a, b, sparse: a.new_empty(*a.shape[:2], b.shape[2]), lib=defined)
    torch.library.register_fake("harness::adam", lambda *_: None, lib=defined)
    return defined


def _convolved(x: Tensor, w: Tensor, down: int, across: int, *_: int) -> Tensor:
    """Return a tensor of the shape of what convolve returns."""
    return x.new_empty(len(x), down, across, len(w))


def _convolved_weight(x: Tensor, g: Tensor, kh: int, kw: int, *_: int) -> Tensor:
    """Return a tensor of the shape of what convolve_weight returns."""
    return x.new_empty(g.shape[3], x.shape[3], kh, kw)


def _convolved_image(g: Tensor, w: Tensor, height: int, width: int, *_: int) -> Tensor:
    """Return a tensor of the shape of what convolve_image returns."""
    return g.new_empty(len(g), height, width, w.shape[1])
