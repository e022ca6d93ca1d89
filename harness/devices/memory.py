"""Memory of a device, and the faults of a GPU: out of memory, or lost for the process."""

import ctypes
import gc
import platform
import resource
from functools import cache

import torch

from harness.devices.graphs import CaptureError

MEBI = 2**20
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h of glibc has them
KEPT_BYTES, LARGEST_BYTES = 2**28, 2**25  # free memory that is kept, and the largest tensor that comes from it, glibc's own limit
FILLED = 0.6  # of a GPU's memory; the rest is for the context, compiled code, cuBLAS and what other programs hold


def memory_holds(device: torch.device, bytes_each: int, workers: int = 1) -> int:
    """Return how many objects of `bytes_each` bytes a worker can hold if so many share the GPU, at least one.

    It is an estimate from the size of the GPU's memory alone, which can be read without making a context on it.
    """
    return max(1, int(FILLED * memory_of(device) / workers) // bytes_each)


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a GPU."""
    total: int = torch.cuda.get_device_properties(device).total_memory
    return total


def is_out_of_memory(fault: BaseException) -> bool:
    """Return whether a fault says that the device's memory is too small for what was asked of it, by torch, CUDA or a library."""
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(fault, torch.OutOfMemoryError) or (isinstance(fault, RuntimeError) and any(w in str(fault) for w in words))


def is_lost(fault: BaseException) -> bool:
    """Return whether a GPU's fault makes it useless for this process, as an illegal access does: every later call fails too."""
    if is_out_of_memory(fault) or isinstance(fault, CaptureError):
        return False
    words = ("CUDA error", "Triton Error [CUDA]")
    return isinstance(fault, torch.AcceleratorError) or (isinstance(fault, RuntimeError) and any(w in str(fault) for w in words))


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mib` count from now on, on a GPU; a CPU's count is that of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


@cache
def keep_freed_memory() -> None:
    """Let this process keep up to 256 MiB that tensors have left for the next ones, where glibc gives them out.

    By itself it hands what is large back to the system at once, and each next tensor is new memory, zeroed page by page. For what
    has several temporaries of half a MiB and more that takes longer than the arithmetic: log p of 334 images of a continuous
    Bernoulli took 17 ns a pixel and takes 8, a pmf in float64 took 66 to 87 and takes 27 to 56.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # elsewhere there is none
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(MMAP_THRESHOLD, LARGEST_BYTES)


def release_memory(device: torch.device) -> None:
    """Give memory that no tensor holds any more back to the GPU."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory held so far, in MiB: by this process on a CPU, by its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBI
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / MEBI
