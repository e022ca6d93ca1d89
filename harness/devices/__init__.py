"""Devices: which one to use, graphs of steps, precision, time and memory. No other room names a GPU.

In come names of devices and functions that take steps; out come torch's devices, launches, seconds and bytes. Models, data and
trials must not enter here.
"""

from harness.devices.graphs import CaptureError, ahead, can_capture, capture, memory_pool, no_waiting, use
from harness.devices.memory import (
    MEBI,
    is_lost,
    is_out_of_memory,
    keep_freed_memory,
    memory_holds,
    memory_of,
    peak_memory_mib,
    release_memory,
    reset_peak_memory,
)
from harness.devices.precision import check_precision, no_subnormals, tensor_cores
from harness.devices.selection import compiler, cuda_version, describe, gpu_facts, is_gpu, named, one_thread, worker_devices
from harness.devices.timing import StepTimer, wait
from harness.resources import cores, cpu_name, memory_of_machine

__all__ = [
    "MEBI",
    "CaptureError",
    "StepTimer",
    "ahead",
    "can_capture",
    "capture",
    "check_precision",
    "compiler",
    "cores",
    "cpu_name",
    "cuda_version",
    "describe",
    "gpu_facts",
    "is_gpu",
    "is_lost",
    "is_out_of_memory",
    "keep_freed_memory",
    "memory_holds",
    "memory_of",
    "memory_of_machine",
    "memory_pool",
    "named",
    "no_subnormals",
    "no_waiting",
    "one_thread",
    "peak_memory_mib",
    "release_memory",
    "reset_peak_memory",
    "tensor_cores",
    "use",
    "wait",
    "worker_devices",
]
