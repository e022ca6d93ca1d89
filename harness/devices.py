"""Devices, whose GPUs no other module names: which one to use, how many threads, how long a step took, how much memory it used."""

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from harness.errors import MachineError, UserError

MEBI = 2**20
MOST_WORKERS = 1_000  # of one driver on a cluster


def named(name: str) -> torch.device:
    """Return the device called `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, or the CPU of a machine without one.

    Raises:
        UserError: the name has another form.
        MachineError: the GPU is not available. Nothing falls back to the CPU silently.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and (kind == "cpu" or not index.isdigit())):
        raise UserError(f"unknown device {name!r}\nknown: auto, cpu, cuda, cuda:0, cuda:1, ...")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build = (torch.version.cuda and f"torch {torch.__version__} sees no GPU") or f"torch {torch.__version__} has no CUDA"
        raise MachineError(f"DEVICE={name}: no CUDA GPU here ({build})\nhere: cpu. To train on it: DEVICE=cpu")
    if int(index or 0) >= torch.cuda.device_count():
        available = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise MachineError(f"DEVICE={name}: no such GPU\nhere: {available}, cpu")
    return torch.device("cuda", int(index or 0))


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_gpu(name: str) -> bool:
    """Return whether this is the name of a GPU, whether or not this machine has one."""
    return name.partition(":")[0] == "cuda"


def worker_devices(name: str, workers: int | None, local: bool) -> list[str]:
    """Return the name of the device of each worker: every core of a CPU or every GPU, or as many as `workers` asks for.

    Args:
        name: `cuda` and `auto` take all GPUs of the machine, `cuda:1` takes that one.
        workers: the number of workers; None for one per core or GPU.
        local: True if the workers run on this machine; False if on others, whose cores and GPUs are not known here.

    Raises:
        UserError: fewer than one worker, or more than this machine has cores or GPUs (on a cluster: more than 1,000).
    """
    device = named(name)
    if device.type == "cuda":
        all_gpus = name in ("auto", "cuda")
        available = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if all_gpus else [str(device)]
    else:
        available = ["cpu"] * cores()
    count = len(available) if workers is None else workers
    most = len(available) if local else MOST_WORKERS
    if not 1 <= count <= most:
        raise UserError(f"WORKERS={count}: from 1 to {most} for {describe(device) if local else 'a cluster'}")
    return available[:count] if local else [device.type] * count


def describe(device: torch.device) -> str:
    """Return the device in words, as results should quote it: the GPU's name, or the processor's name and its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {cores()} cores"


def cpu_name() -> str:
    """Return the processor's model name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def one_thread() -> None:
    """Make torch use one thread in this process.

    Results then do not depend on the number of cores, and workers do not compete for them.
    """
    torch.set_num_threads(1)


def memory_holds(device: torch.device, bytes_each: int) -> int:
    """Return how many objects of `bytes_each` bytes fit into 70 % of a GPU's free memory, at least one."""
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(0.7 * free) // bytes_each)


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def can_capture(device: torch.device) -> bool:
    """Return whether the device can capture steps once and launch them again as a whole, which a GPU can."""
    return device.type == "cuda"


def captured(step: Callable[[], object], times: int) -> Callable[[], None]:
    """Return a function that launches `times` steps in a row as one CUDA graph.

    One step is taken before the capture. The caller has to undo it.
    """
    warm_up: torch.cuda.Stream = torch.cuda.Stream()
    warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm_up):
        step()  # a first call may allocate memory or wait for the device, neither of which a capture allows
    torch.cuda.current_stream().wait_stream(warm_up)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            step()
    return graph.replay


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raise RuntimeError in this block for every operation that waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compiler(device: torch.device) -> str | None:
    """Return the name of the compiler that compiled steps need, or None if it is not installed.

    A CPU needs a C++ compiler. For a GPU torch brings its own compiler, which needs a C compiler beside it.
    """
    names = (os.environ.get("CXX"), "g++", "clang++") if device.type == "cpu" else (os.environ.get("CC"), "gcc", "clang")
    return next((name for name in names if name and shutil.which(name)), None)


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
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def bucket(lanes: int) -> int:
    """Return the number of lanes of the smallest program that holds this many trials.

    It is a power of 2, so that few programs serve all cohorts.
    """
    return 1 << max(0, lanes - 1).bit_length()


class StepTimer:
    """Marks in time between the steps of an epoch, set without waiting for the device. `seconds` reads the gaps, once."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.marks: list[Any] = []  # torch.cuda.Event on a GPU, else seconds
        self.steps: list[int] = []
        self.mark(0)

    def mark(self, steps: int = 1) -> None:
        """Note the time now, on the device's own clock, when `steps` steps have been taken since the last mark."""
        self.steps.append(steps)
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the seconds of each step.

        The time between two successive marks is shared evenly by the steps taken between them.
        """
        if self.cuda:
            self.marks[-1].synchronize()
        pairs = zip(self.marks, self.marks[1:], self.steps[1:], strict=False)
        spans = [(a.elapsed_time(b) / 1e3 if self.cuda else b - a, n) for a, b, n in pairs]
        return [span / n for span, n in spans for _ in range(n)]


def peak_memory_mib(device: torch.device) -> float:
    """Return the most memory held so far, in MiB: by this process on a CPU, by its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBI
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / MEBI
