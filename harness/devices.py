"""Devices: the only file that knows them. Which one, how many threads, how long a step took, how much memory."""

import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from harness.errors import MachineError, UserError

MEBI = 2**20
MOST_WORKERS = 1_000  # of one driver on a cluster


def device(name: str) -> torch.device:
    """The device called `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU, or the CPU where there is none.

    Raises:
        UserError: a name of another form. MachineError: a GPU that is not here; never a silent fallback.
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
        here = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        raise MachineError(f"DEVICE={name}: no such GPU\nhere: {here}, cpu")
    return torch.device("cuda", int(index or 0))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_gpu(name: str) -> bool:
    """Whether a device called so is a GPU, whatever this machine has."""
    return name.partition(":")[0] == "cuda"


def worker_devices(name: str, workers: int | None, here: bool) -> list[str]:
    """The device of each place to train at: every core of a CPU or every GPU of this machine, or as many as asked for.

    `cuda` and `auto` take all GPUs there are, `cuda:1` that one. Not `here`: on other machines, of which this one knows nothing.

    Raises:
        UserError: fewer than one, or more than this machine has cores or GPUs.
    """
    where = device(name)
    if where.type == "cuda":
        every = name in ("auto", "cuda")
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if every else [str(where)]
    else:
        found = ["cpu"] * cores()
    count = len(found) if workers is None else workers
    if not 1 <= count <= (len(found) if here else MOST_WORKERS):
        raise UserError(
            f"WORKERS={count}: from 1 to {len(found) if here else MOST_WORKERS} for {describe(where) if here else 'a cluster'}"
        )
    return found[:count] if here else [where.type] * count


def describe(where: torch.device) -> str:
    """The device in words, as results should quote it."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    return f"{cpu_name()}, {cores()} cores"


def cpu_name() -> str:
    """The processor's model name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def one_thread() -> None:
    """Pin this process's torch to one thread: results do not depend on the machine's core count, workers do not fight."""
    torch.set_num_threads(1)


def memory_holds(where: torch.device, bytes_each: int) -> int:
    """How many things of this size fit into 70 % of a GPU's free memory, at least one."""
    free, _ = torch.cuda.mem_get_info(where)
    return max(1, int(0.7 * free) // bytes_each)


def wait(where: torch.device) -> None:
    """Wait until the device has done all its work."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)


def can_capture(where: torch.device) -> bool:
    """Whether steps can be captured once and launched again as a whole: on a GPU."""
    return where.type == "cuda"


def captured(step: Callable[[], object], times: int) -> Callable[[], None]:
    """`times` steps in a row as one launch of a CUDA graph. One step is taken before; undoing it is left to the caller."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # what runs for the first time may allocate or wait, which a capture must not
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            step()
    return graph.replay


@contextmanager
def no_waiting() -> Iterator[None]:
    """An operation in this block that waits for the GPU raises RuntimeError."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compiler(where: torch.device) -> str | None:
    """What compiles steps, if it is there: a C++ compiler for a CPU; for a GPU torch brings its own, but needs a C one beside."""
    names = (os.environ.get("CXX"), "g++", "clang++") if where.type == "cpu" else (os.environ.get("CC"), "gcc", "clang")
    return next((name for name in names if name and shutil.which(name)), None)


@cache
def slow_blas(where: torch.device) -> bool:
    """Whether torch's products of small matrices are well below what this device can do: on AMD's cores with AVX-512."""
    return where.type == "cpu" and _says("AuthenticAMD") and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _says(word: str) -> bool:
    """Whether the system's description of the processor has this word."""
    info = Path("/proc/cpuinfo")
    return word in (info.read_text() if info.exists() else platform.processor())


def check_precision(name: str, where: torch.device) -> None:
    """Refuse a precision that does not pay on this device.

    Raises:
        UserError: TF32 on a CPU, which has none; bf16 on a CPU where it measures slower than fp32, as it is without AMX or fast
            AVX-512 bf16 instructions.
    """
    if name == "tf32" and where.type == "cpu":
        raise UserError(f"precision 'tf32' is for a CUDA GPU, this is {describe(where)}\nuse precision='fp32'")
    if name == "bf16" and where.type == "cpu":
        fp32, bf16 = product_ms(torch.float32), product_ms(torch.bfloat16)
        if bf16 >= fp32:
            raise UserError(
                f"precision 'bf16' does not pay on {describe(where)}: a layer of 784 x 256 with its gradients takes {bf16:.2f} ms "
                f"in bf16, {fp32:.2f} ms in fp32, measured just now\nuse precision='fp32', or a GPU"
            )


def product_ms(precision: torch.dtype) -> float:
    """Milliseconds of the reference model's widest layer for 128 images with both gradients, casts included; median, one thread."""
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
    """Whether fp32 products in this block may be taken in TF32; strictly fp32 unless allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def bucket(lanes: int) -> int:
    """The lanes of the smallest program that holds this many: powers of 2, so that few programs serve all cohorts."""
    return 1 << max(0, lanes - 1).bit_length()


class StepTimer:
    """Marks in time between the steps of an epoch, without waiting for the device. `seconds` reads the gaps, once."""

    def __init__(self, where: torch.device) -> None:
        self.cuda = where.type == "cuda"
        self.marks: list = []
        self.steps: list[int] = []
        self.mark(0)

    def mark(self, steps: int = 1) -> None:
        """Note the time now, on the device's own clock: `steps` steps have been taken since the last mark."""
        self.steps.append(steps)
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """The time of each step: between successive marks, shared evenly by the steps taken there."""
        if self.cuda:
            self.marks[-1].synchronize()
        pairs = zip(self.marks, self.marks[1:], self.steps[1:], strict=False)
        spans = [(a.elapsed_time(b) / 1e3 if self.cuda else b - a, n) for a, b, n in pairs]
        return [span / n for span, n in spans for _ in range(n)]


def peak_memory_mib(where: torch.device) -> float:
    """Most memory held so far: by this process on a CPU, by its tensors on a GPU. MiB."""
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / MEBI
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if platform.system() == "Darwin" else 1024) / MEBI
