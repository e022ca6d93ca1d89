"""Precision of matrix products: what a device has, whether it pays there, and blocks in which TF32 is allowed."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from harness.devices.selection import describe
from harness.errors import UserError


@cache
def slow_blas(device: torch.device) -> bool:
    """Return whether torch's products of small matrices are well below what this device can do.

    They are on AMD's cores with AVX-512.
    """
    return device.type == "cpu" and _cpu_info_has("AuthenticAMD") and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _cpu_info_has(word: str) -> bool:
    """Return whether the operating system's description of the processor has this word."""
    info = Path("/proc/cpuinfo")
    return word in (info.read_text() if info.exists() else platform.processor())


def check_precision(name: str, device: torch.device) -> None:
    """Raise an error if a precision does not pay on this device.

    Raises:
        UserError: TF32 on a CPU, which has none; or bf16 on a CPU on which it measures slower than fp32, as it does without AMX or
            fast AVX-512 bf16 instructions.
    """
    if name == "tf32" and device.type == "cpu":
        raise UserError(f"precision 'tf32' is for a CUDA GPU, this is {describe(device)}\nuse precision='fp32'")
    if name == "bf16" and device.type == "cpu":
        fp32, bf16 = product_ms(torch.float32), product_ms(torch.bfloat16)
        if bf16 >= fp32:
            raise UserError(
                f"precision 'bf16' does not pay on {describe(device)}: a layer of 784 x 256 with its gradients takes {bf16:.2f} ms "
                f"in bf16, {fp32:.2f} ms in fp32, measured just now\nuse precision='fp32', or a GPU"
            )


def product_ms(precision: torch.dtype) -> float:
    """Return the milliseconds that the reference model's widest layer takes in this precision: median of 25, one thread.

    The layer (784 x 256) is applied to 128 images, with both gradients and the casts.
    """
    x, w = (torch.randn(*size).requires_grad_() for size in ((128, 784), (784, 256)))
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(25):
            started = time.perf_counter()
            y = (x.to(precision) @ w.to(precision)).float()
            torch.autograd.grad(y.sum(), (x, w))
            times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return 1e3 * sorted(times)[len(times) // 2]


@contextmanager
def tensor_cores(allowed: bool) -> Iterator[None]:
    """Let fp32 products in this block be taken in TF32 if `allowed`, else take them strictly in fp32."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed  # torch lets convolutions take TF32 by default
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions
