"""Precision: what a device has and whether it pays there, and blocks in which TF32 is allowed or subnormal numbers are zero."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.devices.selection import describe
from harness.errors import UserError


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


@contextmanager
def no_subnormals() -> Iterator[None]:
    """Take subnormal numbers, those nearer to zero than 1.2e-38, for zero in this block, as far as this thread of a CPU computes.

    The gradient of a ReLU unit that has died is zero, and Adam's mean of it decays to a subnormal number, where rounding holds it:
    on many processors a step that computes with such numbers takes half as long again.
    """
    before = not float(torch.tensor(2e-38) / 100)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
