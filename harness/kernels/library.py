"""The native kernels as one library of functions in C, for the widest vectors that this processor has.

There is one library for each set of instructions: `avx512`, `avx2` (with FMA) and `portable` (any processor). It is the one that
lies in the package beside its sources (`native/`) if it was built from them; otherwise it is compiled at the first call on a
machine, in some 8 s, and kept. The environment variable HARNESS_KERNELS names another set, to reproduce what another machine
computes, or `off`. Without a library torch's operations are used.
"""

import ctypes
import hashlib
import os
import platform
import stat
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness import devices, resources
from harness.errors import UserError
from harness.resources import KERNEL_FLAGS, KERNELS, OFF

CACHE = "TORCHINDUCTOR_CACHE_DIR"
COMPILER_S = 300.0  # after which a compiler is taken to hang; it needs 8 on an idle core
NATIVE = Path(__file__).with_name("native")
# The compiler's flags: those of every library and those of each set of instructions, the widest first. Without -ffast-math, which
# would lose NaN, and whose linker would make the whole process flush subnormal numbers to zero.
FLAGS = tuple(KERNEL_FLAGS["every"])
INSTRUCTIONS: Mapping[str, tuple[str, ...]] = {name: tuple(flags) for name, flags in KERNEL_FLAGS.items() if name != "every"}
# The activations that the kernels know, in their order.
ACTIVATIONS = ("identity", "elu", "relu", "leaky_relu", "selu", "gelu", "silu", "mish", "tanh", "softplus", "sigmoid")


class Layer(ctypes.Structure):
    """An affine map and its activation as the kernels see it: sizes and addresses of contiguous fp32 tensors, None for null.

    Attributes:
        inputs, outputs: its widths.
        activation: its index in ACTIVATIONS.
        sparse: 1 if many of the inputs are zero, as those of images are.
        x: the inputs, (R, inputs) for R rows.
        w, b: weight (inputs, outputs) and bias (outputs).
        y: the activation of x w + b, (R, outputs).
        slope: its derivative there, (R, outputs); null if it is not wanted.
        w_mean, w_square, b_mean, b_square: Adam's moments.
        w_grad, b_grad: gradients, where those are wanted instead of a step.
    """

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "activation", "sparse")),
        *((name, ctypes.c_void_p) for name in ("x", "w", "b", "y", "slope")),
        *((name, ctypes.c_void_p) for name in ("w_mean", "w_square", "b_mean", "b_square", "w_grad", "b_grad")),
    ]


class AdamStep(ctypes.Structure):
    """The numbers of one step of Adam, those of `matmul.AdamSettings` and of `training.optimizers.Adam.factors`.

    The decays of the moments are doubles, for 1 - beta2 in fp32 would be off by 1e-5 of itself.
    """

    _fields_ = [
        *((name, ctypes.c_double) for name in ("beta1", "beta2")),
        *((name, ctypes.c_float) for name in ("rate", "spread", "learning_rate", "weight_decay", "eps")),
        ("decoupled", ctypes.c_int32),
    ]


_LAYER, _ADAM = ctypes.POINTER(Layer), ctypes.POINTER(AdamStep)
_POINTER, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
# The arguments of each function `harness_<name>`; native/*.h say what they are.
SIGNATURES: Mapping[str, tuple[Any, ...]] = {
    "forward": (_LAYER, _LONG),
    "backward": (_LAYER, *[_POINTER] * 3, _LONG),
    "update": (_LAYER, _POINTER, _ADAM, _LONG),
    "adam": (*[_POINTER] * 4, _LONG, _ADAM),
    "observe": (_LONG, *[_POINTER] * 4, _LONG, _LONG),
    "draw": (*[_POINTER] * 4, *[_LONG] * 3),
    "draw_back": (*[_POINTER] * 5, *[_LONG] * 3),
    "uniform": (*[_POINTER] * 2, _LONG),
    "head": (_LONG, *[_POINTER] * 7, _FLOAT, *[_LONG] * 3),
    "mixture_mean": (*[_POINTER] * 3, *[_LONG] * 2),
    "levels": (_LONG, *[_POINTER] * 5, *[_LONG] * 3),
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """The functions of a library; they take addresses (`Tensor.data_ptr()`) of contiguous tensors that the caller keeps alive.

    Attributes:
        instructions: the set of instructions it was compiled for, a key of INSTRUCTIONS.
        path: its file.
        forward: (layer, rows): set y, and slope if there is room for it.
        backward: (layer, g, slope, gx, rows): set gx = (g w') * slope, without slope g w'.
        update: (layer, g, adam, rows): take Adam's step of w and b, or, without `adam`, write their gradients.
        adam: (p, g, mean, square, n, adam): take Adam's step on n parameters.
        observe: (kind, levels, batch, u, x, rows, pixels): set x to the images at `batch` as a model sees them.
        draw: (q, eps, z, kl, draws, rows, latents): draw z from q, and set kl to the mean KL of each latent.
        draw_back: (q, eps, gz, kl_weight, gq, draws, rows, latents): set gq to the gradient of q.
        uniform: (state, u, count): set u to the next numbers of the generator of this state, and move it on.
        head: (kind, settings, x, out, shared, g, g_shared, log_px, scale, rows, images, pixels): set log_px to log p(x|z) and the
            gradients to those of minus log p times `scale`, unless g is null.
        mixture_mean: (settings, out, mean, rows, pixels): set mean to the mean images of a mixture of logistics.
        levels: (kind, settings, v, out, shared, log_p, rows, images, pixels): set log_p to log P(v|z) of grey levels.
    """

    instructions: str
    path: Path
    forward: Callable[..., None]
    backward: Callable[..., None]
    update: Callable[..., None]
    adam: Callable[..., None]
    observe: Callable[..., None]
    draw: Callable[..., None]
    draw_back: Callable[..., None]
    uniform: Callable[..., None]
    head: Callable[..., None]
    mixture_mean: Callable[..., None]
    levels: Callable[..., None]


class _Loaded(NamedTuple):
    """A library, or why there is none."""

    library: Library | None
    fault: str = ""


def load() -> Library | None:
    """Return the library for this machine, or None if there is none (`fault` says why). The first call may compile it.

    Raises:
        UserError: HARNESS_KERNELS has a value that means nothing.
    """
    return _load().library


def fault() -> str:
    """Return why there is no library for this machine, in a line, or "" if there is one."""
    return _load().fault


def instructions() -> str:
    """Return the set of instructions for which the library is to be, a key of INSTRUCTIONS or `off`.

    Raises:
        UserError: HARNESS_KERNELS has a value that means nothing.
    """
    asked = resources.kernels()
    has = torch.backends.cpu.get_cpu_capability().lower()
    return asked or (has if has in INSTRUCTIONS else "portable")


def sources() -> str:
    """Return the digest of the native sources and flags, which a library carries as what `harness_sources` returns."""
    files = sorted(file for file in NATIVE.iterdir() if file.suffix in (".h", ".cpp", ".json"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cache
def _load() -> _Loaded:
    """Return the library of the package or that of the cache folder, which is compiled if it is not there."""
    wanted = instructions()
    if wanted == OFF:
        return _Loaded(None, f"{KERNELS} is {OFF}")
    name, digest = f"harness_{wanted}.so", sources()
    shipped = NATIVE / name
    if shipped.exists() and (library := _bind(shipped, wanted, digest)):
        return _Loaded(library)
    compiler = devices.compiler(torch.device("cpu"))
    if compiler is None:
        return _Loaded(None, "there is no C++ compiler here")
    flags = (*FLAGS, *INSTRUCTIONS[wanted], f'-DSOURCES="{digest}"')
    key = repr((compiler, flags, platform.machine(), platform.libc_ver()))  # machines of several kinds may share the folder
    built = Path(cache_folder(), f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{name}")
    try:
        if said := _foreign(built.parent):
            return _Loaded(None, said)
        if not built.exists() and (said := _compile(compiler, flags, built)):
            return _Loaded(None, f"{compiler} failed: {said}")
    except OSError as fault:  # a folder that cannot be made or written to, a full disk
        return _Loaded(None, str(fault))
    library = _bind(built, wanted, digest)
    return _Loaded(library, "" if library else f"{built} is damaged; delete it")


def _compile(compiler: str, flags: tuple[str, ...], to: Path) -> str:
    """Compile the sources to a file and return "", or the first error that the compiler reports."""
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = to.with_suffix(f".{os.getpid()}")  # of this process alone, for others may compile at the same time
    command = (compiler, *flags, "-shared", str(NATIVE / "kernels.cpp"), "-o", str(scratch))
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=COMPILER_S)
        if ran.returncode:
            lines = ran.stderr.splitlines() or [f"exit status {ran.returncode}"]
            return next((line for line in lines if "error" in line), lines[0])
        scratch.replace(to)
    except subprocess.TimeoutExpired:
        return f"no end after {COMPILER_S:.0f} s"
    finally:
        scratch.unlink(missing_ok=True)
    return ""


def _foreign(folder: Path) -> str:
    """Return why nothing in a folder may be loaded as code, or "": somebody else owns it, or anybody may write into it.

    The default folder has a name that anybody can make first. One that TORCHINDUCTOR_CACHE_DIR names is the user's own choice.
    """
    if os.environ.get(CACHE) or not folder.exists():
        return ""
    found = folder.stat()
    if found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH:
        return ""
    return f"others than this user may write into {folder}; delete it, or set {CACHE} to a folder of your own"


def _bind(path: Path, instructions: str, digest: str) -> Library | None:
    """Return the library in a file with its functions typed, or None if it was built from other sources or cannot be loaded.

    Raises:
        UserError: this processor lacks the instructions.
    """
    try:
        native = ctypes.CDLL(str(path))
        native.harness_sources.restype = ctypes.c_char_p
        if native.harness_sources() != digest.encode():
            return None
        if not native.harness_runs():
            raise UserError(f"{KERNELS} is {instructions!r}, which this processor cannot run\nset it to another, or leave it unset")
    except (OSError, AttributeError):  # not a library for this machine; not one of ours
        return None
    functions = {}
    for name, arguments in SIGNATURES.items():
        function = getattr(native, f"harness_{name}")
        function.argtypes, function.restype = arguments, None
        functions[name] = function
    return Library(instructions=instructions, path=path, **functions)


def cache_folder() -> Path:
    """Return the folder of compiled code.

    It is TORCHINDUCTOR_CACHE_DIR if that is set, otherwise a folder of this user beside torch's own; asking torch for its folder
    would take a second.
    """
    return Path(os.environ.get(CACHE) or Path(tempfile.gettempdir(), f"harness_{os.getuid()}"))
